"""What open_clip and every version of MindSpore are given: one small model, images, captions, a training set.

Weights and pixels are drawn by NumPy from the names and numbers alone, so that only results are stored. Nothing here
needs torch.
"""

import zlib
from functools import partial
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from mindone_coca.model.families import load_model_config
from mindone_coca.model.open_clip.config import ModelConfig
from mindone_coca.model.open_clip.shapes import state_shapes
from mindone_coca.weights.formats.entry import Entry
from mindone_coca.weights.save import save_weights

NUMBERS = Path(__file__).with_name("numbers.json")
CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {
        "image_size": 32,
        "patch_size": 8,
        "layers": 1,
        "width": 48,
        "head_width": 16,
        "attentional_pool": True,
        "attn_pooler_heads": 4,
        "attn_pooler_queries": 9,
        "output_tokens": True,
    },
    "text_cfg": {
        "context_length": 16,
        "vocab_size": 49408,
        "width": 32,
        "heads": 4,
        "layers": 1,
        "embed_cls": True,
        "output_tokens": True,
    },
    "multimodal_cfg": {"context_length": 16, "width": 32, "heads": 4, "layers": 1},
}
WORDS = ("a red ring", "two blue stars on grey", "a cat", "one green square and a yellow dot above it", "nothing")
PAIRS, STEPS, BATCH = 24, 4, 8
OPTIM = {"lr": 1e-3, "warmup_steps": 0, "schedule": "constant"}
BEAM, GREEDY = {"seq_len": 12}, {"seq_len": 12, "generation_type": "top_k", "top_k": 1}


def generator(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The parameter of that name in open_clip's state dict."""
    if name == "logit_scale":
        return np.float32(2.6).reshape(shape)
    drawn = generator(name).standard_normal(shape)
    if len(shape) == 1 and ".ln_" in f".{name}" and name.endswith("weight"):
        drawn = 1 + 0.2 * drawn
    elif "embedding" in name or name.endswith(("query", "cls_emb")):
        drawn = 0.5 * drawn
    elif len(shape) == 1:
        drawn = 0.1 * drawn
    elif name == "text_decoder.text_projection":
        drawn = 3 * drawn * shape[0] ** -0.5  # captions that no rounding decides
    else:
        drawn = drawn * (shape[0] if name.endswith("proj") else np.prod(shape[1:])) ** -0.5
    return drawn.astype(np.float32)


def write_model(folder: Path) -> Path:
    """The weights as open_clip publishes them, and their config `small.yaml` beside them; returns the weights' path."""
    (folder / "small.yaml").write_text(yaml.safe_dump(CONFIG))
    config = load_model_config(folder / "small.yaml")
    assert isinstance(config, ModelConfig)
    entries = {
        name: Entry(tuple(shape), "float32", partial(draw, name, tuple(shape)))
        for name, shape in state_shapes(config).items()
    }
    save_weights(folder / "open_clip_pytorch_model.bin", entries)
    return folder / "open_clip_pytorch_model.bin"


def images(count: int = 2) -> np.ndarray:
    return generator("images").standard_normal((count, 3, 32, 32)).astype(np.float32)


def text() -> np.ndarray:
    """Ids of three captions, one of full length."""
    ids = generator("text").integers(1, 49000, (3, 16)).astype(np.int32)
    ids[0, 5:], ids[1, 11:] = 0, 0
    return ids


def write_pairs(folder: Path) -> Path:
    """A training set of small pictures; returns its list."""
    rows = ["filepath,title"]
    for number in range(PAIRS):
        pixels = generator(f"picture {number}").integers(0, 255, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{WORDS[number % len(WORDS)]}")
    (folder / "train.csv").write_text("\n".join(rows) + "\n")
    return folder / "train.csv"


def write_training(folder: Path, checkpoint: Path, **train: object) -> Path:
    """A training config over all of it."""
    config = {
        "model": {"config": str(folder / "small.yaml"), "checkpoint": str(checkpoint)},
        "data": {"train": str(folder / "train.csv"), "num_workers": 0, "random_crop": False},
        "optim": OPTIM,
        "train": {"batch_size": BATCH, "max_steps": STEPS, **train},
        "output": {"dir": str(folder / "run"), "log_every": 1},
    }
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(config))
    return path
