"""Every layout of images with captions gives what was written, and mistakes are told in one clear line."""

import json
import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest

from mindone_coca.data import tar_index
from mindone_coca.data.mindrecord import write_mindrecord
from mindone_coca.data.samples import BadSample
from mindone_coca.data.settings import DataConfig
from mindone_coca.data.sources import open_sources
from mindone_coca.data.webdataset import expand_pattern
from mindone_coca.errors import InputError
from tests.data.training_samples import captions_of, jpeg, open_one, write_csv, write_images, write_layouts, write_tar

TOOL = Path(__file__).parents[2] / "tools" / "make_mindrecord.py"


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "coco", "webdataset"])
def test_source_gives_what_was_written(tmp_path, kind):
    sources, images = write_layouts(tmp_path)
    source = open_one(sources[kind])
    assert len(source) == len(images)
    for index in (6, 0, 3, 2, 6):  # in any order
        sample = source[index]
        expected = captions_of(index)[:1] if kind in ("csv", "tsv") else captions_of(index)
        assert (sample.read(), list(sample.captions), Path(sample.name).suffix) == (images[index], expected, ".jpg")


@pytest.mark.parametrize("shards", [1, 3])
def test_mindrecord_gives_what_its_tool_wrote(tmp_path, shards):
    sources, images = write_layouts(tmp_path)
    images[4] += b"\0\0"  # trailing zeros are part of the bytes
    (tmp_path / "images" / "04.jpg").write_bytes(images[4])
    written, bad = write_mindrecord(open_one(sources["coco"]), tmp_path / "all.mindrecord", shards)
    assert (written, bad) == (7, [])
    source = open_one(str(tmp_path / ("all.mindrecord" if shards == 1 else "all.mindrecord*")))
    found = sorted((sample.name, sample.read(), sample.captions) for sample in map(source.__getitem__, range(7)))
    names = [str(tmp_path / "images" / f"{number:02}.jpg") for number in range(7)]
    assert found == [(names[n], images[n], captions_of(n)) for n in range(7)]


def _read_all(source, queue):
    queue.put([source[index].read() for index in range(len(source))])


