"""The model config of open_clip's CoCa: every key of its JSON files, and what cannot be built refused by name.

The three tower configs carry open_clip 3.3.0's field names and defaults (`open_clip.model.CLIPVisionCfg`,
`CLIPTextCfg`, `open_clip.coca_model.MultimodalCfg`), so its JSON files are read as they are.
"""

import dataclasses
import math
import typing
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mindone_coca.config import Dtype, PatchGrid, PreprocessCfg, plain_part, with_image_size
from mindone_coca.errors import InputError
from mindone_coca.model.family import ResizableConfig
from mindone_coca.typed_mapping import show, value_differs


@dataclass(kw_only=True)
class _BlockCfg:
    """What open_clip offers for blocks of both towers. All but output_tokens, which CoCa has, is refused when set."""

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


@dataclass
class CLIPVisionCfg(_BlockCfg, PatchGrid):
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
class CLIPTextCfg(_BlockCfg):
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
class ModelConfig(ResizableConfig):
    """A whole CoCa: the constructor's arguments, and optionally its checkpoint and preprocessing."""

    embed_dim: int
    vision_cfg: CLIPVisionCfg
    text_cfg: CLIPTextCfg
    multimodal_cfg: MultimodalCfg
    quick_gelu: bool = False
    init_logit_scale: float = math.log(1 / 0.07)
    init_logit_bias: float | None = None
    nonscalar_logit_scale: bool = False
    cast_dtype: Dtype | None = None
    pad_id: int = 0
    temporal_frames: int = 0  # not in open_clip: frames that have a learned embedding each, for fusion `pool`
    custom_text: bool = True  # open_clip's marker of a model with a text tower of its own; CoCa always has one
    checkpoint: str | None = None
    lora: list[str] = field(default_factory=list)  # folders of adapters to merge into it, DIR or DIR=WEIGHT
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
        return super().from_dict(with_image_size(data, data.get("vision_cfg")), where)

    def check(self, where: str = "model config") -> None:
        """Refuse by name what cannot be built. Raises InputError."""
        check_model_config(self, where)

    @property
    def image_hw(self) -> tuple[int, int]:
        return self.vision_cfg.image_hw

    @property
    def patch_hw(self) -> tuple[int, int]:
        return self.vision_cfg.patch_hw

    @property
    def grid_hw(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.vision_cfg.grid_hw

    def resized(self, image_size: int | tuple[int, int]) -> "ModelConfig":
        """The same model for images of another size, in pixels."""
        vision = dataclasses.replace(self.vision_cfg, image_size=image_size)
        preprocess = dataclasses.replace(self.preprocess, size=image_size)
        return dataclasses.replace(self, vision_cfg=vision, preprocess=preprocess)

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
        written: dict[str, Any] = {"embed_dim": self.embed_dim}
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
