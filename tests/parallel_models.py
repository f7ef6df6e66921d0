"""Random coca-pytorch models with vit-pytorch encoders, and ours carrying their weights."""

import random
from dataclasses import dataclass

import mindspore as ms
import numpy as np

from mindone_coca.model.coca_pytorch.config import ParallelConfig
from mindone_coca.model.coca_pytorch.family import COCA_PYTORCH
from mindone_coca.model.coca_pytorch.model import ParallelCoCa
from tests.reference import torch

# isort: split
# vit-pytorch imports torchvision, which tests.reference has made fit for a CPU-only torch
from coca_pytorch.coca_pytorch import CoCa as ReferenceCoCa
from vit_pytorch import ViT
from vit_pytorch.extractor import Extractor
from vit_pytorch.simple_vit import SimpleViT


def random_config(seed: int) -> dict:
    """A small config drawn at random, between them of every kind of encoder."""
    rng = random.Random(seed)
    encoder = {
        "type": ("simple_vit", "vit")[seed % 2],
        "image_size": rng.choice([16, 24, (16, 32)]),
        "patch_size": rng.choice([4, 8, (8, 4)]),
        "dim": rng.choice([24, 32, 40]),
        "depth": rng.choice([1, 2]),
        "heads": rng.choice([1, 2, 4]),
        "mlp_dim": rng.choice([32, 56]),
        "dim_head": rng.choice([8, 12]),
        "pool": ("cls", "mean")[seed // 2 % 2],
        "num_classes": rng.choice([0, 5]),
    }
    if encoder["type"] == "vit" and encoder["num_classes"] == 0:
        encoder["extractor"] = rng.choice([True, False])
    if seed % 5 == 3:  # an attention without an output projection
        encoder |= {"heads": 1, "dim_head": encoder["dim"]}
    return {
        "family": "parallel_coca",
        "dim": rng.choice([24, 32, 48]),
        "num_tokens": rng.choice([90, 131]),
        "unimodal_depth": rng.choice([1, 2, 3]),
        "multimodal_depth": rng.choice([1, 2, 3]),
        "img_encoder": encoder,
        "dim_latents": rng.choice([None, 20]),
        "num_img_queries": rng.choice([1, 5, 8]),
        "dim_head": rng.choice([8, 16, 20]),
        "heads": rng.choice([1, 2, 3]),
        "ff_mult": rng.choice([2, 4]),
        "caption_loss_weight": rng.choice([1.0, 2.0]),
        "contrastive_loss_weight": rng.choice([1.0, 0.5]),
        "pad_id": rng.choice([0, 0, 7]),
        "context_length": 40,
    }


SMALL = {
    "family": "parallel_coca",
    "dim": 16,
    "num_tokens": 90,
    "unimodal_depth": 1,
    "multimodal_depth": 1,
    "img_encoder": {
        "type": "simple_vit",
        "image_size": 16,
        "patch_size": 8,
        "dim": 24,
        "depth": 1,
        "heads": 2,
        "mlp_dim": 32,
        "dim_head": 8,
    },
    "num_img_queries": 3,
    "dim_head": 8,
    "heads": 2,
    "ff_mult": 2,
    "pad_id": 0,
    "context_length": 40,
}


def build_reference(config: dict) -> ReferenceCoCa:
    """coca-pytorch's model of a config, its weights as its constructor draws them."""
    settings = {k: v for k, v in config.items() if k not in ("family", "context_length", "img_encoder", "preprocess")}
    encoder = dict(config["img_encoder"])
    kind, wrapped, pool = encoder.pop("type"), encoder.pop("extractor", True), encoder.pop("pool", "cls")
    encoder.setdefault("num_classes", 0)
    vit = ViT(**encoder, pool=pool) if kind == "vit" else SimpleViT(**encoder)
    if wrapped:
        vit = Extractor(vit, return_embeddings_only=True, detach=False)
    return ReferenceCoCa(**settings, img_encoder=vit, image_dim=encoder["dim"])


def random_reference(config: dict, seed: int = 0, logit_std: float = 0.5) -> ReferenceCoCa:
    """The same with every parameter drawn so that all parts matter to the result; gains, betas and frequencies too."""
    torch.manual_seed(seed)
    reference = build_reference(config)
    with torch.no_grad():
        for name, value in [*reference.named_parameters(), *reference.named_buffers()]:
            if name.endswith("beta"):
                value.copy_(0.1 * torch.randn_like(value))
            elif name.endswith("inv_freq"):
                value.mul_(1 + 0.1 * torch.rand_like(value))
            elif name == "temperature":
                value.copy_(1.5 + 0.3 * torch.randn_like(value))
            elif name == "token_emb.weight":
                value.copy_(logit_std * torch.randn_like(value))
            elif value.ndim == 1 and name != "text_cls_token":
                norm = name.endswith("gamma") or ".norm." in name or "to_patch_embedding" in name or ".net.0." in name
                value.copy_(float(norm and not name.endswith("bias")) + 0.2 * torch.randn_like(value))
            elif value.ndim == 2 and "queries" not in name and "embedding" not in name:
                value.copy_(torch.randn_like(value) * value.shape[1] ** -0.5)
    return reference.eval()


def from_reference(reference: ReferenceCoCa, config: dict, **changes: object) -> ParallelCoCa:
    """Our model with the reference's weights, all of them and none else."""
    model = COCA_PYTORCH.build(ParallelConfig.from_dict({**config, **changes}))
    parameters = {p.name: p for p in model.get_parameters()}
    for name, value in reference.state_dict().items():
        if not COCA_PYTORCH.is_derived(name, tuple(value.shape)):
            parameter = parameters.pop(COCA_PYTORCH.to_mindspore(name))
            assert tuple(parameter.shape) == tuple(value.shape), name
            parameter.set_data(ms.Tensor(value.detach().numpy().copy()).astype(parameter.dtype))
    assert not parameters, f"not in the reference: {sorted(parameters)}"
    return model


@dataclass(frozen=True)
class Inputs:
    images: np.ndarray
    text: np.ndarray


def make_inputs(config: dict, batch: int = 3, length: int = 12, seed: int = 0) -> Inputs:
    """Images (B, 3, H, W) and ids (B, T), padded inside and at the end."""
    rng = np.random.default_rng(seed)
    size = config["img_encoder"]["image_size"]
    images = rng.standard_normal((batch, 3, *(size if isinstance(size, tuple) else (size, size)))).astype(np.float32)
    text = rng.integers(1, config["num_tokens"], (batch, length)).astype(np.int64)
    text[text == config["pad_id"]] = 1
    if batch > 1:
        text[0, length // 2 :] = config["pad_id"]
        text[1, 2] = config["pad_id"]
    return Inputs(images, text)
