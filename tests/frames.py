"""Frames that tests have as arrays, through the package's one way from frames to captions."""

from dataclasses import dataclass

import numpy as np

from mindone_coca.captioning.batches import BatchCaptioner
from mindone_coca.captioning.options import CaptionOptions
from mindone_coca.config import Fusion
from mindone_coca.model.base import ImageTextModel
from mindone_coca.preprocess.tokenizer import Tokenizer


@dataclass(frozen=True)
class Frames:
    """One item's frames, each (3, S, S)."""

    pixels: list[np.ndarray]


def fuse_frames(model: ImageTextModel, fusion: Fusion, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frames (F, 3, S, S) as one image: feature (1, D), of unit length, and decoder tokens (1, K, W)."""
    options = CaptionOptions("multi_frames", len(frames), fusion)
    [one] = BatchCaptioner(model, Tokenizer(), options).encode([Frames(list(frames))])
    return one.feature[None], one.tokens[None]


def greedy_captions(model: ImageTextModel, items: list[np.ndarray], fusion: Fusion = "mean") -> list[str]:
    """Captions of items, each (F, 3, S, S), that may be as short as the training captions."""
    generation = {"generation_type": "top_k", "top_k": 1, "min_seq_len": 1, "seq_len": min(30, model.context_length)}
    options = CaptionOptions("multi_frames", fusion=fusion, generation=generation)
    found = BatchCaptioner(model, Tokenizer(), options)(Frames(list(item)) for item in items)
    return [caption.text for _, caption in found]
