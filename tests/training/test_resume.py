"""Killed at any moment, a run goes on to bitwise the same weights."""

import random
import time

import numpy as np
import pytest

from mindone_coca.training.progress import read_metrics
from tests.training.runs import read_weights, start_training, train, write_config

pytestmark = pytest.mark.graphs


def kill_after(process, folder, step: int, delay: float) -> None:
    """SIGKILL `delay` seconds after the checkpoint of `step` or a later one is there."""
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        steps = [int(path.stem.split("_")[1]) for path in folder.glob("checkpoints/step_*.safetensors")]
        if steps and max(steps) >= step:
            break
        time.sleep(0.005)
    time.sleep(delay)
    assert process.poll() is None, "the run ended before it was killed"
    process.kill()
    process.communicate()


def run_with_kills(tmp_path, kills: int, steps: int) -> None:
    output = {"save_every": 3, "keep_last": 2, "log_every": 1}
    settings = {"max_steps": steps, "ema_decay": 0.9, "accumulate_steps": 2, "batch_size": 4}
    train(write_config(tmp_path, output=output, train=settings))
    config = write_config(tmp_path, output={**output, "dir": str(tmp_path / "killed")}, train=settings)
    rng = random.Random(kills)
    for kill in range(kills):
        # a checkpoint is being written during a good part of the time
        step = int(0.75 * steps * (kill + rng.random()) / kills)
        kill_after(start_training(config), tmp_path / "killed", step, rng.random() * 0.3)
    train(config)
    whole, resumed = (read_weights(tmp_path / name / "final.safetensors") for name in ("run", "killed"))
    assert whole.keys() == resumed.keys()
    for name in whole:
        np.testing.assert_array_equal(whole[name], resumed[name], name)
    records = read_metrics(tmp_path / "killed" / "metrics.jsonl")
    assert [record["step"] for record in records] == list(range(1, steps + 1))
    losses = [record["loss"] for record in records]
    assert losses == [record["loss"] for record in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    left = {path.name for path in (tmp_path / "killed" / "checkpoints").iterdir()}
    last_saved = (steps - 1) // 3 * 3
    assert left == {f"step_{step:08d}.safetensors" for step in (last_saved, steps)}


def test_two_kills(tmp_path):
    run_with_kills(tmp_path, 2, steps=80)


@pytest.mark.slow
def test_ten_kills(tmp_path):
    run_with_kills(tmp_path, 10, steps=200)
