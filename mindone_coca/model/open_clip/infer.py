"""The config of an open_clip checkpoint, as far as shapes tell it."""

from collections.abc import Mapping
from math import inf, isqrt, nextafter
from typing import Any

from mindone_coca.errors import InputError
from mindone_coca.model.family import Shape, count_layers

# What no shape can tell and inference therefore takes from open_clip's defaults.
UNKNOWABLE = (
    "heads (head width 64; 8 in the pooler), quick_gelu, pool_type, final_ln_after_pool, no_causal_mask, pad_id, "
    "the decoder's context_length (the text tower's) and image_size within a patch"
)


def _mlp_ratio(hidden: int, width: int) -> float:
    """The ratio for which int(width * ratio) is `hidden`, in spite of rounding."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else nextafter(ratio, inf)


def vision_data(shapes: Mapping[str, Shape], embed_dim: int) -> dict:
    width, _, *patch = shapes["visual.conv1.weight"]
    patch_h, patch_w = patch
    patches = shapes["visual.positional_embedding"][0] - 1
    grid = isqrt(max(patches, 0))
    if grid * grid != patches or not patches:
        raise InputError(f"{patches} image patches are no square grid; give the image size with --config")
    blocks = "visual.transformer.resblocks"
    config = {
        "width": width,
        "layers": count_layers(shapes, blocks),
        "head_width": 64 if width % 64 == 0 else width,
        "mlp_ratio": _mlp_ratio(shapes[f"{blocks}.0.mlp.c_fc.weight"][0], width),
        "patch_size": patch_h if patch_h == patch_w else (patch_h, patch_w),
        "image_size": grid * patch_h if patch_h == patch_w else (grid * patch_h, grid * patch_w),
        "no_ln_pre": "visual.ln_pre.weight" not in shapes,
        "output_tokens": True,
    }
    if f"{blocks}.0.ls_1.gamma" in shapes:
        config["ls_init_value"] = 1e-5
    if "visual.attn_pool_contrastive.query" in shapes:
        raise InputError(
            "it has two attentional poolers, and no shape tells attentional_pool parallel from cascade; give --config"
        )
    if "visual.attn_pool.query" in shapes:
        config["attentional_pool"] = True
        config["attn_pooler_queries"] = shapes["visual.attn_pool.query"][0]
        config["attn_pooler_heads"] = 8 if embed_dim % 8 == 0 else 1
    return config


def _text(shapes: Mapping[str, Shape]) -> dict:
    vocab_size, width = shapes["text.token_embedding.weight"]
    embed_cls = "text.cls_emb" in shapes
    blocks = "text.transformer.resblocks"
    config: dict[str, Any] = {
        "vocab_size": vocab_size,
        "width": width,
        "layers": count_layers(shapes, blocks),
        "heads": width // 64 if width % 64 == 0 else 1,
        "mlp_ratio": _mlp_ratio(shapes[f"{blocks}.0.mlp.c_fc.weight"][0], width),
        "context_length": shapes["text.positional_embedding"][0] - embed_cls,
        "embed_cls": embed_cls,
        "output_tokens": True,
    }
    if f"{blocks}.0.ls_1.gamma" in shapes:
        config["ls_init_value"] = 1e-5
    if "text.text_projection.weight" in shapes:
        config["proj_bias"] = True
    elif "text.text_projection" not in shapes:
        config["proj_type"] = "none"
    return config


def _decoder(shapes: Mapping[str, Shape], text: dict) -> dict:
    width, vocab_size = shapes["text_decoder.text_projection"]
    config = {
        "vocab_size": vocab_size,
        "width": width,
        "layers": count_layers(shapes, "text_decoder.resblocks"),
        "heads": width // 64 if width % 64 == 0 else 1,
        "context_length": text["context_length"],
    }
    if "text_decoder.resblocks.0.ls_1.gamma" in shapes:
        config["ls_init_value"] = 1e-5
    return config


def model_data(shapes: Mapping[str, Shape]) -> dict:
    """A config of open_clip's CoCa as plain data. Raises KeyError for what is missing."""
    embed_dim = shapes["visual.proj"][1]
    text = _text(shapes)
    data = {
        "embed_dim": embed_dim,
        "vision_cfg": vision_data(shapes, embed_dim),
        "text_cfg": text,
        "multimodal_cfg": _decoder(shapes, text),
        "nonscalar_logit_scale": shapes["logit_scale"] == (1,),
    }
    if "logit_bias" in shapes:
        data["init_logit_bias"] = 0.0
    return data
