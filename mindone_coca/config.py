"""The one place that knows every key of a model config, and refuses by name what cannot be built.

The three tower configs carry open_clip 3.3.0's field names and defaults (`open_clip.model.CLIPVisionCfg`,
`CLIPTextCfg`, `open_clip.coca_model.MultimodalCfg`), so its JSON files are read as they are.
"""

import dataclasses
import math
import os
import typing
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mindone_coca.errors import InputError
from mindone_coca.typed_mapping import from_dict, nearest, read_mapping, show, value_differs

if typing.TYPE_CHECKING:
    from mindone_coca.model.coca_pytorch.config import ParallelConfig

CONFIG_DIR = Path(__file__).parent / "configs"  # in a checkout a link to the folder on top
DTYPES = ("float32", "float16", "bfloat16")


class PatchGrid:
    """Sizes of an image encoder with square or oblong images and patches, in pixels: (height, width)."""

    image_size: int | tuple[int, int]
    patch_size: int | tuple[int, int]

    @property
    def image_hw(self) -> tuple[int, int]:
        return self.image_size if isinstance(self.image_size, tuple) else (self.image_size, self.image_size)

    @property
    def patch_hw(self) -> tuple[int, int]:
        return self.patch_size if isinstance(self.patch_size, tuple) else (self.patch_size, self.patch_size)

    @property
    def grid_hw(self) -> tuple[int, int]:
        (image_h, image_w), (patch_h, patch_w) = self.image_hw, self.patch_hw
        return image_h // patch_h, image_w // patch_w


@dataclass
class CLIPVisionCfg(PatchGrid):
    """Image tower. Source: open_clip.model.CLIPVisionCfg; fields it has for other models are refused when set."""

    layers: int = 12
    width: int = 768
    head_width: int = 64
    mlp_ratio: float = 4.0
    patch_size: int | tuple[int, int] = 16
    image_size: int | tuple[int, int] = 224
    ls_init_value: float | None = None
    patch_dropout: float = 0.0
    attentional_pool: bool | typing.Literal["parallel", "cascade"] = False
    attn_pooler_queries: int = 256
    attn_pooler_heads: int = 8
    no_ln_pre: bool = False
    pos_embed_type: typing.Literal["learnable", "sin_cos_2d"] = "learnable"
    final_ln_after_pool: bool = False
    pool_type: typing.Literal["tok", "avg", "none"] = "tok"
    output_tokens: bool = False
    act_kwargs: dict | None = None
    norm_kwargs: dict | None = None
    block_type: str | None = None
    qk_norm: bool = False
    scaled_cosine_attn: bool = False
    scale_heads: bool = False
    scale_attn_inner: bool = False
    scale_attn: bool = False
    scale_fc: bool = False
    timm_model_name: str | None = None
    timm_model_pretrained: bool = False
    timm_pool: str = "avg"
    timm_proj: str = "linear"
    timm_proj_bias: bool = False
    timm_drop: float = 0.0
    timm_drop_path: float | None = None

    @property
    def heads(self) -> int:
        return self.width // self.head_width


@dataclass
class CLIPTextCfg:
    """Unimodal text tower. Source: open_clip.model.CLIPTextCfg."""

    context_length: int = 77
    vocab_size: int = 49408
    hf_tokenizer_name: str | None = None
    tokenizer_mode: str | None = None
    tokenizer_kwargs: dict | None = None
    width: int = 512
    heads: int = 8
    layers: int = 12
    mlp_ratio: float = 4.0
    ls_init_value: float | None = None
    embed_cls: bool = False
    pad_id: int = 0
    eos_id: int = 2
    no_causal_mask: bool = False
    final_ln_after_pool: bool = False
    pool_type: typing.Literal["first", "last", "argmax", "eos", "none"] = "argmax"
    proj_bias: bool = False
    proj_type: typing.Literal["linear", "none"] = "linear"
    output_tokens: bool = False
    act_kwargs: dict | None = None
    norm_kwargs: dict | None = None
    block_type: str | None = None
    qk_norm: bool = False
    scaled_cosine_attn: bool = False
    scale_heads: bool = False
    scale_attn_inner: bool = False
    scale_attn: bool = False
    scale_fc: bool = False
    hf_model_name: str | None = None
    hf_model_pretrained: bool = True
    hf_proj_type: str = "mlp"
    hf_pooler_type: str = "mean_pooler"


