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
    assert Shard.from_msrun() == Shard()
    monkeypatch.setenv("RANK_SIZE", "8")
    monkeypatch.delenv("RANK_ID", raising=False)
    with pytest.raises(InputError, match="RANK_ID"):
        Shard.from_msrun()
    monkeypatch.setenv("RANK_ID", "3")
    assert Shard.from_msrun() == Shard(3, 8)
