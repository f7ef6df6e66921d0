"""The journal: whole lines only, one writer, one set of settings."""

import os
import time

import pytest

from mindone_coca.collection.journal import Journal, Results, encode_line, scan
from mindone_coca.collection.plan import Shard
from mindone_coca.errors import InputError

WHOLE = Shard()
SETTINGS = {"model": "m 1", "seq_len": 30, "thumbnails": False, "features": False}


def record(path: str, size: int = -1, error: str | None = None, **more) -> dict:
    return {"path": path, "size": size, "error": error, "segments": [], **more}


def write(folder, *records, shard=WHOLE, settings=SETTINGS):
    journal = Journal(folder / shard.file)
    journal.begin(settings)
    for item in records:
        journal.append([item])
    journal.close()
    return journal.path


def test_a_torn_line_is_taken_away(tmp_path):
    path = write(tmp_path, record("a"), record("b"))
    whole = path.read_bytes()
    for cut in range(len(whole)):  # wherever a crash cuts it
        path.write_bytes(whole[:cut])
        lines = whole[:cut].count(b"\n")
        assert len(list(scan(path))) == lines
        write(tmp_path, record("c"))
        records = [item for _, _, item in scan(path)]
        assert [item.get("path") for item in records] == [*[None, "a", "b"][: max(lines, 1)], "c"]
        assert records[0]["settings"] == SETTINGS
    path.write_bytes(whole + b"\0" * 100)  # as some file systems leave it
    write(tmp_path)
    assert path.read_bytes() == whole


def test_lines_are_on_the_disk_each_second(tmp_path, monkeypatch):
    """A killed process loses none; what a power cut may take is what was added within a second."""
    synchronised = []

    def note(number: int) -> None:
        fsync(number)
        synchronised.append((os.fstat(number).st_ino, os.fstat(number).st_size))

    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", note)
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    journal = Journal(tmp_path / WHOLE.file)
    journal.begin(SETTINGS)

    def add(*items: dict, **options: bool) -> tuple[int, bool]:
        """How often the file was synchronised so far, and whether with all that is in it."""
        journal.append(items, **options)
        status = journal.path.stat()
        assert len(journal.path.read_bytes().splitlines()) == len(list(scan(journal.path)))  # whole lines, at once
        return len(synchronised), synchronised[-1] == (status.st_ino, status.st_size)

    assert add(record("a")) == (1, False)
    now += 0.9
    assert add(record("b"), record("c")) == (1, False)
    now += 0.2
    assert add(record("d")) == (2, True)
    assert add(record("e"), at_once=True) == (3, True)
    assert add(record("f")) == (3, False)
    journal.close()
    assert len(synchronised) == 4 and synchronised[-1][1] == journal.path.stat().st_size
    assert len(list(scan(journal.path))) == 7


def test_one_process_writes(tmp_path):
    journal = Journal(tmp_path / Shard().file)
    with pytest.raises(InputError, match="another process"):
        Journal(tmp_path / Shard().file)
    Journal(tmp_path / Shard(0, 2).file).close()  # its own file
    journal.close()
    Journal(tmp_path / Shard().file).close()


def test_results_of_all_shards(tmp_path):
    file = tmp_path / "file.mp4"
    file.write_bytes(b"12345")
    odd = os.fsdecode(b"\xff\n.mp4")
    journals = tmp_path / "journal"
    write(journals, record(str(file), 5), record(odd), shard=Shard(0, 2))
    write(journals, record("bad", error="bad: is bad"), shard=Shard(1, 2))
    results = Results(journals, SETTINGS)
    assert results.is_done(str(file))
    assert results.is_done(odd)
    assert "bad" in results
    assert results.failed("bad")
    assert results.is_done("bad")
    assert not results.is_done("bad", retry_failed=True)
    assert "other" not in results
    assert [item["path"] for item in results.records(["bad", odd])] == ["bad", odd]
    file.write_bytes(b"123456")  # it was changed
    assert not results.is_done(str(file))


def test_a_newer_record_counts(tmp_path):
    write(tmp_path, record("a", 1), record("a", 2, note="new"))
    assert next(Results(tmp_path, SETTINGS).records(["a"]))["note"] == "new"


def test_other_settings_are_refused(tmp_path):
    write(tmp_path, record("a"))
    with pytest.raises(InputError, match=r"0-of-1\.jsonl: was begun with seq_len 30, now it is 20"):
        Results(tmp_path, {**SETTINGS, "seq_len": 20})
    with pytest.raises(InputError, match="features"):  # they were not kept, so cannot be written
        Results(tmp_path, {**SETTINGS, "features": True})
    with pytest.raises(InputError, match="prompt"):
        Results(tmp_path, {**SETTINGS, "prompt": "a"})


@pytest.mark.parametrize("header", [{"journal": 1, "settings": SETTINGS}, {"settings": SETTINGS}, {"journal": 3}])
def test_journals_of_other_versions_are_refused_in_one_line(tmp_path, header):
    (tmp_path / "0-of-1.jsonl").write_bytes(encode_line(header) + encode_line(record("a")))
    with pytest.raises(InputError) as error:
        Results(tmp_path, SETTINGS)
    assert "of another version" in str(error.value) and "--output_dir" in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_kept_goes_on_being_kept(tmp_path):
    write(tmp_path, record("a"), settings={**SETTINGS, "thumbnails": True})
    assert Results(tmp_path, SETTINGS).settings["thumbnails"] is True


def test_lines_are_json_whatever_the_name(tmp_path):
    line = encode_line({"path": os.fsdecode(b"\xff \xc3\xa9")})
    assert line == b'{"path": "\\udcff \xc3\xa9"}\n'