@dataclass
class MultimodalCfg(CLIPTextCfg):
    """Multimodal decoder. Source: open_clip.coca_model.MultimodalCfg, which uses only `context_length`, `width`,
    `heads`, `layers` and `ls_init_value`: its MLP ratio is always 4 and its vocabulary the text tower's."""

    mlp_ratio: float = 4.0
    dim_head: int = 64
    heads: int = 8
    n_queries: int = 256
    attn_pooler_heads: int = 8


@dataclass
class PreprocessCfg:
    """Image preprocessing. Source: open_clip.transform.PreprocessCfg (the mean and std are OpenAI CLIP's)."""

    size: int | tuple[int, int] = 224
    mode: typing.Literal["RGB"] = "RGB"
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    interpolation: typing.Literal["bicubic", "bilinear", "random"] = "bicubic"
    resize_mode: typing.Literal["shortest", "longest", "squash"] = "shortest"
    fill_color: int = 0


def with_image_size(data: dict, encoder: Any) -> dict:
    """A model config's plain data with preprocessing to its image encoder's size, unless it names another."""
    preprocess = data.get("preprocess") or {}
    if isinstance(encoder, Mapping) and isinstance(preprocess, Mapping) and "size" not in preprocess:
        return data | {"preprocess": {"size": encoder.get("image_size", CLIPVisionCfg.image_size), **preprocess}}
    return data


def plain_part(part: Any, keep: Collection[str] = ()) -> dict:
    """A part of a config as plain data: fields away from their defaults, and those in `keep`; lists for tuples."""
    return {
        f.name: list(value) if isinstance(value := getattr(part, f.name), tuple) else value
        for f in dataclasses.fields(part)
        if f.name in keep or value_differs(part, f)
    }


@dataclass
class ModelConfig:
    """A whole CoCa: the constructor's arguments, and optionally its checkpoint and preprocessing."""

    embed_dim: int
    vision_cfg: CLIPVisionCfg
    text_cfg: CLIPTextCfg
    multimodal_cfg: MultimodalCfg
    quick_gelu: bool = False
    init_logit_scale: float = math.log(1 / 0.07)
    init_logit_bias: float | None = None
    nonscalar_logit_scale: bool = False
    cast_dtype: typing.Literal["float32", "float16", "bfloat16"] | None = None
    pad_id: int = 0
    temporal_frames: int = 0  # not in open_clip: frames that have a learned embedding each, for fusion `pool`
    custom_text: bool = True  # open_clip's marker of a model with a text tower of its own; CoCa always has one
    checkpoint: str | None = None
    preprocess: PreprocessCfg = field(default_factory=PreprocessCfg)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "model config") -> "ModelConfig":
        """Read open_clip's JSON layout, or a Hugging Face one with `model_cfg` and `preprocess_cfg`."""
        data = dict(data)
        if "model_cfg" in data:
            inner, preprocess = data.pop("model_cfg"), data.pop("preprocess_cfg", None)
            if not isinstance(inner, Mapping):
                raise InputError(f"{where}: model_cfg: must be a mapping of keys to values, got {show(inner)}")
            if data:
                raise InputError(f"{where}: unknown key {next(iter(data))!r} beside 'model_cfg'; remove it")
            data = dict(inner)
            if preprocess:
                data["preprocess"] = preprocess
        config = from_dict(cls, with_image_size(data, data.get("vision_cfg")), where)
        check_model_config(config, where)
        return config

    @property
    def image_hw(self) -> tuple[int, int]:
        return self.vision_cfg.image_hw

    @property
    def vocab_size(self) -> int:
        return self.text_cfg.vocab_size

    @property
    def context_length(self) -> int:
        """The longest text that both decoders take."""
        return min(self.text_cfg.context_length, self.multimodal_cfg.context_length)

    @property
    def training_length(self) -> int:
        """Tokens of a caption in training: the last is only predicted, but the text tower reads it."""
        return min(self.text_cfg.context_length, self.multimodal_cfg.context_length + 1)

    def to_dict(self) -> dict:
        """The config as plain data, without fields at their defaults (tower sizes are always written)."""
        written = {"embed_dim": self.embed_dim}
        keep = {"layers", "width", "heads", "patch_size", "image_size", "context_length", "vocab_size"}
        for name in ("vision_cfg", "text_cfg", "multimodal_cfg", "preprocess"):
            written[name] = plain_part(getattr(self, name), keep)
        for f in dataclasses.fields(self):
            if f.name not in written and f.name not in ("checkpoint", "custom_text") and value_differs(self, f):
                written[f.name] = getattr(self, f.name)
        written["custom_text"] = True
        if self.checkpoint:
            written["checkpoint"] = self.checkpoint
        return written