def test_mindrecord_in_forked_processes(tmp_path):
    sources, images = write_layouts(tmp_path)
    write_mindrecord(open_one(sources["jsonl"]), tmp_path / "all.mindrecord")
    source = open_one(str(tmp_path / "all.mindrecord"))
    assert source[0].read() == images[0]  # opened before the fork
    context, results = multiprocessing.get_context("fork"), []
    queue = context.Queue()
    processes = [context.Process(target=_read_all, args=(source, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    results = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    assert results == [images, images]


@pytest.mark.graphs
def test_make_mindrecord_tool(tmp_path):
    write_images(tmp_path, 3)
    rows = [(f"{number:02}.jpg", f"caption {number}") for number in (0, 1, 7, 2)]
    listed = write_csv(tmp_path / "list.csv", rows)

    def run(*arguments):
        command = [sys.executable, str(TOOL), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = run(listed, tmp_path / "out" / "some.mindrecord")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "07.jpg is left out" in done.stderr
    source = open_one(str(tmp_path / "out" / "some.mindrecord"))
    assert [source[n].captions for n in range(3)] == [["caption 0"], ["caption 1"], ["caption 2"]]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["some.mindrecord", "some.mindrecord.db"]

    wrong = run(listed, tmp_path / "x.mindrecord", "--caption_key", "titel")
    assert wrong.returncode == 2
    assert "'title'" in wrong.stderr and len(wrong.stderr.strip().splitlines()) == 1


def test_labels_become_sentences(tmp_path):
    write_images(tmp_path / "tabby_cat", 2)
    write_images(tmp_path / "n02" / "deeper", 1)
    (tmp_path / "n02" / "notes.txt").write_text("no image")
    (tmp_path / "names.json").write_text('{"n02": "brown dog", "7": "seven"}')
    labels = {
        "label_template": ["a photo of a {}.", "{}!"],
        "label_prefix": "label: ",
        "label_names": str(tmp_path / "names.json"),
    }
    source = open_one({"path": str(tmp_path), **labels})
    assert [source[n].captions for n in range(3)] == [
        ["label: a photo of a brown dog.", "label: brown dog!"],
        *[["label: a photo of a tabby cat.", "label: tabby cat!"]] * 2,
    ]
    plain = open_one({"path": str(tmp_path)})
    assert [plain[n].captions for n in range(3)] == [["n02"], ["tabby cat"], ["tabby cat"]]

    table = write_csv(tmp_path / "labels.csv", [("tabby_cat/00.jpg", "7")], ("filepath", "digit"), ",")
    listed = open_one({"path": str(table), "label_key": "digit", **labels})
    assert listed[0].captions == ["label: a photo of a seven.", "label: seven!"]

    shard = write_tar(tmp_path / "x.tar", [{"0.png": jpeg(0), "0.cls": b"7\n"}])
    assert open_one({"path": str(shard), "label_key": "cls", "label_template": ["a {}"]})[0].captions == ["a 7"]


def test_paths_resolve_against_the_list_or_image_root(tmp_path, monkeypatch):
    write_images(tmp_path / "pictures", 2)
    (tmp_path / "lists").mkdir()
    monkeypatch.chdir(tmp_path)
    beside = write_csv(tmp_path / "lists" / "a.csv", [("../pictures/01.jpg", "one")])
    absolute = write_csv(tmp_path / "lists" / "b.csv", [(str(tmp_path / "pictures" / "01.jpg"), "one")])
    rooted = write_csv(tmp_path / "lists" / "c.csv", [("01.jpg", "one")])
    for settings in (str(beside), str(absolute), {"path": str(rooted), "image_root": "pictures"}):
        assert open_one(settings)[0].read() == jpeg(1)


def test_tables_as_people_write_them(tmp_path):
    write_images(tmp_path, 1)
    text = '\ufefftitle,filepath\r\n"a, ""b""\nc",00.jpg\r\n'
    (tmp_path / "quoted.csv").write_text(text, encoding="utf-8", newline="")
    assert open_one(str(tmp_path / "quoted.csv"))[0].captions == ['a, "b"\nc']
    (tmp_path / "other.csv").write_text("image;text\n00.jpg;é, \t1\n", encoding="utf-8")
    settings = {"path": str(tmp_path / "other.csv"), "separator": ";", "image_key": "image"}
    assert open_one(settings, caption_key="text")[0].captions == ["é, \t1"]


def test_shards_with_more_than_pairs(tmp_path, caplog):
    samples = [
        {"a/0.mask.png": b"no", "a/0.JPG": jpeg(0), "a/0.txt": "zéro\n".encode(), "a/0.json": b"{}"},
        {"b/0.txt": b"no image"},
        {"b/1.jpg": jpeg(1)},
        {"c.x.y/2.txt": b"two", "c.x.y/2.webp": jpeg(2)},
    ]
    source = open_one(str(write_tar(tmp_path / "x.tar", samples)), max_bad_share=0.5)
    assert [(source[n].captions, source[n].read()) for n in range(2)] == [(["zéro"], jpeg(0)), (["two"], jpeg(2))]
    assert "2 samples read; 2 samples refused" in caplog.text and "passed over 2 files: 1 .json, 1 .png" in caplog.text


def test_the_index_of_shards_is_kept_and_renewed(tmp_path, monkeypatch):
    shard = write_tar(tmp_path / "x.tar", [{"0.jpg": jpeg(0), "0.txt": b"zero"}])
    settings = {"path": str(shard), "index_dir": str(tmp_path / "index")}
    assert open_one(settings)[0].captions == ["zero"]
    with monkeypatch.context() as patch:
        patch.setattr(tar_index.tarfile, "TarFile", None)  # not needed again
        assert (open_one(settings)[0].captions, open_one(settings)[0].read()) == (["zero"], jpeg(0))
    write_tar(shard, [{"0.jpg": jpeg(1), "0.txt": b"one"}, {"1.jpg": jpeg(2), "1.txt": b"two"}])
    renewed = open_one(settings)
    assert [(renewed[n].captions, renewed[n].read()) for n in range(2)] == [(["one"], jpeg(1)), (["two"], jpeg(2))]


def test_brace_patterns():
    assert expand_pattern("s-{008..010}.tar") == ["s-008.tar", "s-009.tar", "s-010.tar"]
    assert expand_pattern("{a,b}/{1..2}") == ["a/1", "a/2", "b/1", "b/2"]


def _settings(tmp_path, case):
    """-> settings of a source and the words that the error must have."""
    write_images(tmp_path, 1)
    listed = write_csv(tmp_path / "list.csv", [("00.jpg", "x")])
    shard = write_tar(tmp_path / "x.tar", [{"0.jpg": jpeg(0), "0.caption": b"x"}])
    jsonl, coco = tmp_path / "x.jsonl", tmp_path / "x.json"
    jsonl.write_text('{"filepath": "00.jpg", "title": "x"}\n{"filepath": \n')
    coco.write_text('{"images": []}')
    (tmp_path / "empty.csv").write_text("filepath\ttitle\n")
    (tmp_path / "nothing.csv").write_text("")
    (tmp_path / "cut.tar").write_bytes((tmp_path / "x.tar").read_bytes()[:700])
    (tmp_path / "packed.tar").write_bytes(b"\x1f\x8b\x08\x00" + bytes(600))
    (tmp_path / "x.mindrecord").write_bytes(bytes(100))
    (tmp_path / "bare").mkdir()
    write_csv(tmp_path / "gone.csv", [("not/here.jpg", "x"), ("nor/there.jpg", "y")])
    return {
        "missing list": (tmp_path / "no.csv", ["no.csv", "no such file"]),
        "missing column": ({"path": listed, "caption_key": "titel"}, ["list.csv", "'titel'", "caption_key", "'title'"]),
        "missing image column": ({"path": listed, "image_key": "url"}, ["'url'", "image_key", "filepath, title"]),
        "unknown format": (tmp_path / "00.jpg", ["00.jpg", "set format to one of csv"]),
        "wrong format": ({"path": listed, "format": "cvs"}, ["format", "csv or tsv"]),
        "empty list": (tmp_path / "empty.csv", ["empty.csv", "no samples"]),
        "empty file": (tmp_path / "nothing.csv", ["nothing.csv", "no header line"]),
        "not JSON": (jsonl, ["x.jsonl: line 2", "not JSON"]),
        "not COCO": (coco, ["x.json", "not a COCO captions file"]),
        "images elsewhere": (tmp_path / "gone.csv", ["not/here.jpg", "image_root"]),
        "no such folder": ({"path": tmp_path / "no", "format": "folder"}, ["no such folder"]),
        "no classes": (tmp_path / "bare", ["bare", "CLASS/IMAGE.jpg"]),
        "missing shard": (str(tmp_path / "s-{0..1}.tar"), ["s-0.tar", "s-{0..1}.tar"]),
        "no texts in shard": (shard, ["x.tar", ".txt", "caption, jpg"]),
        "shard cut short": (tmp_path / "cut.tar", ["cut.tar", "cut short"]),
        "compressed shard": (tmp_path / "packed.tar", ["packed.tar", "unpack"]),
        "no MindRecord": (tmp_path / "x.mindrecord", ["x.mindrecord", "MindRecord"]),
        "unknown key": ({"path": listed, "wieght": 1.0}, ["'wieght'", "'weight'"]),
        "key of another format": ({"path": shard, "separator": ","}, ["separator", "webdataset"]),
        "template without label": ({"path": listed, "label_template": ["{}"] * 2}, ["label_template", "label_key"]),
        "template without place": ({"path": listed, "label_key": "title", "label_template": ["cat"]}, ["'cat'", "{}"]),
    }[case]


CASES = [
    "missing list",
    "missing column",
    "missing image column",
    "unknown format",
    "wrong format",
    "empty list",
    "empty file",
    "not JSON",
    "not COCO",
    "images elsewhere",
    "no such folder",
    "no classes",
    "missing shard",
    "no texts in shard",
    "shard cut short",
    "compressed shard",
    "no MindRecord",
    "unknown key",
    "key of another format",
    "template without label",
    "template without place",
]


@pytest.mark.parametrize("case", CASES)
def test_mistakes_are_named(tmp_path, case):
    settings, words = _settings(tmp_path, case)
    settings = {**settings, "path": str(settings["path"])} if isinstance(settings, dict) else str(settings)
    with pytest.raises(InputError) as caught:
        open_one(settings)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_lists_of_sources(tmp_path):
    sources, _ = write_layouts(tmp_path)
    config = DataConfig(train=[{**sources["csv"], "weight": 2}, {**sources["coco"], "weight": 0.5}])
    opened, weights = open_sources(config.train, config, "data.train")
    assert ([len(source) for source in opened], weights) == ([7, 7], [2.0, 0.5])
    with pytest.raises(InputError, match=r"data\.train: the list is empty"):
        open_sources([], config, "data.train")
    with pytest.raises(InputError, match=r"data\.train\[1\].*'pth'.*'path'"):
        open_sources([sources["csv"], {"pth": "x"}], config, "data.train")


def test_a_damaged_shard_member_is_a_bad_sample(tmp_path):
    shard = write_tar(tmp_path / "x.tar", [{"0.jpg": jpeg(0), "0.json": json.dumps({"other": 1}).encode()}])
    source = open_one({"path": str(shard), "caption_key": "json.said"})
    with pytest.raises(BadSample) as caught:
        source[0]
    assert caught.value.name == f"{shard}:0.jpg"
