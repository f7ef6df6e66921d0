"""The multimodal text decoder: self-attention over the text, cross-attention to the image, logits."""

import mindspore as ms
from mindspore import Tensor, nn
from mindspore.common.initializer import Normal

from mindone_coca.model.blocks import CrossAttentionBlock, ResidualAttentionBlock
from mindone_coca.model.layers import LayerNorm, new_parameter
from mindone_coca.model.open_clip.config import MultimodalCfg
from mindone_coca.model.open_clip.text import causal_mask
from mindone_coca.tensors import cast, times_matrix


class MultimodalTransformer(nn.Cell):
    """Multimodal decoder (paper section 3.1). Source: open_clip.transformer.MultimodalTransformer.

    `construct` maps image tokens (B, K, D) and text embeddings (B, T, D) to float32 logits (B, T, vocab_size). There is
    no padding mask here. The projection is kept and computed in float32, so that ties do not decide a caption.
    """

    def __init__(
        self, cfg: MultimodalCfg, vocab_size: int, quick_gelu: bool = False, dtype: ms.Type = ms.float32
    ) -> None:
        super().__init__()
        self.width = width = cfg.width
        self.context_length = cfg.context_length
        options = {"ls_init_value": cfg.ls_init_value, "quick_gelu": quick_gelu, "dtype": dtype, "depth": cfg.layers}
        blocks = [ResidualAttentionBlock(width, cfg.heads, **options) for _ in range(cfg.layers)]
        cross_blocks = [CrossAttentionBlock(width, cfg.heads, **options) for _ in range(cfg.layers)]
        self.resblocks = nn.CellList(blocks)
        self.cross_attn = nn.CellList(cross_blocks)
        self.ln_final = LayerNorm(width)
        self.text_projection = new_parameter(Normal(width**-0.5), (width, vocab_size), ms.float32, "text_projection")
        self.causal_mask = causal_mask(cfg.context_length)

    def normalise(self, x: Tensor) -> Tensor:
        """The decoder's output as its projection reads it, float32: (..., D) -> (..., D)."""
        return self.ln_final(cast(x, ms.float32))

    def projection(self) -> Tensor:
        """What `hidden` is multiplied by to become logits, (D, vocab_size), float32."""
        return cast(self.text_projection, ms.float32)

    def logits(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., vocab_size), float32."""
        return times_matrix(self.normalise(x), self.projection())

    def run_blocks(self, image_embs: Tensor, text_embs: Tensor) -> Tensor:
        """Image tokens (B, K, D) and text embeddings (B, T, D) -> the last block's output (B, T, D)."""
        length = text_embs.shape[1]
        mask = self.causal_mask[:length, :length][None, None]  # (1, 1, T, T)
        x = text_embs
        for block, cross_block in zip(self.resblocks, self.cross_attn):
            x = cross_block(block(x, mask), image_embs)  # (B, T, D)
        return x

    def hidden(self, image_embs: Tensor, text_embs: Tensor) -> Tensor:
        """Image tokens (B, K, D) and text embeddings (B, T, D) -> fused embeddings (B, T, D), float32."""
        return self.normalise(self.run_blocks(image_embs, text_embs))

    def construct(self, image_embs: Tensor, text_embs: Tensor) -> Tensor:
        return self.logits(self.run_blocks(image_embs, text_embs))
