"""The self-test of check_device.py: a small captioner and two training steps, and the numbers that open_clip gives.

One layer in each tower and no pooler, because compiling takes most of the time; heads are 16 wide, as Ascend's fused
operators want them. The weights are drawn by NumPy from the parameters' names, so that results alone are stored.
"""

import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor

from mindone_coca import device
from mindone_coca.config import DTYPE_OF, Dtype
from mindone_coca.distributed import Ranks
from mindone_coca.factory import create_model
from mindone_coca.model.base import ImageTextModel
from mindone_coca.training.optim import AdamW
from mindone_coca.training.settings import LossConfig, OptimConfig
from mindone_coca.training.step import TrainStep

CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {
        "image_size": 16,
        "patch_size": 8,
        "layers": 1,
        "width": 32,
        "head_width": 16,
        "output_tokens": True,
    },
    "text_cfg": {
        "context_length": 8,
        "vocab_size": 64,
        "width": 32,
        "heads": 2,
        "layers": 1,
        "embed_cls": True,
        "output_tokens": True,
    },
    "multimodal_cfg": {"context_length": 8, "width": 32, "heads": 2, "layers": 1},
}
GENERATION: dict[str, Any] = {"seq_len": 8, "sot_token_id": 62, "eos_token_id": 63, "pad_token_id": 0}
LEARNING_RATE = 1e-2
MOST_TRIES = 20  # updates of float16 that may overflow until its factor fits
FULL, HALF = 1e-3, 5e-2  # relative differences that pass: float32 on a CPU; elsewhere products may be halves

# what open_clip gives, by name
CAPTIONS = [[62, 23, 23, 23, 54, 54, 24, 23], [62, 43, 16, 40, 2, 43, 1, 0]]
STORED = {
    "feature 0": -0.188134,
    "feature 1": 0.114844,
    "feature 2": -0.314619,
    "loss": 12.2851,
    "norm of gradients": 38.7355,
    "loss after an update": 4.94145,
}


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Values for a parameter of that name."""
    drawn = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if len(shape) < 2:
        drawn = 1 + 0.2 * drawn if name.endswith("gamma") else 0.1 * drawn
    else:
        drawn = drawn * np.prod(shape[1:]) ** -0.5
    if name == "text_decoder.text_projection":
        drawn = 3 * drawn  # captions that no rounding decides
    return drawn.astype(np.float32)


def make_model(dtype: Dtype | None) -> ImageTextModel:
    model = create_model(CONFIG, dtype=dtype)
    for parameter in model.trainable_params():
        if parameter.name != "logit_scale":
            parameter.set_data(Tensor(draw(parameter.name, parameter.shape), parameter.dtype))
    return model


def batch() -> tuple[np.ndarray, np.ndarray]:
    """Two images, and the ids of their captions, one of them shorter."""
    text = np.array([[62, 5, 17, 3, 40, 21, 9, 63], [62, 30, 11, 63, 0, 0, 0, 0]], np.int32)
    return np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32), text


def self_test(dtype: Dtype | None) -> tuple[list[list[int]], dict[str, float]]:
    """Encode and caption two images, then train two steps on them -> the captions' ids, and numbers as in STORED."""
    images, text = batch()
    model = make_model(dtype)
    captions: Tensor = model.generate(images, num_beams=2, num_beam_groups=1, **GENERATION)
    features = model.encode_image(images).asnumpy()[0]
    numbers = {f"feature {number}": float(features[number]) for number in range(3)}
    precision = device.training_precision()
    trained = make_model(None)  # training keeps float32 weights
    trained.set_compute_dtype(DTYPE_OF[precision])
    optimizer = AdamW(trained, OptimConfig(), Ranks(), loss_scaling=precision == "fp16")
    step = TrainStep(trained, LossConfig(), optimizer, Ranks())
    for _ in range(MOST_TRIES):
        report = step([(images, text)], LEARNING_RATE)
        if report["updated"]:
            break
    numbers |= {"loss": report["loss"], "norm of gradients": report["grad_norm"]}
    return captions.asnumpy().tolist(), {
        **numbers,
        "loss after an update": step([(images, text)], LEARNING_RATE)["loss"],
    }


def tolerance(dtype: Dtype | None) -> float:
    """The relative difference that passes here."""
    return FULL if ms.get_context("device_target") == "CPU" and dtype in (None, "float32") else HALF


def compare(captions: list[list[int]], numbers: Mapping[str, float], allowed: float) -> Iterator[str]:
    """A line for each thing that differs by more than is allowed."""
    if captions != CAPTIONS:
        yield f"the captions are {captions}, on a CPU {CAPTIONS}"
    for name, stored in STORED.items():
        difference = abs(numbers[name] - stored) / abs(stored)
        if not difference <= allowed:
            yield f"{name} is {numbers[name]:.6g}, on a CPU {stored:.6g}: {difference:.1e} apart, {allowed:g} may be"