def find_config(config: str | os.PathLike) -> Path:
    """The path of a config: as given, else a packaged one by name (`coca_vit-l-14`, `configs/coca_vit-l-14.yaml`)."""
    path = Path(config)
    if path.is_file():
        return path
    packaged = CONFIG_DIR / f"{path.stem if path.suffix in ('.yaml', '.yml', '.json') else path.name}.yaml"
    if packaged.is_file() and path.parent.name in ("", "configs"):
        return packaged
    known = sorted(p.stem for p in CONFIG_DIR.glob("*.yaml"))
    raise InputError(f"{config}: no such config file{nearest(path.stem, known) or f'; packaged: {known}'}")


def load_model_config(
    config: "str | os.PathLike | Mapping | ModelConfig | ParallelConfig",
) -> "ModelConfig | ParallelConfig":
    """Read and check a model config from a YAML or JSON path, a packaged name, a dict or a built one.

    The key `family` chooses the architecture: `coca`, open_clip's and the default, or `parallel_coca`, coca-pytorch's.
    """
    from mindone_coca.model.coca_pytorch.config import FAMILY, ParallelConfig, check_parallel_config

    if isinstance(config, ParallelConfig):
        check_parallel_config(config, "model config")
        return config
    if isinstance(config, ModelConfig):
        check_model_config(config, "model config")
        return config
    where = "model config"
    if not isinstance(config, Mapping):
        path = find_config(config)
        config, where = read_mapping(path), str(path)
    # of a model trained for a task, which tasks.load reads; without its head it is a CoCa as any other
    config = {key: value for key, value in config.items() if key != "task_cfg"}
    if config.get("family") == FAMILY:
        return ParallelConfig.from_dict(config, where)
    family = config.pop("family", "coca")
    if family != "coca":
        raise InputError(f"{where}: family: must be coca or {FAMILY}, got {show(family)}")
    return ModelConfig.from_dict(config, where)


_CUSTOM_BLOCK = ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc")


