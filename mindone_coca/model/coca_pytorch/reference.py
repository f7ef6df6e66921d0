"""coca-pytorch itself: its outputs for the proof of a conversion."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from mindone_coca.errors import InputError
from mindone_coca.model.coca_pytorch.config import ParallelConfig, ViTCfg
from mindone_coca.model.coca_pytorch.names import TIED


def run_original(
    config: ParallelConfig, state: Mapping[str, np.ndarray], image: np.ndarray, text: np.ndarray
) -> dict[str, np.ndarray]:
    """See `Family.run_original`; features of unit length.

    Raises InputError also where the image encoder is not vit-pytorch's.
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
    if config.img_encoder is None:
        raise InputError("--verify forward: compares models with an image encoder of vit-pytorch; use --verify tensors")
    settings = {f.name: getattr(config.img_encoder, f.name) for f in dataclasses.fields(ViTCfg)}
    kind, pool, wrapped = settings.pop("type"), settings.pop("pool"), settings.pop("extractor")
    vit = SimpleViT(**settings) if kind == "simple_vit" else ViT(**settings, pool=pool)
    names: tuple[str, ...] = (
        "dim",
        "num_tokens",
        "unimodal_depth",
        "multimodal_depth",
        "image_dim",
        "dim_latents",
        "num_img_queries",
    )
    names += ("dim_head", "heads", "ff_mult", "pad_id")
    model = ReferenceCoCa(
        img_encoder=Extractor(vit, return_embeddings_only=True) if wrapped else vit,
        **{name: getattr(config, name) for name in names},
    )
    missing, unexpected = model.load_state_dict({n: torch.from_numpy(v) for n, v in state.items()}, strict=False)
    assert not unexpected and all(name == TIED or model.state_dict()[name].numel() == 0 for name in missing)
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
