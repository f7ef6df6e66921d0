"""CoCa: the three towers behind one interface."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import TypeVar, cast

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.common.initializer import Constant

from mindone_coca import device
from mindone_coca.argument_names import names_arguments
from mindone_coca.config import Dtype
from mindone_coca.errors import InputError
from mindone_coca.generation.cache import WriteInPlace
from mindone_coca.generation.engine import DecodeCells
from mindone_coca.model.base import Graphs, ImageTextModel
from mindone_coca.model.layers import new_parameter
from mindone_coca.model.open_clip.config import CLIPTextCfg, CLIPVisionCfg, ModelConfig, MultimodalCfg
from mindone_coca.model.open_clip.decoding import CrossProjection, PromptPass, TokenStep
from mindone_coca.model.open_clip.export import export_graphs
from mindone_coca.model.open_clip.multimodal import MultimodalTransformer
from mindone_coca.model.open_clip.text import TextTransformer
from mindone_coca.model.open_clip.vision import VisionTransformer
from mindone_coca.tensors import as_tensor, normalize
from mindone_coca.typed_mapping import from_dict

Part = TypeVar("Part", MultimodalCfg, CLIPTextCfg, CLIPVisionCfg)


def _own(cls: type[Part], part: Part | Mapping, name: str) -> Part:
    """A tower's config as a dataclass, and as a copy: the caller's stays as it was."""
    return dataclasses.replace(part) if isinstance(part, cls) else from_dict(cls, part, name)


class CoCa(ImageTextModel):
    """Contrastive Captioner (arXiv 2205.01917). Source: open_clip.coca_model.CoCa.

    Args:
        embed_dim: width of the shared image-text space.
        multimodal_cfg, text_cfg, vision_cfg: tower configs, as dataclasses or dicts with the same keys.
        quick_gelu: x sigmoid(1.702 x) instead of the exact GELU, in all three towers.
        init_logit_scale, init_logit_bias: start of the contrastive temperature's logarithm and of its bias (None: no
            bias); shape () or, with nonscalar_logit_scale, (1,).
        cast_dtype: float32, float16 or bfloat16 (a name or MindSpore type) for weights and activations; norms, softmax
            and logits stay in float32.
        pad_id: padding of generated captions; the text tower's mask has its own, text_cfg.pad_id.
        temporal_frames: frames of a video that get a learned embedding each (fusion `pool`); not in open_clip.
    Raises:
        InputError: a config that cannot be built, naming the key.
    """

    family = "coca"
    text_reads_all = True
    config: ModelConfig
    visual: VisionTransformer
    text: TextTransformer
    text_decoder: MultimodalTransformer
    block_names = ("resblocks", "cross_attn")
    input_names = frozenset(
        ("conv1", "class_embedding", "positional_embedding", "ln_pre", "token_embedding", "cls_emb")
    )

    @names_arguments
    def __init__(
        self,
        embed_dim: int,
        multimodal_cfg: MultimodalCfg | Mapping,
        text_cfg: CLIPTextCfg | Mapping,
        vision_cfg: CLIPVisionCfg | Mapping,
        quick_gelu: bool = False,
        init_logit_scale: float = math.log(1 / 0.07),
        init_logit_bias: float | None = None,
        nonscalar_logit_scale: bool = False,
        cast_dtype: Dtype | ms.Type | None = None,
        pad_id: int = 0,
        temporal_frames: int = 0,
    ) -> None:
        super().__init__()
        multimodal = _own(MultimodalCfg, multimodal_cfg, "multimodal_cfg")
        text, vision = _own(CLIPTextCfg, text_cfg, "text_cfg"), _own(CLIPVisionCfg, vision_cfg, "vision_cfg")
        if isinstance(cast_dtype, ms.Type):
            cast_dtype = cast(Dtype, str(cast_dtype).lower())  # others are refused below
        self.config = ModelConfig(
            embed_dim=embed_dim,
            multimodal_cfg=multimodal,
            text_cfg=text,
            vision_cfg=vision,
            quick_gelu=quick_gelu,
            init_logit_scale=float(init_logit_scale),
            init_logit_bias=init_logit_bias,
            nonscalar_logit_scale=nonscalar_logit_scale,
            cast_dtype=cast_dtype,
            pad_id=pad_id,
            temporal_frames=temporal_frames,
        )
        self.config.check("CoCa")
        dtype = device.compute_dtype(cast_dtype)
        self.text = TextTransformer(text, embed_dim, quick_gelu, dtype)
        self.visual = VisionTransformer(vision, embed_dim, quick_gelu, dtype)
        self.text_decoder = MultimodalTransformer(multimodal, text.vocab_size, quick_gelu, dtype)
        shape = (1,) if nonscalar_logit_scale else ()
        self.logit_scale = new_parameter(Constant(init_logit_scale), shape, ms.float32, "logit_scale")
        self.logit_bias = None
        if init_logit_bias is not None:
            self.logit_bias = new_parameter(Constant(init_logit_bias), shape, ms.float32, "logit_bias")
        self.pad_id = pad_id
        self.context_length = multimodal.context_length
        self.set_train(False)
        if temporal_frames:
            self.visual.add_temporal_embedding(temporal_frames)
        self.tag(self.config)

    @names_arguments
    def __call__(
        self,
        image: Tensor | np.ndarray | None,
        text: Tensor | np.ndarray | None = None,
        image_latent: Tensor | np.ndarray | None = None,
        image_embs: Tensor | np.ndarray | None = None,
        output_labels: bool = True,
    ) -> dict[str, Tensor]:
        """Run the model on images (B, 3, H, W) and ids (B, T); see `construct`. Takes tensors or arrays."""
        if image is None and (image_latent is None or image_embs is None):
            raise InputError("image: give an image, or both image_latent and image_embs")
        image = None if image is None else self.check_images(image)
        image_latent, image_embs = (None if x is None else as_tensor(x) for x in (image_latent, image_embs))
        text = None if text is None else self.check_text(text, output_labels)
        return super().__call__(image, text, image_latent, image_embs, output_labels)

    def construct(
        self,
        image: Tensor | None,
        text: Tensor | None = None,
        image_latent: Tensor | None = None,
        image_embs: Tensor | None = None,
        output_labels: bool = True,
    ) -> dict[str, Tensor]:
        """Source: open_clip.coca_model.CoCa.forward.

        Returns:
            image_features (B, embed_dim), text_features (B, embed_dim), logits (B, T - 1, V) in float32 with labels
            (B, T - 1), the text shifted by one, or logits (B, T, V) alone when output_labels is False; logit_scale
            (exponentiated) and logit_bias where there is one. Without text: image_features and image_embs.
        """
        if image_latent is None or image_embs is None:
            image_latent, image_embs = self.visual(image)
            image_latent = normalize(image_latent)
        if text is None:
            return {"image_features": image_latent, "image_embs": image_embs}
        text_latent, token_embs = self.text(text)
        if output_labels:
            token_embs = token_embs[:, :-1]  # position t predicts token t + 1
        output = {
            "image_features": image_latent,
            "text_features": normalize(text_latent),
            "logits": self.text_decoder(image_embs, token_embs),
            "logit_scale": ops.exp(self.logit_scale),
        }
        if output_labels:
            output["labels"] = text[:, 1:]
        if self.logit_bias is not None:
            output["logit_bias"] = self.logit_bias + 0.0  # a graph returns values, not parameters
        return output

    @property
    def pools_frames(self) -> bool:
        """Whether a pooler can read several frames' tokens at once."""
        return bool(self.config.vision_cfg.attentional_pool)

    def check_text(self, text: Tensor | np.ndarray, output_labels: bool = False) -> Tensor:
        text = super().check_text(text)
        limit = min(self.text.context_length, self.context_length + int(output_labels))
        if text.shape[1] > limit:
            raise InputError(f"text: must have shape (B, T) with T up to {limit}, got {tuple(text.shape)}; shorten it")
        return text

    def outputs(self, image: np.ndarray, text: np.ndarray) -> dict[str, Tensor]:
        return self(image, text)

    def decode_cells(self) -> DecodeCells:
        text, multimodal = self.config.text_cfg, self.config.multimodal_cfg
        heads = [(cfg.heads, cfg.width // cfg.heads) for cfg in (text, multimodal) for _ in range(cfg.layers)]
        return DecodeCells(CrossProjection(self), PromptPass(self), TokenStep(self, WriteInPlace()), heads)

    def export_graphs(self, batch_size: int, beams: int, cache_length: int) -> Graphs:
        return export_graphs(self, batch_size, beams, cache_length)

    def add_temporal_embedding(self, frames: int) -> None:
        self.config.temporal_frames = frames
        self.config.check("CoCa")
        self.visual.add_temporal_embedding(frames)
        self.tag(self.config)

    def recomputed_cells(self) -> Iterable[nn.Cell]:
        towers = (self.visual.transformer, self.text.transformer, self.text_decoder)
        return [*(block for tower in towers for block in tower.resblocks), *self.text_decoder.cross_attn]

    def unused_parameters(self, caption_weight: float, contrastive_weight: float) -> list[str]:
        text, vision = self.config.text_cfg, self.config.vision_cfg
        patterns = []
        if not contrastive_weight:
            patterns = ["logit_scale", "logit_bias", "visual.proj", "visual.attn_pool_contrastive.*", "text.cls_emb"]
            patterns += ["text.text_projection*"] + ["text.ln_final.*"] * text.embed_cls
            if not vision.attentional_pool and vision.final_ln_after_pool:
                patterns.append("visual.ln_post.*")
        if not caption_weight:
            patterns = ["text_decoder.*"] + ["visual.attn_pool.*"] * (vision.attentional_pool == "parallel")
        return patterns

    def head_widths(self, reads_text: bool) -> tuple[int, int]:
        config = self.config
        return config.embed_dim, config.multimodal_cfg.width if reads_text else config.vision_cfg.width

    @property
    def pooler_heads(self) -> int:
        return self.config.vision_cfg.attn_pooler_heads

    def unread_by_head(self, reads_text: bool) -> list[str]:
        if reads_text:
            unused = self.unused_parameters(caption_weight=1.0, contrastive_weight=0.0)
            return [*unused, "visual.temporal_embedding", "text_decoder.text_projection"]
        own = ["visual.attn_pool*", "visual.ln_post.*", "visual.proj", "visual.temporal_embedding"]
        return [*own, "text.*", "text_decoder.*", "logit_scale", "logit_bias"]
