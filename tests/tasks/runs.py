"""Tiny task data and in-process training runs."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from mindone_coca.tasks.job import open_job
from mindone_coca.tasks.settings import load_train_config
from mindone_coca.training.trainer import Trainer
from tests.training.runs import TINY

TRAIN, VAL = 24, 11  # rows; 11 is no multiple of the batch size


def write_data(folder: Path) -> None:
    """Pictures with a bright left or right half, and lists of them for classification and entailment."""
    rng = np.random.default_rng(0)
    for part, count in (("train", TRAIN), ("val", VAL)):
        rows = []
        for number in range(count):
            pixels = rng.integers(0, 100, (16, 16, 3)).astype(np.uint8)
            side = ("left", "right")[number % 2]
            pixels[:, slice(0, 8) if side == "left" else slice(8, 16)] += 120
            Image.fromarray(pixels).save(folder / f"{part}_{number}.png")
            rows.append((f"{part}_{number}.png", side, ["the left is bright", "right"][number // 2 % 2]))
        said = [(name, text, "yes" if side in text else "no") for name, side, text in rows]
        write_list(folder / f"{part}.csv", ("filepath", "label"), [row[:2] for row in rows])
        write_list(folder / f"{part}_said.csv", ("filepath", "sentence", "label"), said)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))


def write_list(path: Path, columns: tuple[str, ...], rows: list[tuple]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


def write_config(folder: Path, name: str, task: str = "classification", **sections: dict) -> Path:
    """A training config with changes to its sections; the run's folder is `folder / name`."""
    lists = "" if task == "classification" else "_said"
    config: dict[str, Any] = {
        "task": task,
        "model": {"config": str(folder / "tiny.yaml")},
        "data": {"train": str(folder / f"train{lists}.csv"), "val": str(folder / f"val{lists}.csv"), "num_workers": 0},
        "optim": {"lr": 1e-2, "schedule": "constant"},
        "train": {"batch_size": 4, "max_steps": 12},
        "output": {"dir": str(folder / name), "log_every": 1},
    }
    for section, changes in sections.items():
        config[section] = {**config.get(section, {}), **changes}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def open_run(folder: Path, name: str, task: str = "classification", **sections: dict) -> Trainer:
    return Trainer(load_train_config(write_config(folder, name, task, **sections)), open_job)


def values_of(parameters) -> dict[str, np.ndarray]:
    return {p.name: p.asnumpy().copy() for p in parameters}
