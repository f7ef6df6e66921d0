"""Real training runs, to real accuracy: digits in half precision, and moving digits as videos."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from examples.digits.make_digits import write_digits
from mindone_coca.config import CONFIG_DIR
from mindone_coca.factory import create_model, find_config_and_weights
from mindone_coca.preprocess.transforms import create_transforms
from mindone_coca.training.progress import read_metrics
from mindone_coca.video.frames import read_frames
from tests.frames import greedy_captions
from tests.training.runs import train

sys.path.insert(0, str(Path(__file__).parents[2] / "examples/digits"))

from digit_pictures import write_clip

pytestmark = pytest.mark.slow


def recipe(folder: Path) -> Path:
    path = folder / "train.yaml"
    path.write_text((CONFIG_DIR / "train_digits.yaml").read_text().replace("data/digits", str(folder / "digits")))
    return path


def load(run: Path):
    config, weights = find_config_and_weights(run / "final.yaml", None)
    model = create_model(config, weights)
    preprocess = config.preprocess
    return model, create_transforms(config.image_hw, preprocess.mean, preprocess.std)


def test_half_precision_reaches_the_same_loss(tmp_path):
    write_digits(tmp_path / "digits")
    config = recipe(tmp_path)
    losses = {}
    for precision in ("fp32", "fp16"):
        out = tmp_path / precision
        train(
            config, f"output.dir={out}", f"train.precision={precision}", "train.max_steps=150", "output.val_every=150"
        )
        losses[precision] = read_metrics(out / "metrics.jsonl")[-1]["loss"]
    print(f"validation loss after 150 steps: {losses}")
    assert abs(losses["fp16"] / losses["fp32"] - 1) < 0.02


def write_moving_digits(folder: Path, clips: int) -> None:
    """Clips of digits that cross the picture, each frame of which looks alike for both directions: train.csv and
    val.csv. Among the training clips are stills, from which places are learned sooner than from motion alone."""
    from sklearn.datasets import load_digits

    folder.mkdir()
    rng = np.random.default_rng(0)
    digits = load_digits().images
    rows: dict[str, list[tuple]] = {"train.csv": [], "val.csv": []}
    for number in range(clips):
        scan = Image.fromarray((digits[rng.integers(len(digits))] * 15.9).astype(np.uint8)).resize((12, 12))
        top, left = rng.integers(0, 20), rng.integers(0, 3)
        frames = []
        for step in range(7):
            frames.append(np.zeros((32, 32, 3), np.uint8))
            frames[-1][top : top + 12, left + 3 * step : left + 3 * step + 12] = np.asarray(scan)[..., None]
        direction = ("right", "left")[number % 2]
        if direction == "left":
            frames.reverse()
        name = f"clip_{number:04d}.mp4"
        write_clip(folder / name, frames)
        rows["val.csv" if number % 5 == 4 else "train.csv"].append((name, f"it moves {direction}"))
        if number % 5 == 4:
            continue
        Image.fromarray(frames[-1]).save(folder / f"still_{number:04d}.png")  # it ends where it moved to
        rows["train.csv"].append((f"still_{number:04d}.png", f"it stays {direction}"))
    for name, lines in rows.items():
        with open(folder / name, "w", newline="") as file:
            csv.writer(file).writerows([("filepath", "title"), *lines])


def test_the_order_of_frames_is_learned(tmp_path):
    write_moving_digits(tmp_path / "clips", 600)
    config = recipe(tmp_path)
    right = {}
    for frame_type in ("multi_frames", "middle"):
        options = [
            f"data.train={tmp_path / 'clips/train.csv'}",
            f"data.val={tmp_path / 'clips/val.csv'}",
            f"data.frame_type={frame_type}",
            f"output.dir={tmp_path / frame_type}",
            "train.batch_size=32",
            "train.epochs=15",
        ]
        if frame_type == "multi_frames":
            options += ["data.num_frames=3", "data.fusion=pool", "model.temporal_embedding=true"]
        train(config, *options)
        model, transform = load(tmp_path / frame_type)
        with open(tmp_path / "clips" / "val.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        hits = []
        for row in rows:
            frames = read_frames(tmp_path / "clips" / row["filepath"], frame_type, 3)
            pixels = np.stack([transform(frame.image) for frame in frames])
            hits.append(greedy_captions(model, [pixels], "pool") == [row["title"]])
        right[frame_type] = np.mean(hits)
    print(f"captions right: {right}")
    assert right["multi_frames"] >= 0.9
    assert 0.35 <= right["middle"] <= 0.65
