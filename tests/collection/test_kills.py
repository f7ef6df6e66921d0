"""Runs that are killed and resumed, and shards, give byte for byte the files of one quiet run."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import inference
from tests.collection.clips import make_collection

pytestmark = pytest.mark.graphs

ROOT = Path(__file__).parents[2]
WORK = ["--frame_type", "segments", "--segment_seconds", "0.5", "--output_format", "all", "--save_features"]
WORK += ["--batch_size", "3"]


def output_files(folder: Path) -> dict[str, bytes]:
    """All files of an output folder but the journals."""
    files = (path for path in folder.rglob("*") if path.is_file() and "journal" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def journal_lines(folder: Path) -> list[bytes]:
    return [line for path in (folder / "journal").glob("*.jsonl") for line in path.read_bytes().splitlines()[1:]]


def start(arguments: list[str]) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "inference.py"), *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def kill_when(process: subprocess.Popen, folder: Path, lines: int, delay: float) -> None:
    """Kill a run `delay` seconds after its folder's journals have this many lines."""
    while len(journal_lines(folder)) < lines and process.poll() is None:
        time.sleep(0.01)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()


def check(readable: list[Path], broken: list[Path], quiet: Path, resumed: Path, errors: str) -> None:
    ours, theirs = output_files(quiet), output_files(resumed)
    assert ours.keys() == theirs.keys()
    assert {name for name in ours if ours[name] != theirs[name]} == set()
    lines = journal_lines(resumed)
    assert len(lines) == len(readable) + len(broken)  # nothing lost or done twice
    text = (quiet / "captions.txt").read_text()
    assert all(f"{path}\t" in text for path in readable)
    assert all(str(path) in errors for path in broken)
    assert not any(f"{path}\t" in text for path in broken)


def test_killed_and_sharded_runs_equal_a_quiet_one(tmp_path, model_arguments, capfd):
    readable, broken = make_collection(tmp_path / "in", good=9, damaged=3)
    arguments = [*model_arguments, *WORK, "--video_path", str(tmp_path / "in"), "--output_dir"]
    assert inference.main([*arguments, str(tmp_path / "quiet")]) == 1
    errors = capfd.readouterr().err
    resumed = tmp_path / "resumed"
    for shard, lines in (("0/2", 3), ("1/2", 8)):
        process = start([*arguments, str(resumed), "--shard", shard])
        kill_when(process, resumed, lines, 0)
        before = len(journal_lines(resumed))
        assert before < len(readable) + len(broken)
        with open(resumed / "journal" / f"{shard[0]}-of-2.jsonl", "ab") as file:
            file.write(b'{"path": "torn')  # as a power cut leaves it
        assert not (resumed / "captions.json").exists()
        assert inference.main([*arguments, str(resumed), "--shard", shard]) == 1
        assert len(journal_lines(resumed)) > before
    capfd.readouterr()
    check(readable, broken, tmp_path / "quiet", resumed, errors)

    assert inference.main([*arguments, str(resumed)]) == 1  # once more, without shards: all is done
    again = capfd.readouterr().err
    assert "12 of 12 files were done before" in again
    check(readable, broken, tmp_path / "quiet", resumed, again)


@pytest.mark.slow
@pytest.mark.parametrize("work", [WORK, ["--output_format", "all", "--save_features"]], ids=["segments", "middle"])
def test_two_hundred_clips_ten_kills_two_shards(tmp_path_factory, tmp_path, model_arguments, capfd, work):
    folder = Path(tmp_path_factory.getbasetemp()) / "two_hundred"
    readable, broken = make_collection(folder, good=180, damaged=20) if not folder.exists() else listed(folder)
    arguments = [*model_arguments, *work, "--video_path", str(folder), "--output_dir"]
    begin = time.perf_counter()
    assert inference.main([*arguments, str(tmp_path / "quiet")]) == 1
    seconds = time.perf_counter() - begin
    errors = capfd.readouterr().err
    chance, resumed = random.Random(), tmp_path / "resumed"
    kills = 0
    while kills < 10:
        process = start([*arguments, str(resumed), "--shard", f"{kills % 2}/2"])
        lines = len(journal_lines(resumed)) + chance.randrange(0, 17)
        kill_when(process, resumed, min(lines, 195), chance.uniform(0, 0.3))
        kills += 1
    for shard in ("0/2", "1/2"):
        assert inference.main([*arguments, str(resumed), "--shard", shard]) == 1
    print(f"quiet run {seconds:.0f} s; {kills} kills; {errors.splitlines()[-2]}")
    check(readable, broken, tmp_path / "quiet", resumed, errors)


def listed(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files that `make_collection` made there before."""
    files = sorted(path for path in folder.rglob("*") if not path.is_dir())
    good = [path for path in files if path.name.startswith("clip ")]
    return good, [path for path in files if path not in good]
