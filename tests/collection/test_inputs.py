"""Which files the names on the command line stand for."""

import io
import os
import sys

import pytest

from mindone_coca.collection.inputs import list_inputs
from mindone_coca.collection.plan import Shard, work_groups
from mindone_coca.errors import InputError


@pytest.fixture
def tree(tmp_path, monkeypatch):
    for name in (
        "b.mp4",
        "a.PNG",
        "notes.md",
        ".hidden.mp4",
        "sub/süß 東京.webm",
        "sub/x y.jpg",
        "[1].mp4",
        ".git/c.mp4",
    ):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "in/sub/loop").symlink_to(tmp_path / "in")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/far.mkv").write_bytes(b"x")
    (tmp_path / "in/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/gone.mp4").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path)
    return tmp_path


FOUND = ["[1].mp4", "a.PNG", "b.mp4", "gone.mp4", "link/far.mkv", "sub/süß 東京.webm", "sub/x y.jpg"]


def test_a_folder_is_searched_through_links_once(tree):
    inputs = list_inputs(["in"])
    assert sorted(inputs.paths) == [f"in/{name}" for name in FOUND]
    assert not inputs.single


def test_files_patterns_and_repeats(tree):
    assert list_inputs(["in/b.mp4"]).single
    assert list_inputs(["in/notes.md"]).paths == ["in/notes.md"]  # named, so meant
    assert list_inputs(["in/[1].mp4"]).paths == ["in/[1].mp4"]  # a file's name before a pattern
    assert list_inputs(["in/*.mp4"]).paths == ["in/[1].mp4", "in/b.mp4", "in/gone.mp4"]
    assert "in/sub/x y.jpg" in list_inputs(["in/**/*.jpg"]).paths
    both = list_inputs(["in/b.mp4", "in/sub/x y.jpg", "in/b.mp4"])
    assert both.paths == ["in/b.mp4", "in/sub/x y.jpg"]
    assert not both.single


def test_lists_in_a_file_and_on_standard_input(tree, monkeypatch):
    lines = "\ufeffin/b.mp4\r\n\nelsewhere\nin/missing.mp4\nin/sub/süß 東京.webm".encode()
    want = ["in/b.mp4", "elsewhere/far.mkv", "in/missing.mp4", "in/sub/süß 東京.webm"]
    (tree / "list.txt").write_bytes(lines)
    assert list_inputs(["list.txt"]).paths == want
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert list_inputs(["-"]).paths == want
    (tree / "one.txt").write_text("in/b.mp4\n")
    assert not list_inputs(["one.txt"]).single


def test_names_that_are_no_utf8(tree):
    name = os.fsencode("in/") + b"\xff.mp4"
    with open(name, "wb"):
        pass
    assert os.fsdecode(name) in list_inputs(["in"]).paths
    (tree / "list.txt").write_bytes(name + b"\n")
    assert list_inputs(["list.txt"]).paths == [os.fsdecode(name)]


@pytest.mark.parametrize("name", ["nothing.mp4", "in/*.avi", "empty", "empty.txt"])
def test_names_that_hold_nothing(tree, name):
    (tree / "empty").mkdir()
    (tree / "empty.txt").write_text("\n")
    with pytest.raises(InputError) as error:
        list_inputs([name])
    assert name in str(error.value)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-32", "utf-16-le", "utf-16-be"])
def test_lists_by_their_mark(tree, monkeypatch, encoding):
    """Also UTF-16 without a mark, as long as it has the line ends of Windows."""
    lines = "in/b.mp4\r\nin/sub/süß 東京.webm\r\nelsewhere\r\n".encode(encoding)
    want = ["in/b.mp4", "in/sub/süß 東京.webm", "elsewhere/far.mkv"]
    (tree / "list.txt").write_bytes(lines)
    assert list_inputs(["list.txt"]).paths == want
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert list_inputs(["-"]).paths == want


def test_a_listed_folder_that_holds_nothing_is_named(tree, caplog):
    (tree / "empty").mkdir()
    (tree / "list.txt").write_text("in/b.mp4\nempty\n")
    assert list_inputs(["list.txt"]).paths == ["in/b.mp4"]
    assert "list.txt: 1 file read; empty: no video or image in this folder" in caplog.text


