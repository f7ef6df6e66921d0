"""How signals end a training, and how several processes agree on it; `test_resume` has whole runs."""

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mindspore import Parameter, Tensor

from mindone_coca.distributed import Ranks
from mindone_coca.errors import InputError
from mindone_coca.interrupts import Stopped
from mindone_coca.tasks.settings import load_train_config
from mindone_coca.training import folder as run_folder
from mindone_coca.training.trainer import Trainer
from tests.training.runs import ROOT, start, start_training, train_here, write_config


class CountingJob:
    """A job without a model: its one parameter counts the steps."""

    def __init__(self, config, ranks) -> None:
        self.count = Parameter(Tensor(np.zeros(1, np.float32)), name="count")
        self.weights, self.state, self.val = [self.count], [self.count], None
        self.data = Epoch(range(12))
        self.optimiser = SimpleNamespace(
            state=list, parameters=[self.count], ema=[], loss_scale=Tensor(1.0), loss_scaling=False
        )

    def run(self, batches, rate) -> int:
        self.count.set_data(self.count + 1)
        return 0

    def report(self, result) -> dict[str, float]:
        return {"loss": 1.0, "updated": 1}


class Epoch(list):
    bad_samples: dict[str, str] = {}
    samples = 12

    def epoch(self, number, start):
        yield from self[start:]


@dataclass(frozen=True)
class Two(Ranks):
    """A rank of two, and what the other one says each time it is asked."""

    size: int = 2
    others: tuple[int, ...] = ()

    def gather(self, number: int) -> list[int]:
        said = iter(self.others)
        object.__setattr__(self, "others", self.others[1:])
        return [number, next(said, number)]


@pytest.mark.parametrize("rank", [0, 1])
def test_all_ranks_stop_after_the_step_in_which_one_was_asked_to(tmp_path, monkeypatch, rank):
    about_the_folder, where_it_resumes, not_asked = 0, 0, 0
    said = (about_the_folder, where_it_resumes, not_asked, not_asked, signal.SIGTERM)
    monkeypatch.setattr("mindone_coca.training.trainer.start_ranks", lambda: Two(rank, others=said))
    config = load_train_config(write_config(tmp_path))
    with pytest.raises(Stopped, match=r"^stopped at step 3 of 10; the same command goes on$") as stopped:
        Trainer(config, CountingJob).run()
    assert stopped.value.number == signal.SIGTERM
    assert [path.name for path in (tmp_path / "run").glob("checkpoints/*")] == ["step_00000003.safetensors"][rank:]
    monkeypatch.undo()
    assert Trainer(config, CountingJob).checkpoints.folder.parent == tmp_path / "run"  # the folder is free again


def test_the_other_ranks_end_too_when_the_main_one_cannot_have_the_folder(tmp_path):
    assert run_folder.claim_folder(tmp_path / "run", Two(1, others=(0,))) is None
    with pytest.raises(InputError, match="run: another training is writing there"):
        run_folder.claim_folder(tmp_path / "run", Two(1, others=(1,)))
    with pytest.raises(InputError, match="run: cannot be written"):
        run_folder.claim_folder(tmp_path / "run", Two(1, others=(2,)))
    assert not (tmp_path / "run").exists()


def test_a_failing_start_leaves_the_folder_to_others(tmp_path):
    config = load_train_config(write_config(tmp_path))
    errors = []

    def fail(config, ranks):
        raise InputError("no such data")

    for _ in range(2):
        with pytest.raises(InputError, match="no such data") as error:
            Trainer(config, fail)
        errors.append(error)  # with its frames, which hold the trainer


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_imports_is_one_line(tmp_path, number):
    config = write_config(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    process = start([sys.executable, "-X", "importtime", str(ROOT / "train.py"), "-c", str(config)], tmp_path)
    # what comes after numpy is more than a pipe holds: the process waits there until the rest is read
    for line in process.stdout:
        if line.endswith(" numpy\n"):
            break
    process.send_signal(number)
    said = [line for line in process.communicate(timeout=300)[0].splitlines() if not line.startswith("import time:")]
    assert process.returncode == 128 + number and said == [f"stopped by {number.name}"]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_of_two_processes_stops_both(tmp_path, rank):
    config = write_config(tmp_path, train={"max_steps": 100_000, "batch_size": 4}, output={"log_every": 10})
    process = start_training(config, workers=2)
    deadline = time.monotonic() + 300
    while not (tmp_path / "run" / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "train.yaml").write_text(config.read_text())
    refused = start_training(tmp_path / "other" / "train.yaml", workers=2)
    said, _ = refused.communicate(timeout=300)
    assert refused.returncode != 0 and f"{tmp_path / 'run'}: another training is writing there" in said
    os.kill(worker(config, rank), signal.SIGTERM)
    process.communicate(timeout=300)
    logs = [(tmp_path / "msrun" / f"worker_{number}.log").read_text() for number in (0, 1)]
    [checkpoint] = (tmp_path / "run" / "checkpoints").iterdir()
    step = int(checkpoint.stem.split("_")[1])
    line = f"stopped at step {step} of 100000; the same command goes on\n"  # msrun may kill one before it says so
    assert any(line in log for log in logs) and not any("Traceback" in log or "error: " in log for log in logs)
    train_here(config, f"train.max_steps={step + 1}")


def worker(config: Path, rank: int) -> int:
    """The process of a rank."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            own = dict(pair.split(b"=", 1) for pair in (path / "environ").read_bytes().split(b"\0") if b"=" in pair)
        except OSError:
            continue
        is_worker = own.get(b"MS_ROLE") == b"MS_WORKER" and own.get(b"MS_NODE_ID") == str(rank).encode()
        if is_worker and str(config).encode() in words:
            return int(path.name)
    raise AssertionError(f"no worker {rank}")
