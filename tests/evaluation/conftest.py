import csv
import io
import json

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.captioners import shared_captioners
from tests.models import make_config
from tests.reference import random_reference, torch

CONFIG = make_config(vision={"layers": 1}, text={"layers": 1, "vocab_size": 49408}, multimodal={"layers": 1})
CLASSES = ("red_fox", "green_frog", "blue_whale", "grey_wolf", "white_swan", "black_cat")
EACH = 4  # images of a class


@pytest.fixture(scope="session")
def reference():
    return random_reference(CONFIG, seed=7, logit_std=3.0)


@pytest.fixture(scope="session")
def model(reference, tmp_path_factory):
    """Arguments of evaluate.py for the reference's weights and config."""
    folder = tmp_path_factory.mktemp("model")
    torch.save(reference.state_dict(), folder / "open_clip_pytorch_model.bin")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    return ["-c", str(folder / "config.yaml"), "--model_path", str(folder / "open_clip_pytorch_model.bin")]


@pytest.fixture(scope="package", autouse=True)
def one_captioner():
    with shared_captioners():
        yield


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder per class with pictures; beside it the same ones in lists, with two or three captions each."""
    root = tmp_path_factory.mktemp("pictures")
    rows, notes, images = [], [], []
    for number in range(len(CLASSES) * EACH):
        label = CLASSES[number // EACH]
        name = f"classes/{label}/{number:02}.png"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(root / name)
        images.append({"id": 500 + number, "file_name": name})
        for caption in captions_of(number):
            rows.append((name, caption, label))
            notes.append({"image_id": 500 + number, "caption": caption})
    write_table(root / "captions.csv", ("filepath", "title", "label"), rows)
    write_table(root / "single.csv", ("filepath", "title", "label"), list({row[0]: row for row in rows}.values()))
    (root / "coco.json").write_text(json.dumps({"images": images, "annotations": notes[::-1]}))
    return root


def captions_of(number: int) -> list[str]:
    label = CLASSES[number // EACH].replace("_", " ")
    words = f"number {number} of the pictures"
    return [f"a {label}, {words}", f"{words} shows a {label}", f"a {label} looks at picture {number}"][: 2 + number % 2]


def picture(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return Image.fromarray(pixels).resize((50, 40), Image.Resampling.BICUBIC)


def write_table(path, columns, rows) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([columns, *rows])
    path.write_text(text.getvalue(), encoding="utf-8")
