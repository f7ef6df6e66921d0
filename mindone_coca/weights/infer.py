"""The model config of a checkpoint: found beside it, or inferred from its shapes."""

import json
import re
from collections.abc import Mapping
from functools import cache
from math import inf, isqrt, nextafter
from pathlib import Path

from mindone_coca.config import CONFIG_DIR, ModelConfig, load_model_config
from mindone_coca.errors import InputError
from mindone_coca.model.coca_pytorch.config import ParallelConfig
from mindone_coca.model.coca_pytorch.infer import UNKNOWABLE, parallel_data
from mindone_coca.model.coca_pytorch.names import TOKENS
from mindone_coca.weights.shapes import Shapes, check_shapes, parameter_shapes, same_shape
from mindone_coca.weights.source import INDEX_SUFFIX

Shape = tuple[int, ...]

# What no shape can tell and inference therefore takes from open_clip's defaults.
_UNKNOWABLE = (
    "heads (head width 64; 8 in the pooler), quick_gelu, pool_type, final_ln_after_pool, no_causal_mask, pad_id, "
    "the decoder's context_length (the text tower's) and image_size within a patch"
)


def config_beside(weights: Path) -> Path | None:
    """The config file that belongs to a weights file: of the same name (.yaml, .yml, .json), or the folder's
    `open_clip_config.json`; None if there is neither."""
    stem = weights.name.removesuffix(INDEX_SUFFIX) if weights.name.endswith(INDEX_SUFFIX) else weights.name
    candidates = [weights.with_name(Path(stem).stem + suffix) for suffix in (".yaml", ".yml", ".json")]
    candidates.append(weights.with_name("open_clip_config.json"))
    return next((path for path in candidates if path.is_file()), None)


def _layers(shapes: Mapping[str, Shape], module: str) -> int:
    """The number of residual blocks under a module, named 0, 1, ... without a gap (else a later check tells)."""
    pattern = re.compile(re.escape(module) + r"\.([0-9]{1,4})\.")
    found = {match[1] for name in shapes if (match := pattern.match(name))}
    if not found:
        raise KeyError(f"{module}.0")
    return len(found)


def _mlp_ratio(hidden: int, width: int) -> float:
    """The ratio for which int(width * ratio) is `hidden`, in spite of rounding."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else nextafter(ratio, inf)


def _vision(shapes: Mapping[str, Shape], embed_dim: int) -> dict:
    width, _, *patch = shapes["visual.conv1.weight"]
    patch_h, patch_w = patch
    patches = shapes["visual.positional_embedding"][0] - 1
    grid = isqrt(max(patches, 0))
    if grid * grid != patches or not patches:
        raise InputError(f"{patches} image patches are no square grid; give the image size with --config")
    blocks = "visual.transformer.resblocks"
    config = {
        "width": width,
        "layers": _layers(shapes, blocks),
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
    config = {
        "vocab_size": vocab_size,
        "width": width,
        "layers": _layers(shapes, blocks),
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
        "layers": _layers(shapes, "text_decoder.resblocks"),
        "heads": width // 64 if width % 64 == 0 else 1,
        "context_length": text["context_length"],
    }
    if "text_decoder.resblocks.0.ls_1.gamma" in shapes:
        config["ls_init_value"] = 1e-5
    return config


@cache
def _published() -> list[tuple[str, ModelConfig | ParallelConfig, Shapes]]:
    configs = [(path.stem, load_model_config(path)) for path in sorted(CONFIG_DIR.glob("coca_*.yaml"))]
    return [(name, config, parameter_shapes(config)) for name, config in configs]


def _matching_published(shapes: Mapping[str, Shape]) -> tuple[str, ModelConfig | ParallelConfig] | None:
    """A packaged config whose parameters have exactly these names and shapes."""
    for name, config, expected in _published():
        if expected.keys() == shapes.keys() and all(same_shape(n, shapes[n], expected[n]) for n in expected):
            return name, config
    return None


def _open_clip_data(shapes: Mapping[str, Shape]) -> dict:
    """A config of open_clip's CoCa as plain data. Raises KeyError for what is missing."""
    embed_dim = shapes["visual.proj"][1]
    text = _text(shapes)
    data = {
        "embed_dim": embed_dim,
        "vision_cfg": _vision(shapes, embed_dim),
        "text_cfg": text,
        "multimodal_cfg": _decoder(shapes, text),
        "nonscalar_logit_scale": shapes["logit_scale"] == (1,),
    }
    if "logit_bias" in shapes:
        data["init_logit_bias"] = 0.0
    return data


def infer_config(shapes: Mapping[str, Shape], path: Path) -> tuple[ModelConfig | ParallelConfig, str]:
    """Infer a model config from parameter shapes (open_clip's or coca-pytorch's names, without what is derived).

    Published configs are tried first, since they also say what no shape tells. The result's parameters have
    exactly the given names and shapes.

    Returns:
        The config, and one sentence on where it comes from and what had to be assumed.

    Raises:
        InputError: the shapes are no CoCa's, or a choice cannot be told from them; names `path`.
    """
    if published := _matching_published(shapes):
        name, config = published
        return config, f"the shapes are those of {name}"
    parallel = TOKENS in shapes
    try:
        data = parallel_data(shapes, _vision) if parallel else _open_clip_data(shapes)
    except KeyError as error:
        raise InputError(f"{path}: not a whole CoCa checkpoint: {error.args[0]} is missing") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (ValueError, IndexError, ZeroDivisionError):
        raise InputError(f"{path}: a parameter has the wrong number of dimensions for a CoCa model") from None
    config = (ParallelConfig if parallel else ModelConfig).from_dict(data, f"{path}: inferred config")
    check_shapes(parameter_shapes(config), shapes, path)
    unknowable = UNKNOWABLE if parallel else _UNKNOWABLE
    return config, f"config inferred from shapes; assumed, because no shape tells: {unknowable}"


def open_clip_arguments(config: ModelConfig) -> dict:
    """The keyword arguments of open_clip's CoCa for a config, towers as dicts."""
    data = config.to_dict()
    for key in ("preprocess", "custom_text", "checkpoint", "cast_dtype"):  # ours, or told outside the constructor
        data.pop(key, None)
    # open_clip's CoCa takes features and tokens from both towers and fails when a config does not say so.
    data["vision_cfg"]["output_tokens"] = data["text_cfg"]["output_tokens"] = True
    return data


def open_clip_json(config: ModelConfig) -> tuple[str, str]:
    """A config as open_clip reads it: its plain model JSON, and a Hugging Face `open_clip_config.json`."""
    data = {**open_clip_arguments(config), "custom_text": True}
    preprocess = config.to_dict()["preprocess"]
    whole = {"model_cfg": data, "preprocess_cfg": preprocess}
    return json.dumps(data, indent=4) + "\n", json.dumps(whole, indent=4) + "\n"
