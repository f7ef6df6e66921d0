"""Files for each input: long names, and one that cannot be written does not keep the others back."""

import os
from pathlib import Path

import pytest

from mindone_coca.outputs.formats import expand_formats, go_beside_inputs, write_outputs
from mindone_coca.outputs.names import mirrored_names
from mindone_coca.outputs.sidecar import Sidecars

LONG = ["東" * 80 + ".mp4", "v" * 252 + ".ts", "w" * 255, "🎬" * 62 + "abc.mov", "short.mp4"]


def record(path: str | Path, *captions: str, error: str | None = None) -> dict:
    segments = [
        {"start": n, "end": n + 1, "times": [n], "caption": caption, "score": -1.0}
        for n, caption in enumerate(captions)
    ]
    duration = None if error else float(len(captions))
    return {"path": str(path), "size": 1, "error": error, "duration": duration, "segments": segments}


def test_long_names_lose_nothing(tmp_path, provenance):
    records = [record(f"in/{name}", "a dog") for name in LONG]
    paths = [item["path"] for item in records]
    formats = expand_formats(["all"])
    outcome = write_outputs(tmp_path / "out", formats, False, lambda: records, paths, provenance)
    assert outcome.problems == []
    assert [note.split(": ")[1].split(";")[0] for note in outcome.notes] == [
        "2 names are too long for the file system"
    ] * 2
    for kind in ("srt", "vtt"):
        files = sorted(path.name for path in (tmp_path / "out" / kind).iterdir())
        assert len(files) == len(LONG) and all(len(os.fsencode(name)) <= 255 for name in files)
        assert "東" * 80 + f".{kind}" in files and f"short.{kind}" in files
    again = mirrored_names(paths[::-1], ".srt", tmp_path / "out" / "srt")
    assert {target.name for target in again.targets.values()} == {p.name for p in (tmp_path / "out/srt").iterdir()}


def test_long_names_that_differ_at_their_ends_stay_apart(tmp_path):
    paths = [f"in/{'x' * 250}{end}" for end in ("abcde", "abcdf", "a.mkv", "b.mkv")]
    names = mirrored_names(paths, ".srt", tmp_path)
    assert len(set(names.targets.values())) == 4
    assert all(target == target.with_suffix(".srt") for target in names.targets.values())


@pytest.mark.parametrize("obstacle", ["b.srt", "sub"])
def test_one_name_does_not_cost_the_others_their_files(tmp_path, provenance, obstacle):
    records = [record(f"in/{name}", "a dog") for name in ("a.mp4", "b.mp4", "sub/c.mp4", "d.mp4")]
    (tmp_path / "srt").mkdir()
    if obstacle == "sub":  # a file where a folder should be
        (tmp_path / "srt" / "sub").write_text("in the way")
    else:
        (tmp_path / "srt" / "b.srt").mkdir()
    paths = [item["path"] for item in records]
    outcome = write_outputs(tmp_path, ["srt", "vtt", "json"], False, lambda: records, paths, provenance)
    [problem] = outcome.problems
    assert "cannot be written" in problem and obstacle in problem and "\n" not in problem
    assert len(list((tmp_path / "vtt").rglob("*.vtt"))) == 4 and (tmp_path / "captions.json").exists()
    assert len([path for path in (tmp_path / "srt").rglob("*.srt") if path.is_file()]) == 3


def test_a_whole_file_that_cannot_be_written_is_reported(tmp_path, provenance):
    (tmp_path / "captions.csv").mkdir()
    records = [record("in/a.mp4", "a dog")]
    outcome = write_outputs(tmp_path, ["csv", "txt"], False, lambda: records, ["in/a.mp4"], provenance)
    assert outcome.written == [tmp_path / "captions.txt"] and "captions.csv: cannot be written" in outcome.problems[0]


def test_sidecars_beside_the_inputs(tmp_path):
    paths = [
        tmp_path / name
        for name in ("a.jpg", "sub/b.png", "sub/c.mp4", "東京 🎬.webp", "same.jpg", "same.png", "bad.png")
    ]
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_text("by hand\n")
    sidecars = Sidecars([str(path) for path in paths])
    assert [sidecars.is_kept(str(path)) for path in paths] == [True, *[False] * 6]
    captions = [["a dog"], ["a cat"], ["a red ball", "", "a blue ball"], ["a tower"], ["one"], ["two"]]
    for path, texts in zip(paths, captions):
        sidecars.write(record(path, *texts))
    sidecars.write(record(paths[-1], error="cannot be read"))
    written = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*.txt")}
    assert written == {
        "a.txt": "by hand\n",
        "sub/b.txt": "a cat\n",
        "sub/c.txt": "a red ball\na blue ball\n",
        "東京 🎬.txt": "a tower\n",
        "same.jpg.txt": "one\n",
        "same.png.txt": "two\n",
    }
    assert sidecars.outcome().notes == [
        "5 caption files written, 1 skipped because they exist (--force overwrites them)"
    ]


def test_sidecars_in_a_folder_and_force(tmp_path, provenance):
    records = [record(tmp_path / name, "new") for name in ("in/a.jpg", "in/deep/captions.jpg", "in/captions.mp4")]
    paths = [item["path"] for item in records]
    out = tmp_path / "out"
    for force, text in ((False, "old"), (True, "new\n")):
        out.mkdir(exist_ok=True)
        (out / "a.txt").write_text("old")
        outcome = write_outputs(out, ["txt", "sidecar"], False, lambda: records, paths, provenance, force)
        assert outcome.problems == [] and (out / "a.txt").read_text() == text
        assert (out / "captions.txt").read_text().count("new") == 3  # the table, which no caption file replaces
        assert (out / "captions.mp4.txt").read_text() == (out / "deep" / "captions.txt").read_text() == "new\n"


@pytest.mark.parametrize("force", [False, True])
def test_no_input_and_no_list_is_overwritten(tmp_path, force):
    for name in ("odd.txt", "clips.jpg", "clips.txt"):
        (tmp_path / name).write_text("mine")
    sidecars = Sidecars([str(tmp_path / "odd.txt"), str(tmp_path / "clips.jpg")], None, force, [tmp_path / "clips.txt"])
    for name in ("odd.txt", "clips.jpg"):
        sidecars.write(record(tmp_path / name, "a caption"))
    assert {path.name for path in tmp_path.iterdir() if path.read_text() == "a caption\n"} == {
        "odd.txt.txt",
        "clips.jpg.txt",
    }


def test_a_sidecar_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "b.txt").mkdir()
    sidecars = Sidecars([str(tmp_path / name) for name in ("a.jpg", "b.jpg")], None, force=True)
    for name in ("a.jpg", "b.jpg"):
        sidecars.write(record(tmp_path / name, "a caption"))
    outcome = sidecars.outcome()
    assert "b.txt: cannot be written" in outcome.problems[0] and outcome.notes == ["1 caption file written"]
    assert (tmp_path / "a.txt").read_text() == "a caption\n"


def test_which_formats_need_no_folder():
    assert go_beside_inputs(["sidecar"])
    assert not any(go_beside_inputs(formats) for formats in ([], ["json"], ["all"], ["sidecar", "json"]))
