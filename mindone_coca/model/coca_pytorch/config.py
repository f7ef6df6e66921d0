"""The model config of coca-pytorch's family: `family: parallel_coca`, then its constructor's arguments."""

import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mindone_coca.config import Dtype, PatchGrid, PreprocessCfg, with_image_size
from mindone_coca.errors import InputError
from mindone_coca.model.family import FamilyConfig
from mindone_coca.model.open_clip.config import CLIPVisionCfg, check_tower

FAMILY: typing.Final = "parallel_coca"

_ONE_ENCODER = "give either img_encoder (vit-pytorch's) or vision_cfg (open_clip's)"


@dataclass
class ViTCfg(PatchGrid):
    """An image encoder of vit-pytorch; its constructors' arguments."""

    type: typing.Literal["simple_vit", "vit"]
    image_size: int | tuple[int, int]
    patch_size: int | tuple[int, int]
    dim: int
    depth: int
    heads: int
    mlp_dim: int
    dim_head: int = 64
    pool: typing.Literal["cls", "mean"] = "cls"  # of `vit`: with a class token, or without
    num_classes: int = 0  # of a classifier that is kept with the weights and not used
    extractor: bool = True  # within vit_pytorch.extractor.Extractor, which shows in the weights' names

    @property
    def class_tokens(self) -> int:
        return int(self.type == "vit" and self.pool == "cls")

    @property
    def projects_out(self) -> bool:
        """Whether the attention of `vit` has an output projection."""
        return not (self.heads == 1 and self.dim_head == self.dim)


@dataclass
class ParallelConfig(FamilyConfig):
    """A whole ParallelCoCa: the constructor's arguments, and optionally its checkpoint and preprocessing.

    The image encoder is either `img_encoder`, vit-pytorch's, or `vision_cfg`, open_clip's ViT without a pooler.
    """

    dim: int
    num_tokens: int
    unimodal_depth: int
    multimodal_depth: int
    img_encoder: ViTCfg | None = None
    vision_cfg: CLIPVisionCfg | None = None
    dim_latents: int | None = None
    num_img_queries: int = 256
    dim_head: int = 64
    heads: int = 8
    ff_mult: int = 4
    caption_loss_weight: float = 1.0
    contrastive_loss_weight: float = 1.0
    pad_id: int = 0
    context_length: int = 76  # positions that generation has room for; the model itself has no limit
    cast_dtype: Dtype | None = None
    checkpoint: str | None = None
    lora: list[str] = field(default_factory=list)  # folders of adapters to merge into it, DIR or DIR=WEIGHT
    preprocess: PreprocessCfg = field(default_factory=PreprocessCfg)
    family: typing.Literal["parallel_coca"] = FAMILY

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "model config") -> "ParallelConfig":
        encoder = data.get("img_encoder") or data.get("vision_cfg")
        return super().from_dict(with_image_size(dict(data), encoder), where)

    def check(self, where: str = "model config") -> None:
        """Refuse by name what cannot be built. Raises InputError."""
        check_parallel_config(self, where)

    @property
    def encoder(self) -> ViTCfg | CLIPVisionCfg:
        encoder = self.img_encoder or self.vision_cfg
        if encoder is None:
            raise InputError(f"img_encoder: {_ONE_ENCODER}")
        return encoder

    @property
    def image_dim(self) -> int:
        encoder = self.encoder
        return encoder.dim if isinstance(encoder, ViTCfg) else encoder.width

    @property
    def image_hw(self) -> tuple[int, int]:
        return self.encoder.image_hw

    @property
    def vocab_size(self) -> int:
        return self.num_tokens

    @property
    def training_length(self) -> int:
        """Tokens of a caption in training: the model reads all but the last."""
        return self.context_length + 1


def check_parallel_config(config: ParallelConfig, where: str) -> None:
    """Refuse by name what cannot be built."""

    def refuse(key: str, reason: str) -> typing.NoReturn:
        raise InputError(f"{where}: {key}: {reason}")

    sizes = ("dim", "num_tokens", "unimodal_depth", "multimodal_depth", "num_img_queries", "dim_head", "heads")
    for name in (*sizes, "ff_mult", "context_length"):
        if getattr(config, name) < 1:
            refuse(name, f"must be positive, got {getattr(config, name)}")
    if config.dim_latents is not None and config.dim_latents < 1:
        refuse("dim_latents", f"must be positive, got {config.dim_latents}")
    if config.dim_head % 2:
        refuse("dim_head", f"rotary positions need an even number, got {config.dim_head}")
    if not 0 <= config.pad_id < config.num_tokens:
        refuse("pad_id", f"must lie in [0, {config.num_tokens}), got {config.pad_id}")
    if (config.img_encoder is None) == (config.vision_cfg is None):
        refuse("img_encoder", _ONE_ENCODER)
    encoder = config.encoder
    if isinstance(encoder, CLIPVisionCfg):
        check_tower(encoder, f"{where}: vision_cfg")
        unsupported = encoder.timm_model_name or encoder.patch_dropout or encoder.pos_embed_type != "learnable"
        if encoder.attentional_pool or unsupported or encoder.width % encoder.head_width or min(encoder.grid_hw) < 1:
            refuse("vision_cfg", "must be a plain ViT without attentional_pool, as this model has a pooler of its own")
        return
    for name in ("dim", "depth", "heads", "mlp_dim", "dim_head"):
        if getattr(encoder, name) < 1:
            refuse(f"img_encoder: {name}", f"must be positive, got {getattr(encoder, name)}")
    if encoder.num_classes < 0:
        refuse("img_encoder: num_classes", f"must not be negative, got {encoder.num_classes}")
    if any(p < 1 or i < p or i % p for i, p in zip(encoder.image_hw, encoder.patch_hw)):
        refuse("img_encoder: patch_size", f"{encoder.patch_size} does not divide image_size {encoder.image_size}")
    if encoder.type == "simple_vit" and (encoder.dim % 4 or encoder.dim < 8):
        refuse("img_encoder: dim", f"its position embeddings need a multiple of 4 from 8 on, got {encoder.dim}")
