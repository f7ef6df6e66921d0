"""Atomic writes, and names within the limits of a file system."""

import os
from pathlib import Path

import pytest

from mindone_coca.files import atomic_path, fitting_name, longest_name

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
