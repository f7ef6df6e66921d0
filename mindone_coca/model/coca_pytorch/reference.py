"""Proof of a conversion of coca-pytorch's family: the same image and text through the original."""

import dataclasses

import numpy as np

from mindone_coca.conversion.convert import Plan
from mindone_coca.errors import InputError
from mindone_coca.model.coca_pytorch.config import ParallelConfig, ViTCfg
from mindone_coca.model.coca_pytorch.model import ParallelCoCa
from mindone_coca.model.coca_pytorch.names import is_derived
from mindone_coca.weights.formats.dtypes import cast
from mindone_coca.weights.names import to_open_clip


def coca_pytorch_outputs(plan: Plan, image: np.ndarray, text: np.ndarray) -> dict[str, np.ndarray]:
    """Features of unit length and logits by coca-pytorch and vit-pytorch on the source's weights.

    Raises InputError where they are missing, or where the image encoder is not vit-pytorch's.
    """
    try:
        import torch
        from coca_pytorch.coca_pytorch import CoCa as ReferenceCoCa
        from vit_pytorch import ViT
        from vit_pytorch.extractor import Extractor
        from vit_pytorch.simple_vit import SimpleViT
    except (ImportError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"--verify forward needs torch, coca-pytorch and vit-pytorch to compare with, and they fail: {reason}"
        ) from error
    config: ParallelConfig = plan.config
    if config.img_encoder is None:
        raise InputError("--verify forward: compares models with an image encoder of vit-pytorch; use --verify tensors")
    settings = {f.name: getattr(config.img_encoder, f.name) for f in dataclasses.fields(ViTCfg)}
    kind, pool, wrapped = settings.pop("type"), settings.pop("pool"), settings.pop("extractor")
    vit = SimpleViT(**settings) if kind == "simple_vit" else ViT(**settings, pool=pool)
    names = ("dim", "num_tokens", "unimodal_depth", "multimodal_depth", "image_dim", "dim_latents", "num_img_queries")
    names += ("dim_head", "heads", "ff_mult", "pad_id")
    model = ReferenceCoCa(
        img_encoder=Extractor(vit, return_embeddings_only=True) if wrapped else vit,
        **{name: getattr(config, name) for name in names},
    )
    state = {
        to_open_clip(name) or name: torch.from_numpy(cast(entry.read(), entry.dtype, "float32").copy())
        for name, entry in plan.entries.items()
    }
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and all(is_derived(name, tuple(model.state_dict()[name].shape)) for name in missing)
    model.eval()
    ids, images = torch.from_numpy(text.astype(np.int64)), torch.from_numpy(image)
    with torch.no_grad():
        text_embedding, image_embedding = model(ids, images, return_embeddings=True)
        outputs = {
            "image_features": model.img_to_latents(image_embedding),
            "text_features": model.text_to_latents(text_embedding),
            "logits": model(ids, images),
        }
    return {name: value.numpy() for name, value in outputs.items()}


def our_outputs(model: ParallelCoCa, image: np.ndarray, text: np.ndarray) -> dict[str, np.ndarray]:
    """The same by ours."""
    return {
        "image_features": model.encode_image(image).asnumpy(),
        "text_features": model.encode_text(text).asnumpy(),
        "logits": model(text, image).asnumpy(),
    }
