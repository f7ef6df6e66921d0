"""From a config and a weights file to a model ready to run."""

import contextlib
import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

from mindspore.nn.utils import no_init_parameters

from mindone_coca import device
from mindone_coca.config import ModelConfig, find_config, load_model_config
from mindone_coca.errors import InputError
from mindone_coca.model.coca_pytorch.config import ParallelConfig
from mindone_coca.model.coca_pytorch.model import ParallelCoCa
from mindone_coca.model.coca_pytorch.vit import build_vit
from mindone_coca.model.open_clip.model import CoCa
from mindone_coca.model.open_clip.vision import VisionTransformer
from mindone_coca.weights.infer import config_beside
from mindone_coca.weights.load import load_weights
from mindone_coca.weights.source import weights_in_folder

DEFAULT_WEIGHTS = (Path("models/coca_model.ckpt"), Path("models/coca_model.safetensors"))


def create_model(
    config: str | os.PathLike | Mapping | ModelConfig | ParallelConfig,
    checkpoint_path: str | os.PathLike | None = None,
    dtype: str = "float32",
) -> CoCa | ParallelCoCa:
    """Build a model in eval mode; the config's `family` chooses the class.

    Args:
        config: a YAML or JSON path, the name of a packaged config (`coca_vit-l-14`), a dict, or a built config.
        checkpoint_path: weights in MindSpore's, open_clip's or coca-pytorch's names, or a folder with one such file,
            loaded strictly; None draws fresh weights.
        dtype: `float32`, `float16` or `bfloat16` for weights and activations; norms, softmax and logits stay float32.
            float32 leaves the choice to the config's `cast_dtype`.
    Raises:
        InputError: a config that cannot be built, or weights that do not fit it.
    """
    config = load_model_config(config)
    if dtype != "float32":
        config = dataclasses.replace(config, cast_dtype=dtype)
    device.ensure_configured()
    # drawing weights takes seconds for a large model: not where a checkpoint follows
    with no_init_parameters() if checkpoint_path is not None else contextlib.nullcontext():
        model = build_model(config)
    if checkpoint_path is not None:
        load_weights(model, find_weights(checkpoint_path))
    return model


def build_model(config: ModelConfig | ParallelConfig) -> CoCa | ParallelCoCa:
    """The model of a checked config, its weights drawn as MindSpore is told to."""
    if isinstance(config, ParallelConfig):
        dtype = device.compute_dtype(config.cast_dtype)
        if config.img_encoder is not None:
            encoder = build_vit(config.img_encoder, dtype)
        else:
            encoder = VisionTransformer(config.vision_cfg, config.image_dim, dtype=dtype)
        names = ("dim", "num_tokens", "unimodal_depth", "multimodal_depth", "image_dim", "dim_latents")
        names += ("num_img_queries", "dim_head", "heads", "ff_mult", "caption_loss_weight", "contrastive_loss_weight")
        names += ("pad_id", "context_length", "cast_dtype")
        return ParallelCoCa(img_encoder=encoder, config=config, **{name: getattr(config, name) for name in names})
    names = ("embed_dim", "multimodal_cfg", "text_cfg", "vision_cfg", "quick_gelu", "init_logit_scale")
    names += ("init_logit_bias", "nonscalar_logit_scale", "cast_dtype", "pad_id", "temporal_frames")
    model = CoCa(**{name: getattr(config, name) for name in names})
    model.config = config  # with its preprocessing, which the towers do not need
    return model


def find_weights(path: str | os.PathLike) -> Path:
    """The weights file that `path` names, itself or as the one in a folder."""
    path = Path(path)
    if path.is_dir():
        return weights_in_folder(path)
    if not path.is_file():
        raise InputError(f"{path}: no such weights file; convert one with tools/model_conversion/coca_convert.py")
    return path


def find_config_and_weights(
    config: str | os.PathLike | None, model_path: str | os.PathLike | None
) -> tuple[ModelConfig | ParallelConfig, Path]:
    """What `-c` and `--model_path` mean when either is left out.

    The weights are model_path, else the config's `checkpoint` (looked for beside the config, then from the working
    directory), else `models/coca_model.ckpt` or `.safetensors`. The config is the given one, else that beside the
    weights. Raises InputError.
    """
    weights = None if model_path is None else find_weights(model_path)
    if config is None and weights is not None:
        config = config_beside(weights)
        if config is None:
            raise InputError(f"{weights}: no config file beside it; give one with -c")
    if config is None:
        raise InputError("give a model config with -c, or weights with a config beside them with --model_path")
    loaded = load_model_config(config)
    if weights is None and loaded.checkpoint:
        beside = find_config(config).parent / loaded.checkpoint
        weights = find_weights(beside if beside.exists() else loaded.checkpoint)
    if weights is None:
        weights = next((path for path in DEFAULT_WEIGHTS if path.is_file()), None)
    if weights is None:
        raise InputError(
            f"{DEFAULT_WEIGHTS[0]}: no weights there; convert some with tools/model_conversion/coca_convert.py, or "
            "name a file with --model_path"
        )
    return loaded, weights
