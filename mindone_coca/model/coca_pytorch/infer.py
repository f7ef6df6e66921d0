"""The config of a coca-pytorch checkpoint, as far as shapes tell it."""

from collections.abc import Mapping
from math import isqrt

from mindone_coca.errors import InputError
from mindone_coca.model.coca_pytorch.names import TOKENS
from mindone_coca.model.family import Shape, count_layers
from mindone_coca.model.open_clip.infer import vision_data

UNKNOWABLE = "pad_id, loss weights, context_length, and the image encoder's heads and their width (64)"


def _image_encoder(shapes: Mapping[str, Shape]) -> dict:
    """The config's `img_encoder` or `vision_cfg`."""
    if "img_encoder.conv1.weight" in shapes:
        plain = {name.replace("img_encoder.", "visual.", 1): shape for name, shape in shapes.items()}
        return {"vision_cfg": vision_data(plain, shapes["img_encoder.proj"][1])}
    wrapped = any(name.startswith("img_encoder.vit.") for name in shapes)
    name = "img_encoder.vit" if wrapped else "img_encoder"
    if f"{name}.to_patch_embedding.2.weight" not in shapes:
        raise InputError("its image encoder is neither vit-pytorch's nor open_clip's; only these can be converted")
    if f"{name}.pos_embedding" not in shapes:
        raise InputError("no shape tells the image size of a SimpleViT; give --config")
    dim, patch_dim = shapes[f"{name}.to_patch_embedding.2.weight"]
    patches = shapes[f"{name}.pos_embedding"][0] - int(f"{name}.cls_token" in shapes)
    patch, grid = isqrt(patch_dim // 3), isqrt(max(patches, 0))
    if 3 * patch * patch != patch_dim or grid * grid != patches or not patches:
        raise InputError(f"its {patches} image patches of {patch_dim} values are no squares; give --config")
    inner, layer = shapes[f"{name}.transformer.layers.0.0.to_qkv.weight"][0] // 3, f"{name}.transformer.layers"
    bare = f"{layer}.0.0.to_out.0.weight" not in shapes
    encoder = {
        "type": "vit",
        "image_size": grid * patch,
        "patch_size": patch,
        "dim": dim,
        "depth": count_layers(shapes, layer),
        "heads": 1 if bare or inner % 64 else inner // 64,
        "dim_head": inner if bare or inner % 64 else 64,
        "mlp_dim": shapes[f"{layer}.0.1.net.1.weight"][0],
        "pool": "cls" if f"{name}.cls_token" in shapes else "mean",
        "num_classes": shapes.get(f"{name}.mlp_head.weight", (0,))[0],
        "extractor": wrapped,
    }
    return {"img_encoder": encoder}


def model_data(shapes: Mapping[str, Shape]) -> dict:
    """A config as plain data from shapes in coca-pytorch's names, without derived entries.

    Raises:
        KeyError: a parameter is missing. InputError: a choice that no shape tells.
    """
    num_tokens, dim = shapes[TOKENS]
    block = "unimodal_layers.0.fn"
    dim_head = shapes["img_attn_pool.to_kv.weight"][0] // 2
    return {
        "dim": dim,
        "num_tokens": num_tokens,
        "unimodal_depth": count_layers(shapes, "unimodal_layers"),
        "multimodal_depth": count_layers(shapes, "multimodal_layers"),
        **_image_encoder(shapes),
        "dim_latents": shapes["img_to_latents.to_latents.weight"][0],
        "num_img_queries": shapes["img_queries"][0] - 1,
        "dim_head": dim_head,
        "heads": shapes["img_attn_pool.to_q.weight"][0] // dim_head,
        "ff_mult": shapes[f"{block}.ff_out.1.weight"][1] // dim,
    }
