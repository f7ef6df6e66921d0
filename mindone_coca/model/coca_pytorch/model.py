"""coca-pytorch's CoCa: any image encoder, one set of learned queries, PaLM's parallel blocks, tied embeddings."""

from collections.abc import Iterable
from uuid import uuid4

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.common.initializer import One

from mindone_coca import device
from mindone_coca.argument_names import names_arguments
from mindone_coca.config import Dtype
from mindone_coca.errors import InputError
from mindone_coca.generation.engine import DecodeCells
from mindone_coca.losses import CaptionLossSums, contrastive_loss, count_labels
from mindone_coca.model.base import ImageTextModel
from mindone_coca.model.blocks import ResidualBlock
from mindone_coca.model.coca_pytorch.config import FAMILY, ParallelConfig
from mindone_coca.model.coca_pytorch.decoding import ParallelCrossProjection, ParallelPromptPass, ParallelTokenStep
from mindone_coca.model.coca_pytorch.layers import CrossAttention, ParallelBlock
from mindone_coca.model.coca_pytorch.towers import ImageTower, ParallelDecoder, TextTower
from mindone_coca.model.coca_pytorch.vit import Layer
from mindone_coca.model.layers import new_parameter
from mindone_coca.tensors import as_tensor, normalize
from mindone_coca.token_ids import id_tensor


