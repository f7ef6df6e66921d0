"""Small configs that between them use every supported key, and our models carrying a reference's weights."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn

from mindone_coca.kernels import Kernel
from mindone_coca.model.open_clip.family import OPEN_CLIP
from mindone_coca.model.open_clip.model import CoCa
from tests.reference import numpy_state

_BASE: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {
        "image_size": 32,
        "patch_size": 8,
        "layers": 2,
        "width": 48,
        "head_width": 16,
        "attentional_pool": True,
        "attn_pooler_heads": 4,
        "attn_pooler_queries": 9,
    },
    "text_cfg": {"context_length": 16, "vocab_size": 120, "width": 32, "heads": 4, "layers": 2, "embed_cls": True},
    "multimodal_cfg": {"context_length": 16, "width": 32, "heads": 4, "layers": 2},
}


def make_config(top: dict | None = None, **towers: dict) -> dict:
    """The base config with changes: `make_config({"quick_gelu": True}, vision={"width": 32})`."""
    config = copy.deepcopy(_BASE)
    config.update(top or {})
    for name, changes in towers.items():
        config[f"{name}_cfg"].update(changes)
    return config


CONFIGS = {
    "base": make_config(),  # separate pooler weights
    "quick_gelu": make_config({"quick_gelu": True}, vision={"attn_pooler_queries": 2, "pos_embed_type": "sin_cos_2d"}),
    "packed_pooler": make_config(vision={"width": 32, "head_width": 8, "pool_type": "avg"}),
    "no_pool": make_config({"embed_dim": 24}, vision={"attentional_pool": False, "width": 32}),
    "no_pool_after": make_config(
        {"embed_dim": 40},
        vision={
            "attentional_pool": False,
            "width": 32,
            "pool_type": "avg",
            "final_ln_after_pool": True,
            "no_ln_pre": True,
        },
    ),
    "parallel": make_config(vision={"attentional_pool": "parallel", "width": 32}),
    "cascade": make_config(vision={"attentional_pool": "cascade", "width": 32}, text={"pad_id": 3}),
    "bias": make_config(
        {"init_logit_bias": -10.0, "nonscalar_logit_scale": True, "pad_id": 5}, text={"proj_bias": True}
    ),
    "odd_sizes": make_config(
        {"embed_dim": 36},
        vision={
            "image_size": (30, 44),
            "patch_size": (7, 9),
            "width": 60,
            "head_width": 20,
            "mlp_ratio": 2.5,
            "ls_init_value": 0.3,
            "attn_pooler_heads": 3,
        },
        text={"width": 36, "heads": 3, "mlp_ratio": 1.5, "ls_init_value": 0.2, "vocab_size": 333, "context_length": 13},
        multimodal={"width": 36, "heads": 6, "ls_init_value": 0.5, "context_length": 13, "layers": 3},
    ),
    "no_projection": make_config(text={"proj_type": "none"}),
    "bidirectional": make_config(text={"no_causal_mask": True}),
    "no_class_token": make_config(text={"embed_cls": False, "pool_type": "argmax"}),
    "no_class_token_eos": make_config(
        text={"embed_cls": False, "pool_type": "eos", "eos_id": 7, "no_causal_mask": True}
    ),
}


def one_layer(config: dict) -> dict:
    """The same config with one layer in each tower: its training graph compiles in half the time."""
    return {name: {**value, "layers": 1} if name.endswith("_cfg") else value for name, value in config.items()}


def from_reference(reference, config: dict, **changes) -> CoCa:
    """Our model with the reference's weights, loaded strictly."""
    options = {k: v for k, v in {**config, **changes}.items() if k != "custom_text"}
    model = CoCa(**options)
    parameters = dict(model.parameters_and_names())
    for name, value in numpy_state(reference).items():
        parameter = parameters.pop(OPEN_CLIP.to_mindspore(name))
        assert parameter.shape == value.shape, name
        parameter.set_data(ms.Tensor(value.astype(np.float32)).astype(parameter.dtype))
    assert not parameters, f"not in the reference: {sorted(parameters)}"
    return model


@contextmanager
def eager() -> Iterator[None]:
    """Without compiling: for what runs once."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    try:
        yield
    finally:
        ms.set_context(mode=ms.GRAPH_MODE)


class Graph(nn.Cell):
    """A kernel, compiled."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self.kernel = kernel

    def construct(self, *inputs: ms.Tensor | None) -> ms.Tensor:
        return self.kernel(*inputs)


def relative_difference(ours, theirs) -> float:
    """max|a - b| / max|b|, as the project's documents define it."""
    ours = ours.asnumpy() if isinstance(ours, ms.Tensor) else np.asarray(ours)
    theirs = theirs.detach().numpy() if hasattr(theirs, "detach") else np.asarray(theirs)
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return float(np.abs(ours.astype(np.float64) - theirs).max() / np.abs(theirs).max())
