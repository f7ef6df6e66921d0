#!/usr/bin/env python
"""Measure the demo model on scenes and videos of combinations that its training never showed.

    python examples/demo/demo_figures.py [--model_path WEIGHTS] [--scenes 1000] [--videos 100]

Prints, for the scenes and for the middle frames of the videos: the share of captions that are right to the letter
(beam search with the defaults), the share of colour and shape words that are right, and R@1 of finding the caption of
an image among up to 100 different ones by contrastive similarity. All follow from the seed. Exit code 2: bad usage or
weights.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for a checkout that is not installed

from mindone_coca.interrupts import watch_signals

watch_signals(__name__)  # before the imports that take long

import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from demo_scenes import COLOURS, SHAPES
from make_demo_data import make_image, make_video
from mindspore import Tensor
from PIL import Image

from mindone_coca.captioning.captioner import VideoCaptioner
from mindone_coca.cli.common import Parser, run_cli
from mindone_coca.factory import find_config_and_weights
from mindone_coca.video.frames import read_frames

WEIGHTS = Path(__file__).resolve().parents[2] / "models" / "coca_tiny.safetensors"
BATCH = 50
CANDIDATES = 100  # captions to choose from
WORDS = {*COLOURS, *SHAPES, *SHAPES.values()}


@dataclass(frozen=True)
class Figures:
    """Shares from 0 to 1 over `count` pictures; `candidates` is the number of captions that R@1 chose from."""

    count: int
    exact: float
    words: float
    recall_at_1: float
    candidates: int

    def __str__(self) -> str:
        return (
            f"{self.count}: captions exactly right {self.exact:.1%}, colour and shape words right {self.words:.1%}, "
            f"R@1 among {self.candidates} captions {self.recall_at_1:.1%}"
        )


def measure(captioner: VideoCaptioner, images: Sequence[Image.Image], references: Sequence[str]) -> Figures:
    """Caption the images and hold the captions against the references; nothing is random."""
    model, tokenizer = captioner.model, captioner.tokenizer
    captions, features = [], []
    for start in range(0, len(images), BATCH):
        pixels = np.stack([captioner.transform(image) for image in images[start : start + BATCH]])
        latent, tokens = model.encode_image_tokens(pixels)
        ids: Tensor = model.generate(None, image_embs=tokens)
        captions += [tokenizer.decode(row, skip_special_tokens=True) for row in ids.asnumpy()]
        features.append(latent.asnumpy())
    exact = np.mean([caption == reference for caption, reference in zip(captions, references)])
    right, total = np.sum([words_right(*pair) for pair in zip(captions, references)], axis=0)
    # the first picture of each of the first different captions
    chosen = list({reference: i for i, reference in reversed(list(enumerate(references)))}.values())[::-1][:CANDIDATES]
    text = tokenizer([references[i] for i in chosen], context_length=model.context_length)
    similarity = np.concatenate(features)[chosen] @ model.encode_text(text).asnumpy().T  # (N, N)
    recall = np.mean(similarity.argmax(1) == np.arange(len(chosen)))
    return Figures(len(images), float(exact), float(right / total), float(recall), len(chosen))


def words_right(caption: str, reference: str) -> tuple[int, int]:
    """How many colour and shape words stand in their places, and how many the longer of the two texts has."""
    given, wanted = ([w for w in text.split() if w in WORDS] for text in (caption, reference))
    return sum(a == b for a, b in zip(given, wanted)), max(len(given), len(wanted))


def scenes(count: int, seed: int = 0) -> tuple[list[Image.Image], list[str]]:
    """Held-out pictures and their captions."""
    encoded, captions = zip(*(make_image(seed, "held_out", index) for index in range(count)))
    return [Image.open(io.BytesIO(data)) for data in encoded], list(captions)


def middle_frames(count: int, seed: int = 0) -> tuple[list[Image.Image], list[str]]:
    """The middle frames of held-out videos, encoded to mp4 and read back, and their captions."""
    images, captions = [], []
    with tempfile.TemporaryDirectory() as folder:
        for index in range(count):
            path = Path(folder, f"{index}.mp4")
            captions.append(make_video(seed, index, path))
            images += [frame.image for frame in read_frames(path, "middle")]
    return images, captions


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__)
    parser.add_argument("--model_path", type=Path, default=WEIGHTS)
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--videos", type=int, default=100)
    arguments = parser.parse_args(argv)

    def program() -> None:
        captioner = VideoCaptioner(*find_config_and_weights(None, arguments.model_path))
        for name, (images, captions) in (
            ("unseen scenes", scenes(arguments.scenes)),
            ("unseen videos", middle_frames(arguments.videos)),
        ):
            print(f"{name}, {measure(captioner, images, captions)}", flush=True)

    return run_cli(program)


if __name__ == "__main__":
    sys.exit(main())