class ParallelCoCa(ImageTextModel):
    """CoCa as in coca-pytorch 0.1.0. Source: coca_pytorch.CoCa, whose arguments these are.

    Args:
        dim: width of both decoders. num_tokens: vocabulary. unimodal_depth, multimodal_depth: layers.
        img_encoder: any cell that maps images to tokens (B, N, image_dim), such as `model.vit.ViT`, or to a tuple whose
            last item they are, such as `model.vision.VisionTransformer`; None takes image tokens only. It is moved in:
            its parameters are renamed.
        image_dim: width of its tokens; None is dim. dim_latents: width of the shared image-text space; None is dim.
        num_img_queries: tokens for the decoder; one more query gives the feature.
        dim_head, heads, ff_mult: of all attention and feedforward layers; all heads share one key and value.
        caption_loss_weight, contrastive_loss_weight: of the two terms in `return_loss`.
        pad_id: the padding of texts.
        context_length: positions that `generate` makes room for; the model itself takes texts of any length.
        cast_dtype: float32, float16 or bfloat16 for weights and activations; norms, softmax, rotations, token
            embeddings and logits stay in float32.
        config: what `create_model` built it from, its encoder included.
    Raises:
        InputError: an odd dim_head, or a dtype the device has not.
    """

    family = FAMILY
    text_reads_all = False
    pads_text = True
    pools_frames = True
    config: ParallelConfig
    visual: ImageTower
    text: TextTower
    text_decoder: ParallelDecoder
    block_names = ("resblocks", "layers", "unimodal_layers", "multimodal_layers")
    # not the tied token_emb: it comes last too
    input_names = frozenset(
        (
            *("conv1", "class_embedding", "positional_embedding", "ln_pre"),
            *("to_patch_embedding", "cls_token", "pos_embedding", "text_cls_token"),
        )
    )

    @names_arguments
    def __init__(
        self,
        dim: int,
        num_tokens: int,
        unimodal_depth: int,
        multimodal_depth: int,
        img_encoder: nn.Cell | None = None,
        image_dim: int | None = None,
        dim_latents: int | None = None,
        num_img_queries: int = 256,
        dim_head: int = 64,
        heads: int = 8,
        ff_mult: int = 4,
        caption_loss_weight: float = 1.0,
        contrastive_loss_weight: float = 1.0,
        pad_id: int = 0,
        *,
        context_length: int = 76,
        cast_dtype: Dtype | None = None,
        config: ParallelConfig | None = None,
    ) -> None:
        super().__init__()
        if dim_head % 2:
            raise InputError(f"dim_head: rotary positions need an even number, got {dim_head}")
        dtype = device.compute_dtype(cast_dtype)
        image_dim, dim_latents = image_dim or dim, dim_latents or dim
        self.pad_id, self.context_length, self.image_dim = pad_id, context_length, image_dim
        self.caption_loss_weight, self.contrastive_loss_weight = caption_loss_weight, contrastive_loss_weight
        self.visual = ImageTower(img_encoder, dim, image_dim, dim_latents, num_img_queries, dim_head, heads, dtype)
        self.text = TextTower(
            num_tokens, dim, unimodal_depth, dim_latents, dim_head, heads, ff_mult, pad_id, context_length, dtype
        )
        self.text_decoder = ParallelDecoder(dim, multimodal_depth, dim_head, heads, ff_mult, dtype)
        self.text_decoder.token_table = self.text.token_emb.weight  # one parameter, in both towers
        self.caption_sums = CaptionLossSums(pad_id)
        self.temperature = new_parameter(One(), (1,), ms.float32, "temperature")
        self.logit_bias = None
        if config is not None:
            self.config = config
        # what a foreign encoder computes cannot be known from outside: its graphs are not kept for other models
        self._graph_origin = uuid4().hex if config is None else config
        self.set_train(False)
        self._tag()

    @property
    def logit_scale(self) -> ms.Parameter:
        """The logarithm of the contrastive temperature, (1,)."""
        return self.temperature

    def _tag(self) -> None:
        self.tag(self._graph_origin)

    @names_arguments
    def __call__(
        self,
        text: Tensor | np.ndarray,
        images: Tensor | np.ndarray | None = None,
        image_tokens: Tensor | np.ndarray | None = None,
        labels: Tensor | np.ndarray | None = None,
        return_loss: bool = False,
        return_embeddings: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Run the model on ids (B, T) and images, or an encoder's tokens (B, N, image_dim); see `construct`."""
        if (images is None) == (image_tokens is None):
            raise InputError("images: give either images or image_tokens")
        if images is not None and self.visual.img_encoder is None:
            raise InputError("images: this model has no img_encoder; give image_tokens")
        text = self.check_text(text)
        images = None if images is None else self.check_images(images)
        image_tokens = None if image_tokens is None else as_tensor(image_tokens)
        labels = None if labels is None else id_tensor("labels", labels, self.text.vocab_size)
        if return_loss and not return_embeddings:
            if labels is None and text.shape[1] < 2:
                raise InputError("text: needs two tokens or more for the loss, one to read and one to predict")
            if labels is not None and labels.shape != text.shape:
                raise InputError(f"labels: must have the text's shape {text.shape}, got {labels.shape}")
        return super().__call__(text, images, image_tokens, labels, return_loss, return_embeddings)

    def construct(
        self,
        text: Tensor,
        images: Tensor | None = None,
        image_tokens: Tensor | None = None,
        labels: Tensor | None = None,
        return_loss: bool = False,
        return_embeddings: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Source: coca_pytorch.CoCa.forward.

        Returns:
            logits (B, T, V) in float32; with return_embeddings the embeddings of text and image, each (B, dim), before
            their projections; with return_loss the weighted sum of the caption loss, the mean over labels (B, T) that
            are no padding (0 if all are), and the contrastive loss of this batch. Without labels the text is read
            without its last token and predicted without its first. On several devices this is the loss of the device's
            own batch; `train.py` contrasts with the whole.
        """
        if return_loss and labels is None:
            text, labels = text[:, :-1], text[:, 1:]
        text_embedding, text_tokens = self.text.embed(text)
        if images is not None:
            image_tokens = self.visual.patch_tokens(images)
        image_embedding, image_tokens = self.visual.embed(image_tokens)
        if return_embeddings:
            return text_embedding, image_embedding
        if not return_loss:
            return self.text_decoder(image_tokens, text_tokens)
        hidden = self.text_decoder.hidden(image_tokens, text_tokens)
        count = ops.maximum(count_labels(labels, self.pad_id), 1.0)
        loss_sum = self.caption_sums(hidden, self.text_decoder.projection(), labels)[0]
        loss = self.caption_loss_weight * loss_sum / count
        image_latents = normalize(self.visual.img_to_latents(image_embedding))
        text_latents = normalize(self.text.text_to_latents(text_embedding))
        contrastive = contrastive_loss(image_latents, text_latents, self.temperature.sum())
        return loss + self.contrastive_loss_weight * contrastive

    def decode_cells(self) -> DecodeCells:
        blocks = [*self.text.unimodal_layers, *(layer.self_attn for layer in self.text_decoder.multimodal_layers)]
        heads = [(1, block.dim_head) for block in blocks]
        return DecodeCells(ParallelCrossProjection(self), ParallelPromptPass(self), ParallelTokenStep(self), heads)

    def set_compute_dtype(self, name: Dtype) -> None:
        self.text.dtype = device.compute_dtype(name, training=True)
        self.visual.compute_in(self.text.dtype)
        self._tag()

    def recomputed_cells(self) -> Iterable[nn.Cell]:
        """Blocks and layers; of an image encoder from elsewhere none."""
        kinds = (Layer, ResidualBlock, ParallelBlock, CrossAttention)
        return [cell for _, cell in self.cells_and_names() if isinstance(cell, kinds)]

    def unused_parameters(self, caption_weight: float, contrastive_weight: float) -> list[str]:
        patterns = ["visual.img_encoder.proj"]  # open_clip's tower as an encoder: its feature is not used
        if not contrastive_weight:
            patterns += ["temperature", "*_to_latents.*", "text.text_cls_token", "text.text_cls_norm.*"]
        return patterns + ["text_decoder.*"] * (not caption_weight)

    def head_widths(self, reads_text: bool) -> tuple[int, int]:
        dim = self.text_decoder.width
        return dim, dim if reads_text else self.image_dim

    @property
    def pooler_heads(self) -> int:
        return self.visual.img_attn_pool.heads

    def unread_by_head(self, reads_text: bool) -> list[str]:
        if reads_text:
            return self.unused_parameters(caption_weight=1.0, contrastive_weight=0.0)
        own = ["visual.img_queries", "visual.img_attn_pool*", "visual.img_to_latents*", "visual.img_encoder.proj"]
        return [*own, "visual.img_encoder.vit.*_head.*", "text.*", "text_decoder.*", "temperature"]
