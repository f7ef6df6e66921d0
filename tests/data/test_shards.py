"""Shards as people have them: every sample is read, or refused by name."""

import logging
import tarfile
from pathlib import Path

from tests.data.cases import AS_WRITTEN, CAPTIONS, captions, refused
from tests.data.fuzz_shards import END, member
from tests.data.training_samples import jpeg, open_one


def shard(folder, *members: tuple[str, bytes], end=END) -> str:
    (folder / "x.tar").write_bytes(b"".join(member(*pair) for pair in members) + end)
    return str(folder / "x.tar")


def pairs(prefix="", first=0) -> list[tuple[str, bytes]]:
    return [
        pair
        for number, caption in enumerate(CAPTIONS, first)
        for pair in ((f"{prefix}{number:05}.jpg", jpeg(number)), (f"{prefix}{number:05}.txt", caption.encode()))
    ]


def test_a_key_that_is_there_twice_is_two_samples(folder):
    members = pairs()
    twice = [(name.replace("00001", "00000").replace("00003", "00002"), content) for name, content in members]
    source = open_one(shard(folder, *twice))
    assert captions(source) == AS_WRITTEN and source[1].read() == jpeg(1)
    names = [source[number].name.rpartition(":")[2] for number in range(4)]  # evaluation tells samples by their names
    assert names == ["00000.jpg", "00000 (2).jpg", "00002.jpg", "00002 (2).jpg"]
    assert Path(source[1].name).suffix == ".jpg"


def test_a_key_whose_files_are_unclear_is_refused_by_name(folder):
    members = [("00000.txt", b"of another picture"), *pairs()]
    message = refused(shard(folder, *members))
    assert "x.tar:00000.txt: its key is there 2 times, with different files" in message
    assert captions(open_one(shard(folder, *members), max_bad_share=0.5)) == AS_WRITTEN[1:]


def test_members_of_a_sample_need_not_follow_each_other(folder):
    source = open_one(shard(folder, *sorted(pairs("./"), key=lambda pair: pair[0][-3:])))
    assert captions(source) == AS_WRITTEN and [source[n].read() for n in range(4)] == [jpeg(n) for n in range(4)]
    both = sorted(pairs(), key=lambda pair: pair[0][-3:])
    again = open_one(shard(folder, *both, *both))  # two such shards in one
    assert captions(again) == AS_WRITTEN * 2


def test_what_macos_and_notebooks_add_to_a_shard_is_passed_over(folder, caplog):
    members = pairs("./") + pairs("__MACOSX/") + pairs(".ipynb_checkpoints/")
    members += [(name.replace("./", "./._"), b"x" * 163) for name, _ in pairs("./")] + [(".DS_Store", b"x")]
    with caplog.at_level(logging.INFO):
        assert captions(open_one(shard(folder, *members))) == AS_WRITTEN
    assert "4 samples read; passed over 25 files: 25 hidden" in caplog.text


def test_keys_with_dots_are_said_in_a_few_examples(folder):
    members = [(f"img.{number:05}.{suffix}", b"x") for number in range(3000) for suffix in ("jpg", "txt")]
    message = refused(shard(folder, *members))
    assert "00000.jpg, 00000.txt, 00001.jpg" in message and "and 5,990 more" in message and "first dot" in message


def test_folders_and_links_in_a_shard(folder, caplog):
    content = b"".join(member(*pair) for pair in pairs()) + member("d", kind=tarfile.DIRTYPE)
    content += member("d/a.jpg", kind=tarfile.LNKTYPE, target="00002.jpg") + member("d/a.txt", b"the same")
    content += member("d/b.jpg", kind=tarfile.SYMTYPE, target="a.jpg")
    (folder / "x.tar").write_bytes(content + END)
    source = open_one(str(folder / "x.tar"))
    assert captions(source) == [*AS_WRITTEN, ["the same"]] and source[4].read() == jpeg(2)
    assert "passed over 1 file: 1 linked" in caplog.text


def test_shards_put_together_are_read_whole(folder):
    first, second = (b"".join(member(*pair) for pair in pairs(first=first)) + END * 10 for first in (0, 100))
    (folder / "x.tar").write_bytes(first + second)
    assert captions(open_one(str(folder / "x.tar"))) == AS_WRITTEN * 2


def test_a_shard_damaged_in_the_middle(folder):
    path = shard(folder, *pairs())
    content = bytearray((folder / "x.tar").read_bytes())
    at = content.index(b"00002.jpg")
    content[at + 2] ^= 1
    (folder / "x.tar").write_bytes(content)
    assert f"damaged or cut short, at byte {at:,}" in refused(path)


def test_a_shard_cut_between_members_is_told(folder, caplog):
    assert captions(open_one(shard(folder, *pairs()[:4], end=b""))) == AS_WRITTEN[:2]
    assert "the end mark of tar files is missing; was it cut short?" in caplog.text


def test_a_damaged_index_is_made_anew(folder):
    settings = {"path": shard(folder, *pairs()), "index_dir": str(folder / "index")}
    open_one(settings)
    [saved] = (folder / "index").iterdir()
    whole = saved.read_bytes()
    for content in (whole[:100], b"[]", b'{"state": 1}'):
        saved.write_bytes(content)
        assert captions(open_one(settings)) == AS_WRITTEN
        assert saved.read_bytes() == whole


def test_shards_in_a_folder_with_brackets(tmp_path):
    folder = tmp_path / "[2023] {x} trip"
    folder.mkdir()
    shard(folder, *pairs())
    assert captions(open_one(str(folder))) == AS_WRITTEN
    assert captions(open_one(f"{tmp_path}/[2023] {{x}} trip/*.tar")) == AS_WRITTEN