def check_model_config(config: ModelConfig, where: str) -> None:
    """Refuse by name what cannot be built; warn of keys that open_clip ignores though they name a shape."""
    vision, text, multimodal = config.vision_cfg, config.text_cfg, config.multimodal_cfg
    for name, part in (("vision_cfg", vision), ("text_cfg", text), ("multimodal_cfg", multimodal)):
        check_tower(part, f"{where}: {name}")

    def refuse(key: str, reason: str) -> None:
        raise InputError(f"{where}: {key}: {reason}")

    if config.embed_dim < 1:
        refuse("embed_dim", f"must be positive, got {config.embed_dim}")
    if config.temporal_frames < 0 or (config.temporal_frames and not vision.attentional_pool):
        refuse("temporal_frames", f"needs attentional_pool and cannot be negative, got {config.temporal_frames}")
    if vision.timm_model_name:
        refuse("vision_cfg: timm_model_name", "timm image towers are not supported; use a ViT config")
    if vision.pos_embed_type == "sin_cos_2d" and (vision.grid_hw[0] != vision.grid_hw[1] or vision.width % 4):
        refuse(
            "vision_cfg: pos_embed_type",
            "'sin_cos_2d' needs as many rows of patches as columns and a width divisible by 4; use 'learnable'",
        )
    if vision.patch_dropout:
        refuse("vision_cfg: patch_dropout", "not supported; set it to 0")
    if min(vision.grid_hw) < 1:
        refuse("vision_cfg: patch_size", f"{vision.patch_size} is larger than image_size {vision.image_size}")
    if vision.width % vision.head_width:
        refuse("vision_cfg: head_width", f"{vision.head_width} does not divide width {vision.width}")
    if not vision.attentional_pool and vision.width != multimodal.width:
        refuse(
            "vision_cfg: width",
            f"{vision.width} without attentional_pool must equal multimodal_cfg.width {multimodal.width}, which "
            "attends to these tokens; make them equal or set attentional_pool: true",
        )
    if vision.attentional_pool and config.embed_dim != multimodal.width:
        refuse(
            "embed_dim", f"{config.embed_dim} must equal multimodal_cfg.width {multimodal.width} with attentional_pool"
        )
    if vision.attentional_pool and config.embed_dim % vision.attn_pooler_heads:
        refuse(
            "vision_cfg: attn_pooler_heads", f"{vision.attn_pooler_heads} does not divide embed_dim {config.embed_dim}"
        )
    if isinstance(vision.attentional_pool, str):
        if vision.width != config.embed_dim:
            refuse(
                "vision_cfg: attentional_pool",
                f"{vision.attentional_pool!r} needs vision width {vision.width} equal to embed_dim {config.embed_dim}",
            )
    elif vision.pool_type == "none":
        refuse("vision_cfg: pool_type", "'none' gives no image feature to contrast; use 'tok' or 'avg'")
    elif vision.attentional_pool and vision.attn_pooler_queries < 2:
        refuse(
            "vision_cfg: attn_pooler_queries", "must be at least 2: one query for the feature, the rest for captions"
        )
    if text.hf_model_name or text.hf_tokenizer_name:
        refuse("text_cfg: hf_model_name", "Hugging Face text towers are not supported; use a CLIP text config")
    if text.width != multimodal.width:
        refuse("text_cfg: width", f"{text.width} must equal multimodal_cfg.width {multimodal.width}")
    if text.proj_type == "none" and text.width != config.embed_dim:
        refuse("text_cfg: proj_type", f"'none' needs text width {text.width} equal to embed_dim {config.embed_dim}")
    if text.pool_type == "none" and not text.embed_cls:
        refuse("text_cfg: pool_type", "'none' gives no text feature to contrast; use 'argmax' or embed_cls: true")

    ignored = {
        "mlp_ratio": 4.0,
        "vocab_size": text.vocab_size,
        "n_queries": vision.attn_pooler_queries,
        "dim_head": multimodal.width // multimodal.heads,
    }
    defaults = {f.name: f.default for f in dataclasses.fields(MultimodalCfg)}
    for key, used in ignored.items():
        given = getattr(multimodal, key)
        if given != used and given != defaults[key]:
            warnings.warn(
                f"{where}: multimodal_cfg: {key} {given} is ignored, as in open_clip; {used} is used", stacklevel=3
            )


def check_tower(part: CLIPVisionCfg | CLIPTextCfg, where: str) -> None:
    sizes = ("layers", "width", "heads", "vocab_size", "context_length", "head_width", "attn_pooler_heads", "mlp_ratio")
    for name in sizes:
        if getattr(part, name, 1) <= 0:
            raise InputError(f"{where}: {name}: must be positive, got {getattr(part, name)}")
    if part.width % part.heads:
        raise InputError(f"{where}: heads: {part.heads} does not divide width {part.width}")
    for name in _CUSTOM_BLOCK:
        if getattr(part, name):
            raise InputError(f"{where}: {name}: open_clip's custom attention blocks are not supported; set it to false")
    if part.block_type not in (None, "default"):
        raise InputError(f"{where}: block_type: {part.block_type!r} is not supported; use 'default'")
    for name in ("act_kwargs", "norm_kwargs"):
        if getattr(part, name):
            raise InputError(f"{where}: {name}: not supported; remove it (CoCa uses exact GELU and epsilon 1e-5)")
