"""inference.py with a captioner that names the file: caption files beside pictures, odd names and terminals."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import inference
from mindone_coca.captioning import captioner as captioners
from mindone_coca.captioning.batches import Caption
from mindone_coca.captioning.reading import Passage
from tests.video.clips import REAL_CLIPS

ROOT = Path(__file__).parents[2]
MODEL = ["-c", str(ROOT / "configs" / "coca_tiny.yaml"), "--model_path", str(ROOT / "models" / "coca_tiny.safetensors")]
JAPANESE = "写真" * 13 + "🎬"


class Naming:
    """Stands for a `BatchCaptioner`: the caption of a file is its name."""

    def __init__(self, keep_features: bool) -> None:
        self.seconds_busy, self.keep_features = 0.0, keep_features
        self.seen: list[str] = []

    def __call__(self, items: Iterable[Passage]) -> Iterator[tuple[Passage, Caption]]:
        for item in items:
            self.seen.append(item.path)
            feature = np.ones(4, np.float32) / 2 if self.keep_features else None
            yield item, Caption(f"a {Path(item.path).stem}", -1.0, None, [], feature, feature)


@pytest.fixture
def run(monkeypatch, capfd):
    """Run inference.py; -> exit code, lines on standard output, standard error, files that were captioned."""

    def call(*arguments: str | Path) -> tuple[int, list[str], str, list[str]]:
        made: list[Naming] = []

        def batches(options, keep_features=False):
            made.append(Naming(keep_features))
            return made[-1]

        monkeypatch.setattr(captioners, "VideoCaptioner", lambda *_, **__: SimpleNamespace(batches=batches))
        capfd.readouterr()
        code = inference.main([*MODEL, *map(str, arguments)])
        out, errors = capfd.readouterr()
        assert "Traceback" not in errors
        return code, out.splitlines(), errors, [path for naming in made for path in naming.seen]

    return call


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), "teal").save(path, "PNG")
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("a.png", "sub/b.png", f"sub/{JAPANESE}.png"):
        picture(tmp_path / "in" / name)
    return tmp_path / "in"


def texts(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.txt"))}


def test_beside_the_pictures(folder, run):
    (folder / "a.txt").write_text("by hand\n")
    code, lines, errors, seen = run("--video_path", folder, "--output_format", "sidecar")
    assert (code, lines) == (0, [])
    want = {"a.txt": "by hand\n", "sub/b.txt": "a b\n", f"sub/{JAPANESE}.txt": f"a {JAPANESE}\n"}
    assert texts(folder) == want
    assert "2 caption files written, 1 skipped because they exist" in errors
    assert not (folder / "journal").exists()

    # started again, nothing is captioned twice, and a new picture alone is done
    code, _, errors, seen = run("--video_path", folder, "--output_format", "sidecar")
    assert (code, seen) == (0, []) and "0 caption files written, 3 skipped" in errors
    picture(folder / "new.png")
    assert run("--video_path", folder, "--output_format", "sidecar")[0] == 0
    assert texts(folder) == want | {"new.txt": "a new\n"}
    assert run("--video_path", folder, "--output_format", "sidecar", "--force")[0] == 0
    assert texts(folder) == want | {"new.txt": "a new\n", "a.txt": "a a\n"}


def test_mirrored_under_a_folder_with_other_formats(folder, run, tmp_path):
    out = tmp_path / "out"
    arguments = ["--video_path", folder, "--output_dir", out, "--output_format", "json", "sidecar"]
    (out / "sub").mkdir(parents=True)
    (out / "sub" / "b.txt").write_text("by hand\n")
    for written in (2, 0):
        code, _, errors, _ = run(*arguments)
        assert code == 0 and f"{written} caption files written, {3 - written} skipped" in errors
        assert texts(out) == {"a.txt": "a a\n", "sub/b.txt": "by hand\n", f"sub/{JAPANESE}.txt": f"a {JAPANESE}\n"}
    assert texts(folder) == {} and (out / "captions.json").exists()
    assert run(*arguments, "--force")[0] == 0
    assert texts(out)["sub/b.txt"] == "a b\n"


def test_a_video_has_a_line_for_each_segment(run, tmp_path):
    clip = tmp_path / "clip.mp4"
    clip.symlink_to(REAL_CLIPS[0])
    arguments = ["--video_path", clip, "--output_format", "sidecar", "--frame_type", "segments"]
    code, lines, _, _ = run(*arguments, "--segment_seconds", "4")
    assert code == 0 and len(lines) > 1  # a single file's captions are printed, too
    assert texts(tmp_path) == {"clip.txt": "a clip\n" * len(lines)}
    assert run(*arguments, "--segment_seconds", "4")[:2] == (0, [])


def test_a_file_that_cannot_be_read_gets_none(folder, run):
    (folder / "bad.png").write_bytes(b"no picture")
    code, _, errors, _ = run("--video_path", folder, "--output_format", "sidecar")
    assert code == 1 and "bad.png" in errors and "bad.txt" not in texts(folder) and len(texts(folder)) == 3
    code, _, errors, seen = run("--video_path", folder / "bad.png", "--output_format", "sidecar")
    assert (code, seen) == (2, [])


def test_a_folder_that_takes_no_files_is_not_captioned_in_vain(folder, run, monkeypatch):
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "sub" and may(path, mode))
    code, _, errors, _ = run("--video_path", folder, "--output_format", "sidecar")
    assert code == 1 and errors.count("error: ") == 1 and f"{folder / 'sub'}: no caption files can be written" in errors
    assert texts(folder) == {"a.txt": "a a\n"}


def test_shards_need_no_folder(folder, run):
    for number in range(20):
        picture(folder / f"{number}.png")
    for shard in ("0/2", "1/2"):
        assert run("--video_path", folder, "--output_format", "sidecar", "--shard", shard)[0] == 0
    assert len(texts(folder)) == 23


def test_journals_of_shards_are_merged_without_locks(folder, run, tmp_path, monkeypatch):
    for number in range(20):
        picture(folder / f"{number}.png")
    (folder / "bad.png").write_bytes(b"no picture")
    quiet, out = tmp_path / "quiet", tmp_path / "out"
    assert run("--video_path", folder, "--output_dir", quiet)[0] == 1
    work = ["--video_path", folder, "--output_dir", out]
    code, _, errors, _ = run(*work, "--shard", "0/2")
    assert "8 files of other shards are not done, as far as is seen from here" in errors
    code, _, errors, seen = run(*work, "--merge")
    assert (code, seen) == (2, []) and errors.count("error: ") == 1 and "run the shards that have them" in errors
    assert [path.name for path in (out / "journal").iterdir()] == ["0-of-2.jsonl"]  # no lock, no journal of its own

    # the second shard does not see the first one's journal, as on a network file system
    hidden = (out / "journal/0-of-2.jsonl").rename(tmp_path / "hidden")
    assert run(*work, "--shard", "1/2")[0] in (0, 1) and not (out / "captions.json").exists()
    hidden.rename(out / "journal/0-of-2.jsonl")
    code, _, errors, seen = run(*work, "--merge")
    assert (code, seen) == (1, []) and f"error: {folder / 'bad.png'}" in errors
    assert (out / "captions.json").read_bytes() == (quiet / "captions.json").read_bytes()


def test_dry_run_prints_numbers_and_does_nothing(folder, run, tmp_path):
    out = tmp_path / "out"
    work = ["--video_path", folder, "--output_dir", out]
    code, lines, _, seen = run(*work, "--dry_run")
    assert (code, seen) == (0, []) and not out.exists()
    assert lines == ["files\t3", "done before\t0", "groups\t1", "workers\t1"]
    assert run(*work)[0] == 0
    assert run(*work, "--dry_run")[1] == ["files\t3", "done before\t3", "groups\t0", "workers\t1"]
    (folder / "a.txt").write_text("by hand")
    beside = ["--video_path", folder, "--output_format", "sidecar", "--dry_run"]
    assert run(*beside)[1][1:3] == ["done before\t1", "groups\t1"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--ray_workers", "2"], "--ray_workers: goes with --ray"),
        (["--ray_ship_weights"], "--ray_ship_weights: goes with --ray"),
        (["--output_dir", "OUT", "--ray", "--shard", "0/2"], "--shard: goes without --ray"),
        (["--output_dir", "OUT", "--ray", "auto", "--merge"], "--merge: goes without --ray"),
        (["--ray", "clip.mp4"], "--ray clip.mp4: give auto or HOST:PORT"),
        (["--merge"], "--merge: give a folder"),
    ],
)
def test_options_of_many_machines(folder, arguments, words, capsys):
    with pytest.raises(SystemExit) as error:
        inference.main([*MODEL, "--video_path", str(folder), *arguments])
    assert error.value.code == 2 and words in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--output_format", "json", "--force"],
        ["--force"],
        ["--output_format", "sidecar", "json"],
        ["--output_format", "sidecar", "--save_features"],
    ],
)
def test_what_does_not_go_together(folder, arguments, capsys):
    with pytest.raises(SystemExit) as error:
        inference.main([*MODEL, "--video_path", str(folder), *arguments])
    assert error.value.code == 2 and capsys.readouterr().err.count("\n") == 1


def test_names_as_long_as_they_may_be(run, tmp_path):
    names = ["東" * 80 + ".png", "p" * 251 + ".png", "q" * 255, "ordinary.png"]
    paths = [picture(tmp_path / "in" / name) for name in names]
    clip = tmp_path / "in" / ("映" * 80 + ".mp4")
    clip.symlink_to(REAL_CLIPS[0])
    out = tmp_path / "out"
    code, _, errors, _ = run("--video_path", *paths, clip, "--output_dir", out, "--output_format", "all", "sidecar")
    assert code == 0 and "a name is too long for the file system" in errors
    assert [path.name for path in (out / "srt").iterdir()] == ["映" * 80 + ".srt"]
    assert len(list(out.glob("*.txt"))) == 6  # captions.txt and five caption files
    with open(out / "captions.csv", newline="", encoding="utf-8-sig") as file:
        assert {row["path"] for row in csv.DictReader(file)} == {str(path) for path in [*paths, clip]}


def test_a_subtitle_that_cannot_be_written(run, tmp_path):
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).symlink_to(REAL_CLIPS[0])
    out = tmp_path / "out"
    (out / "srt" / "a.srt").mkdir(parents=True)
    code, _, errors, _ = run("--video_path", tmp_path / "in", "--output_dir", out, "--output_format", "all")
    problems = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert code == 1 and len(problems) == 1 and "a.srt: cannot be written" in problems[0]
    assert (out / "srt" / "b.srt").is_file() and (out / "captions.html").is_file()


def test_an_output_folder_that_cannot_be_made(folder, run, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, errors, seen = run("--video_path", folder, "--output_dir", tmp_path / "file" / "out")
    assert (code, seen) == (2, []) and errors.count("error: ") == 1 and "give another --output_dir" in errors


def test_features_without_rows_are_said(run, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "in" / name).write_bytes(b"no picture")
    out = tmp_path / "out"
    assert run("--video_path", tmp_path / "in", "--output_dir", out, "--save_features")[0] == 1
    for where in (out, out / "features"):
        code, lines, errors, _ = run("--output_dir", where, "--query", "a dog")
        assert (code, lines) == (2, []) and errors.count("error: ") == 1 and "no rows there to search" in errors


def test_files_need_no_option(folder, run):
    """By themselves, several, on both sides of options, and beside --video_path."""
    a, b, c = sorted(map(str, folder.rglob("*.png")))
    assert run(a)[:2] == (0, ["a a"])
    for arguments in ([a, b, "--top", "3", c], ["--top", "3", a, b, c], [a, "--video_path", b, c]):
        code, lines, _, _ = run(*arguments)
        assert code == 0 and [line.split("\t")[0] for line in lines] == [a, b, c]
    code, _, errors, seen = run(a, "no such file.png")
    assert (code, seen) == (2, []) and "no such file.png: no such file" in errors


@pytest.mark.parametrize("formats", [["json", "jsonl", "txt", "csv", "html"], ["sidecar"]])
def test_what_the_journal_has_is_kept(folder, run, tmp_path, formats):
    """One file, or a smaller folder, into the folder of all: no row goes, and the summary tells both."""
    out = tmp_path / "out"
    options = ["--output_dir", out, "--save_features", "--output_format", *formats]
    assert "this run: 3 files, 3 captions, 0 failed" in run(folder, *options)[2]
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and "journal" not in path.parts}
    for part in (folder / "a.png", folder / "sub"):
        code, lines, errors, seen = run(part, *options)
        assert (code, seen) == (0, []) and "in all: 3 files, 3 captions, 0 failed; " in errors
        assert {path: path.read_bytes() for path in before} == before
    assert "1 of the files is none of this run's inputs and is kept" in errors

    new = picture(tmp_path / "elsewhere" / "new.png")
    code, lines, errors, seen = run(new, *options)
    assert (code, lines, seen) == (0, ["a new"], [str(new)])
    assert "this run: 1 file, 1 caption, 0 failed" in errors and "in all: 4 files, 4 captions, 0 failed; 3 of" in errors
    assert np.load(out / "features" / "img_emb" / "img_emb_0.npy").shape == (4, 4)
    if "json" in formats:
        rows = json.loads((out / "captions.json").read_text())["results"]
        assert [row["path"] for row in rows] == sorted(map(str, [*folder.rglob("*.png"), new]))


def test_what_earlier_runs_wrote_is_written_again(folder, run, tmp_path):
    """Also by a run that does not ask for it: no file of the folder is behind the others."""
    out = tmp_path / "out"
    first = sorted(folder.rglob("*.png"))[0]
    assert run(first, "--output_dir", out, "--output_format", "all", "--save_features")[0] == 0
    assert run(folder, "--output_dir", out)[0] == 0
    count = len(list(folder.rglob("*.png")))
    assert len((out / "captions.txt").read_text().splitlines()) == count
    assert len((out / "captions.jsonl").read_text().splitlines()) == count
    assert (out / "captions.html").read_text().count("<article") == count
    assert len(np.load(out / "features" / "img_emb" / "img_emb_0.npy")) == count


def test_features_cannot_be_added_later(folder, run, tmp_path):
    assert run(folder, "--output_dir", tmp_path / "out")[0] == 0
    code, _, errors, _ = run(folder, "--output_dir", tmp_path / "out", "--save_features")
    assert code == 2 and "was begun without --save_features; give another --output_dir" in errors


def test_a_file_under_another_name_is_the_same_file(folder, run, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    for name in ("a.png", str(folder / "a.png")):
        assert "in all: 1 file, 1 caption, 0 failed\n" in run(name, "--output_dir", tmp_path / "out")[2]


def test_the_journal_has_the_lengths_that_were_used(run, folder, tmp_path):
    """Of a model with 8 positions: 9 tokens, which may be given too; 30 only if they were asked for."""
    config = ["-c", str(ROOT / "configs" / "coca_digits.yaml"), folder, "--output_dir", tmp_path / "out"]
    assert run(*config)[0] == 0
    options = json.loads((tmp_path / "out" / "captions.json").read_text())["options"]
    assert (options["seq_len"], options["min_seq_len"]) == (9, 5)
    assert run(*config, "--seq_len", "9")[0] == 0
    code, _, errors, _ = run(*config, "--seq_len", "30")
    assert code == 2 and "was begun with seq_len 9, now it is 30" in errors


def test_a_refusal_names_what_was_given(folder, run, tmp_path):
    out = ["--output_dir", tmp_path / "out"]
    assert run(folder, *out)[0] == 0
    code, _, errors, _ = run(folder, *out, "--num_beams", "2")
    assert code == 2 and "was begun with num_beams 6, now it is 2" in errors and "groups" not in errors
    code, _, errors, _ = run(folder, *out, "--num_beams", "2", "--prompt", "a")
    assert code == 2 and "num_beam_groups" not in errors


PROGRAM = """
import sys
from types import SimpleNamespace
sys.path.insert(0, sys.argv.pop(1))
import inference
from mindone_coca.captioning import captioner
from tests.collection.test_caption_files import Naming
captioner.VideoCaptioner = lambda *_, **__: SimpleNamespace(batches=lambda options, keep=False: Naming(keep))
sys.exit(inference.main(sys.argv[1:]))
"""


@pytest.mark.graphs
@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1:strict"])
def test_a_terminal_that_lacks_letters(folder, encoding):
    """Names and captions with such letters are printed with escapes, and the rest goes on."""
    (folder / "壊れた.png").write_bytes(b"no picture")
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(ROOT), *MODEL, "--video_path", str(folder)],
        env=environment,
        capture_output=True,
        timeout=300,
    )
    lines = done.stdout.decode(encoding.split(":")[0]).splitlines()
    assert done.returncode == 1 and b"Traceback" not in done.stderr
    assert len(lines) == 3 and lines[0] == f"{folder / 'a.png'}\ta a"
    assert lines[2].endswith("\\u5199\\u771f\\U0001f3ac") and b"\\u58ca\\u308c\\u305f.png" in done.stderr
