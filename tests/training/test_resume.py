"""Killed or stopped at any moment, a run goes on to bitwise the same weights, and compiles nothing again; its folder
takes no other meanwhile."""

import random
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

import train as program
from mindone_coca.training.progress import read_metrics
from tests.training.runs import read_weights, start_training, train, write_config

pytestmark = pytest.mark.graphs


def wait_for_step(process: subprocess.Popen, folder: Path, step: int, delay: float) -> None:
    """Wait until `delay` seconds after the checkpoint of `step` or a later one is there."""
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        steps = [int(path.stem.split("_")[1]) for path in folder.glob("checkpoints/step_*.safetensors")]
        if steps and max(steps) >= step:
            break
        time.sleep(0.005)
    time.sleep(delay)
    assert process.poll() is None, "the run ended before it was killed"


def wait_for_line(process: subprocess.Popen, words: str) -> None:
    """Wait until a process has said a line with these words in it."""
    said = []
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        if words in line:
            return
    raise AssertionError("".join(said))


def stop(process: subprocess.Popen, number: signal.Signals, folder: Path) -> None:
    """Stop a run by a signal: it says where, leaves a checkpoint of that step, and no traceback."""
    process.send_signal(number)
    said, _ = process.communicate(timeout=300)
    [step] = re.findall(r"^stopped at step (\d+) of \d+; the same command goes on$", said, re.MULTILINE)
    assert process.returncode == 128 + number and "Traceback" not in said and "error: " not in said
    assert max(path.stem for path in (folder / "checkpoints").iterdir()) == f"step_{int(step):08d}"
    assert not (folder / "final.safetensors").exists()
    assert not list(folder.parent.glob("rank_*"))  # what MindSpore's compiler leaves of an exception


def run_with_interruptions(
    tmp_path: Path,
    signals: list[signal.Signals],
    total: int,
    capfd: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run of `total` steps; the first signal comes while the first graph is compiled."""
    output = {"save_every": 3, "keep_last": 2, "log_every": 1}
    steps = {"max_steps": total, "ema_decay": 0.9, "accumulate_steps": 2, "batch_size": 4}
    monkeypatch.setenv("MINDONE_COCA_CACHE", str(tmp_path / "graphs"))
    device = {"deterministic": True}  # what the documents say of runs that must be the same
    train(write_config(tmp_path, output=output, train=steps, device=device))
    kept = set((tmp_path / "graphs").glob("*.mindir"))
    assert len(kept) >= 4  # the steps of accumulation
    folder = tmp_path / "stopped"
    config = write_config(tmp_path, output={**output, "dir": str(folder)}, train=steps, device=device)
    rng = random.Random(len(signals))
    for count, number in enumerate(signals):
        process = start_training(config)
        if count == 0:
            wait_for_line(process, f"{folder}: begins at step 0 of {total}")
            capfd.readouterr()
            assert program.main(["-c", str(config)]) == 2
            errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
            assert errors[0].startswith(f"error: {folder}: another training is writing there") and len(errors) == 1
        else:  # a checkpoint is being written during a good part of the time
            step = int(0.75 * total * (count + rng.random()) / len(signals))
            wait_for_step(process, folder, step, rng.random() * 0.3)
        if number == signal.SIGKILL:
            process.kill()
            process.communicate()
        else:
            stop(process, number, folder)
    assert re.search(rf"{folder}: goes on from step_0*(\d+).safetensors at step \1 of {total}\n", train(config))
    assert set((tmp_path / "graphs").glob("*.mindir")) == kept
    whole, resumed = (read_weights(tmp_path / name / "final.safetensors") for name in ("run", "stopped"))
    assert whole.keys() == resumed.keys()
    for name in whole:
        np.testing.assert_array_equal(whole[name], resumed[name], name)
    records = read_metrics(folder / "metrics.jsonl")
    assert [record["step"] for record in records] == list(range(1, total + 1))
    losses = [record["loss"] for record in records]
    assert losses == [record["loss"] for record in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    left = {path.name for path in (folder / "checkpoints").iterdir()}
    assert left == {f"step_{step:08d}.safetensors" for step in ((total - 1) // 3 * 3, total)}


def test_a_stop_and_a_kill(tmp_path, capfd, monkeypatch):
    run_with_interruptions(tmp_path, [signal.SIGINT, signal.SIGKILL], 80, capfd, monkeypatch)


@pytest.mark.slow
def test_ten_kills_and_stops(tmp_path, capfd, monkeypatch):
    signals = [signal.SIGTERM, *3 * [signal.SIGKILL, signal.SIGINT, signal.SIGTERM]]
    run_with_interruptions(tmp_path, signals, 200, capfd, monkeypatch)