def test_a_list_that_is_no_utf16(tree):
    (tree / "list.txt").write_bytes(b"\xff\xfea")
    with pytest.raises(InputError, match=r"list\.txt: it begins as UTF-16 or 32 and is not"):
        list_inputs(["list.txt"])


def test_names_with_nuls_between_them(tree, monkeypatch):
    """As `find -print0` writes them; such names may hold line ends and be of any bytes."""
    odd = b"in/two\nlines \xff.mp4"
    with open(odd, "wb"):
        pass
    for content in (b"in/b.mp4\0" + odd + b"\0elsewhere\0", b"in/b.mp4\0" + odd + b"\0elsewhere"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        assert list_inputs(["-"]).paths == ["in/b.mp4", os.fsdecode(odd), "elsewhere/far.mkv"]
    (tree / "list.lst").write_bytes(b"a\0b\0")
    assert list_inputs(["list.lst"]).paths == ["a", "b"]


def test_folders_with_brackets_in_their_names(tree):
    for name in ("[2023] trip/a.png", "[2023] trip/b.png", "[2023] trip/[x]/c.png", "2 trip/d.png"):
        path = tree / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    trip = "photos/[2023] trip"
    assert list_inputs([f"{trip}/*.png"]).paths == [f"{trip}/a.png", f"{trip}/b.png"]
    assert list_inputs([f"{tree}/{trip}/[x]/*.png"]).paths == [f"{tree}/{trip}/[x]/c.png"]
    assert len(list_inputs([f"{trip}/**/*.png"]).paths) == 3
    assert list_inputs(["photos/[1-3] trip/*.png"]).paths == ["photos/2 trip/d.png"]  # no such folder: a pattern
    assert sorted(list_inputs([trip]).paths) == [f"{trip}/[x]/c.png", f"{trip}/a.png", f"{trip}/b.png"]
    with pytest.raises(InputError, match=r"\[ \] are part of a pattern, so write \[\[\]"):
        list_inputs(["photos/[1999] trip/*.png"])


def test_what_a_folder_has_beside_pictures_is_counted_by_suffix(tree, caplog):
    for name in ("a.txt", "b.TXT", "c.pdf", "README", "phone.HEIC", "old.jfif", "x.avif", "y.3gp", "._z.jpg"):
        (tree / "elsewhere" / name).write_bytes(b"x")
    assert len(list_inputs(["elsewhere"]).paths) == 5
    assert "elsewhere: 5 files read; passed over 5 files: 2 .txt, 1 .pdf, 1 hidden, 1 without suffix" in caplog.text
    caplog.clear()
    assert len(list_inputs(["elsewhere/*.HEIC", "in/b.mp4"]).paths) == 2 and not caplog.text
    (tree / "papers").mkdir()
    (tree / "papers" / "a.pdf").write_bytes(b"x")
    with pytest.raises(InputError, match=r"papers: no video or image there \(passed over 1 file: 1 \.pdf\)"):
        list_inputs(["papers"])


def test_groups_depend_on_the_set_alone_and_shards_divide_them():
    paths = [f"{i:03}" for i in range(50)]
    whole = work_groups(paths, 8, Shard())
    assert work_groups(paths[::-1], 8, Shard()) == whole
    parts = [work_groups(paths, 8, Shard(i, 3)) for i in range(3)]
    assert sorted(group for part in parts for group in part) == whole
    assert sorted(path for group in whole for path in group) == paths


def test_shards_of_the_command_line_and_of_msrun(monkeypatch):
    assert Shard.parse("1/4") == Shard(1, 4)
    for text in ("4/4", "1", "a/b", "0/0"):
        with pytest.raises(InputError, match="--shard"):
            Shard.parse(text)
    monkeypatch.delenv("RANK_SIZE", raising=False)
    assert Shard.from_launcher() == Shard()
    monkeypatch.setenv("RANK_SIZE", "8")
    monkeypatch.delenv("RANK_ID", raising=False)
    with pytest.raises(InputError, match="RANK_ID"):
        Shard.from_launcher()
    monkeypatch.setenv("RANK_ID", "3")
    assert Shard.from_launcher() == Shard(3, 8)
