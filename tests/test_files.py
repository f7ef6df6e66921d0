"""Atomic writes, locks, places that take no files, and names within the limits of a file system."""

import errno
import os
from pathlib import Path

import pytest

from mindone_coca import files
from mindone_coca.errors import InputError, OutputError
from mindone_coca.files import FolderLock, atomic_folder, atomic_path, check_output, fitting_name, longest_name
from mindone_coca.interrupts import TEMPORARY

LONG_NAMES = [
    "東" * 80 + ".mp4",  # 244 bytes
    "v" * 251 + ".srt",  # 255 bytes
    "🎬" * 63 + ".a",
    "x." + "y" * 253,  # a suffix as long as a name may be
    "z" * 255,
    os.fsdecode(b"\xff" * 251 + b".vtt"),
]


@pytest.mark.parametrize("name", LONG_NAMES, ids=range(len(LONG_NAMES)))
def test_any_name_that_the_system_takes_can_be_written(tmp_path, name):
    with atomic_path(tmp_path / name) as partial:
        assert len(os.fsencode(partial.name)) < 60
        assert partial.suffix in (Path(name).suffix, ".partial")
        partial.write_text("all")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["all"]


def test_the_suffix_stays_and_a_failure_leaves_the_target(tmp_path):
    (tmp_path / "a.npy").write_text("before")
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "a.npy") as partial:
        assert partial.suffix == ".npy"
        partial.write_text("half")
        raise ZeroDivisionError
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.npy", "before")]


@pytest.mark.parametrize("letter", ["a", "é", "東", "🎬", os.fsdecode(b"\xff")])
@pytest.mark.parametrize("limit", range(40, 48))
def test_fitting_names(letter, limit):
    name = letter * 100
    short = fitting_name(name, ".srt", limit)
    assert limit - 4 < len(os.fsencode(short)) <= limit and short.endswith(".srt")
    assert short == fitting_name(name, ".srt", limit) != fitting_name(name + letter, ".srt", limit)
    assert set(short.split("~")[0]) == {letter}
    assert fitting_name("short", ".srt", limit) == "short.srt"


def test_the_longest_name_of_a_folder_that_is_still_to_be_made(tmp_path):
    assert longest_name(tmp_path / "not" / "yet") == longest_name(tmp_path) >= 143


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "new" / "folder"
    with pytest.raises(ZeroDivisionError), atomic_folder(target) as folder:
        (folder / "a").write_text("half")
        raise ZeroDivisionError
    assert not contents(tmp_path)
    with atomic_folder(target) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_text("first")
        (folder / "b").write_text("first")
        assert not target.exists() and folder in TEMPORARY  # a signal takes it away too
    with atomic_folder(target) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_text("second")
        assert contents(target)["sub/a"] == "first"
    assert contents(target) == {"sub/a": "second", "b": "first"}
    assert not list(target.glob(".*")) and folder not in TEMPORARY


@pytest.mark.parametrize(
    ("place", "folder", "reason"),
    [
        ("file", True, "file is no folder"),
        ("file/sub/sub", True, "file is no folder"),
        ("file/sub/x.mp4", False, "file is no folder"),
        ("", False, "it is a folder"),
        ("link", True, "link is no folder"),
        ("x" * 300, True, "File name too long"),
        ("/proc/self/x", True, "No such file"),
        ("/dev/full", False, "it is no regular file"),
    ],
)
def test_a_place_that_takes_no_files_is_refused(tmp_path, place, folder, reason):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(InputError, match=rf"{place}: cannot be written \(.*{reason}.*\); choose another$"):
        check_output(tmp_path / place, "choose another", folder=folder)


def test_a_place_that_takes_files_stays_as_it_is(tmp_path):
    (tmp_path / "file").write_text("all")
    for place, folder in ((tmp_path, True), (tmp_path / "a/b", True), (tmp_path / "file", False)):
        check_output(place, "choose another", folder=folder)
    check_output(Path("not/yet"), "choose another")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_the_system_refuses_names_the_target_and_a_file_that_is_read_keeps_its_name(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="elsewhere") as error, atomic_path(tmp_path / "a" / "b"):
        (tmp_path / "elsewhere" / "c").read_text()
    assert not isinstance(error.value, OutputError)
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(files.os, "fsync", lambda _: (_ for _ in ()).throw(error))
    with pytest.raises(OutputError) as refused, atomic_path(tmp_path / "a" / "b") as partial:
        partial.write_text("all")
    assert str(refused.value) == (
        f"{tmp_path / 'a' / 'b'}: cannot be written (No space left on device); make room there, or choose another place"
    )
    assert isinstance(refused.value, OSError) and refused.value.errno == errno.ENOSPC
    assert refused.value.strerror == os.strerror(errno.ENOSPC) and not contents(tmp_path)


def test_a_folder_is_locked_until_it_is_released_and_by_no_forked_process(tmp_path):
    lock = FolderLock(tmp_path / "run", "taken")
    with pytest.raises(InputError, match=r"^taken$"):
        FolderLock(tmp_path / "run", "taken")
    (begun, begins), (ended, ends) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:  # it lives on, as a reader of data may after its run was killed
        os.close(ends)
        os.write(begins, b"1")
        os.read(ended, 1)
        os._exit(0)
    os.read(begun, 1)
    lock.release()
    FolderLock(tmp_path / "run", "taken").release()
    for end in (begun, begins, ended, ends):
        os.close(end)
    os.waitpid(child, 0)
