"""Small random CoCa models of open_clip and their state dicts, which the tests of this folder convert."""

import contextlib
import copy
import importlib.util
import sys
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).parents[2]

for _operator in ("nms", "qnms"):  # a torchvision built for CUDA wants them declared on a CPU-only torch
    with contextlib.suppress(RuntimeError):
        torch.library.define(f"torchvision::{_operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import open_clip  # noqa: E402
from open_clip.coca_model import CoCa  # noqa: E402

BASE = {
    "embed_dim": 32,
    "vision_cfg": {
        "image_size": 24, "layers": 2, "width": 64, "patch_size": 8, "head_width": 64, "attentional_pool": True,
        "attn_pooler_queries": 6, "attn_pooler_heads": 8, "output_tokens": True,
    },
    "text_cfg": {
        "context_length": 9, "vocab_size": 50, "width": 32, "heads": 1, "layers": 2, "embed_cls": True,
        "output_tokens": True,
    },
    "multimodal_cfg": {"context_length": 9, "vocab_size": 50, "width": 32, "heads": 1, "layers": 2},
}  # fmt: skip

# name -> changes to BASE; dotted keys reach into the towers.
VARIANTS = {
    "plain": {},
    "quick_gelu": {"quick_gelu": True, "vision_cfg.layers": 3, "multimodal_cfg.layers": 1},
    "no_pool": {"vision_cfg.attentional_pool": False, "vision_cfg.width": 32, "vision_cfg.head_width": 32},
    "parallel": {"vision_cfg.attentional_pool": "parallel", "vision_cfg.width": 32, "vision_cfg.head_width": 32},
    "cascade": {"vision_cfg.attentional_pool": "cascade", "vision_cfg.width": 32, "vision_cfg.head_width": 32},
    "logit_bias": {"init_logit_bias": -10.0, "nonscalar_logit_scale": True},
    "packed_pooler": {"vision_cfg.width": 32, "vision_cfg.head_width": 16, "vision_cfg.image_size": [24, 40]},
    "layer_scale": {
        "vision_cfg.ls_init_value": 0.1, "text_cfg.ls_init_value": 0.1, "multimodal_cfg.ls_init_value": 0.1,
        "vision_cfg.no_ln_pre": True,
    },
    "proj_bias": {
        "text_cfg.proj_bias": True, "text_cfg.vocab_size": 77, "multimodal_cfg.vocab_size": 77,
        "text_cfg.mlp_ratio": 2.7,
    },
    "no_projection": {"text_cfg.proj_type": "none", "text_cfg.embed_cls": False, "vision_cfg.mlp_ratio": 3.3},
}  # fmt: skip


def variant(name: str) -> dict:
    config = copy.deepcopy(BASE)
    for key, value in VARIANTS[name].items():
        *parents, last = key.split(".")
        part = config
        for parent in parents:
            part = part[parent]
        part[last] = value
    return config


def build(config: dict, seed: int = 0) -> CoCa:
    """An open_clip CoCa in eval mode with every parameter drawn."""
    model = CoCa(**copy.deepcopy(config)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.1, generator=generator)
    return model


@pytest.fixture(params=list(VARIANTS))
def variant_name(request) -> str:
    return request.param


@pytest.fixture
def variant_config(variant_name) -> dict:
    return variant(variant_name)


@pytest.fixture
def make_model():
    return build


@pytest.fixture
def plain_config() -> dict:
    return variant("plain")


@pytest.fixture
def model(plain_config) -> CoCa:
    return build(plain_config)


@pytest.fixture
def checkpoint(tmp_path, model) -> Path:
    """The plain model's state dict as torch saves it."""
    path = tmp_path / "open_clip_pytorch_model.bin"
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def convert():
    """The converter's main(argv) -> exit code, in this process."""
    script = REPOSITORY / "tools" / "model_conversion" / "coca_convert.py"
    spec = importlib.util.spec_from_file_location("coca_convert", script)
    module = importlib.util.module_from_spec(spec)
    sys.modules["coca_convert"] = module
    spec.loader.exec_module(module)
    return lambda *argv: module.main([str(argument) for argument in argv])


@pytest.fixture
def load_strictly():
    """load(file, config) -> open_clip's own model of the file, through open_clip.create_model(pretrained=FILE)."""

    def load(file: Path, config_json: Path):
        open_clip.add_model_config(config_json)
        return open_clip.create_model(config_json.stem, pretrained=str(file))

    return load


def same_bits(ours: dict, theirs: dict) -> bool:
    """Equal names, types, shapes and bits of two torch state dicts."""
    return ours.keys() == theirs.keys() and all(
        ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name]) for name in theirs
    )


@pytest.fixture
def equal_bits():
    return same_bits
