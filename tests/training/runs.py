"""Tiny training runs, in processes of their own or in this one."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml

from examples.digits.make_digits import write_digits
from mindone_coca.tasks.settings import load_train_config
from mindone_coca.training.trainer import Trainer
from mindone_coca.weights.formats.safetensors_file import read_safetensors

ROOT = Path(__file__).parents[2]
TINY = {
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 16,
        "patch_size": 8,
        "layers": 1,
        "width": 24,
        "head_width": 12,
        "attentional_pool": True,
        "attn_pooler_heads": 2,
        "attn_pooler_queries": 3,
    },
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1, "embed_cls": True},
    "multimodal_cfg": {"context_length": 8, "width": 16, "heads": 2, "layers": 1},
}


def write_config(folder: Path, **sections: dict) -> Path:
    """A training config on a few digits, with changes to its sections; returns its path."""
    if not (folder / "digits").exists():
        write_digits(folder / "digits", limit=120)
        (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    config: dict[str, dict] = {
        "model": {"config": str(folder / "tiny.yaml")},
        # one length of labels: each is a graph to compile
        "data": {"train": str(folder / "digits" / "train.csv"), "num_workers": 0, "label_lengths": [8]},
        "optim": {"lr": 1e-3, "warmup_steps": 3},
        "train": {"batch_size": 8, "max_steps": 10},
        "output": {"dir": str(folder / "run"), "log_every": 1},
    }
    for name, changes in sections.items():
        config[name] = {**config.get(name, {}), **changes}
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_training(
    config: Path, *overrides: str, workers: int = 1, script: Path = ROOT / "train.py"
) -> subprocess.Popen:
    command = [sys.executable]
    if workers > 1:
        command = [
            str(Path(sys.executable).parent / "msrun"),
            f"--worker_num={workers}",
            f"--local_worker_num={workers}",
            f"--master_port={free_port()}",
            f"--log_dir={config.parent / 'msrun'}",
            "--join=True",
        ]
    command += [str(script), "-c", str(config), *overrides]
    return start(command, config.parent)


def start(command: list[str], folder: Path) -> subprocess.Popen:
    """A process in a folder, which SIGINT reaches even where the tests are a shell's background job."""
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def train(config: Path, *overrides: str, workers: int = 1, script: Path = ROOT / "train.py") -> str:
    """Run to the end; returns what was printed."""
    process = start_training(config, *overrides, workers=workers, script=script)
    printed, _ = process.communicate(timeout=600)
    logs = "".join(path.read_text() for path in config.parent.glob("msrun/worker_*.log"))
    assert process.returncode == 0, printed[-2000:] + logs[-3000:]
    return printed


def train_here(config: Path, *overrides: str) -> None:
    """Run to the end in this process, where a test is not about processes: one start of Python less."""
    Trainer(load_train_config(config, overrides)).run()


def read_weights(path: Path) -> dict[str, np.ndarray]:
    return {name: entry.read().copy() for name, entry in read_safetensors(path).items()}
