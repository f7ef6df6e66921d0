"""The unimodal text tower: token embeddings, an appended class token, open_clip's legacy padding mask."""

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.common.initializer import Normal, Zero

from mindone_coca import kernels
from mindone_coca.model.blocks import Transformer
from mindone_coca.model.layers import MASKED, LayerNorm, Linear, new_parameter
from mindone_coca.model.open_clip.config import CLIPTextCfg
from mindone_coca.tensors import cast, times_matrix


class TokenEmbedding(nn.Cell):
    """Ids (B, T) -> rows of the table (B, T, D)."""

    def __init__(self, vocab_size: int, width: int, dtype: ms.Type) -> None:
        super().__init__()
        self.embedding_table = new_parameter(Normal(0.02), (vocab_size, width), dtype, "embedding_table")
        self.take_rows = kernels.take_rows()

    def construct(self, ids: Tensor) -> Tensor:
        return self.take_rows(self.embedding_table, ids)


def causal_mask(length: int) -> Tensor:
    """Additive (length, length) mask that hides every later key."""
    return Tensor(np.triu(np.full((length, length), MASKED, np.float32), 1))


class TextTransformer(nn.Cell):
    """Unimodal decoder (paper section 3.1). Source: open_clip.transformer.TextTransformer.

    `construct` maps ids (B, T), T up to `context_length`, to a feature (B, embed_dim), not normalised, and the token
    embeddings (B, T, width) that the multimodal decoder reads.
    """

    def __init__(self, cfg: CLIPTextCfg, embed_dim: int, quick_gelu: bool = False, dtype: ms.Type = ms.float32) -> None:
        super().__init__()
        width = cfg.width
        self.dtype = dtype
        self.context_length = cfg.context_length
        self.vocab_size = cfg.vocab_size
        self.pad_id = cfg.pad_id
        self.eos_id = cfg.eos_id
        self.embed_cls = cfg.embed_cls
        self.causal = not cfg.no_causal_mask
        self.pool_type = cfg.pool_type
        positions = cfg.context_length + int(cfg.embed_cls)
        self.token_embedding = TokenEmbedding(cfg.vocab_size, width, dtype)
        if cfg.embed_cls:
            self.cls_emb = new_parameter(Normal(0.01), (width,), dtype, "cls_emb")
        self.positional_embedding = new_parameter(Normal(0.01), (positions, width), dtype, "positional_embedding")
        self.transformer = Transformer(
            width,
            cfg.layers,
            cfg.heads,
            mlp_ratio=cfg.mlp_ratio,
            ls_init_value=cfg.ls_init_value,
            quick_gelu=quick_gelu,
            dtype=dtype,
            depth=cfg.layers,
        )
        self.ln_final = LayerNorm(width)
        self.proj_bias = cfg.proj_bias
        self.has_projection = cfg.proj_type != "none"
        if self.has_projection and cfg.proj_bias:
            self.text_projection = Linear(width, embed_dim, dtype, Normal(width**-0.5), Zero())
        elif self.has_projection:
            self.text_projection = new_parameter(Normal(width**-0.5), (width, embed_dim), dtype, "text_projection")
        self.causal_mask = causal_mask(positions)
        self.add_to_each = kernels.add_to_each()

    def key_mask(self, text: Tensor) -> Tensor:
        """The padding mask of the published weights, text (B, T) -> (B, 1, 1, T + 1).

        It is one position off, and must stay so: key 0 is always visible, key j only if token j - 1 is not padding.
        """
        # with a tensor, as an exported graph wants it: MindSpore Lite lists no comparison with a number
        hidden = ops.mul(cast(ops.equal(text, Tensor(self.pad_id, ms.int32)), ms.float32), MASKED)  # (B, T)
        first = ops.zeros((text.shape[0], 1), ms.float32)
        return ops.concat((first, hidden), 1)[:, None, None, :]

    def embed(self, text: Tensor) -> Tensor:
        """Ids (B, T) -> embeddings without positions (B, T, D)."""
        return cast(self.token_embedding(text), self.dtype)

    def pool(self, x: Tensor, text: Tensor) -> Tensor:
        """Pick each caption's feature out of x (B, T, D) -> (B, D). Source: open_clip.transformer.text_global_pool."""
        if self.pool_type == "first":
            return x[:, 0]
        if self.pool_type == "last":
            return x[:, -1]
        # argmax is the highest id, which is CLIP's end token; eos the first eos_id (position 0 if there is none)
        rank = text if self.pool_type == "argmax" else ops.equal(text, Tensor(self.eos_id, ms.int32))
        index = ops.argmax(rank.astype(ms.float32), 1)  # (B,)
        picked = (ops.arange(0, text.shape[1], 1)[None] == index[:, None]).astype(x.dtype)  # (B, T)
        return ops.BatchMatMul()(picked[:, None], x)[:, 0]

    def project(self, pooled: Tensor) -> Tensor:
        """(B, D) -> (B, embed_dim)."""
        if not self.has_projection:
            return pooled
        if self.proj_bias:
            return self.text_projection(pooled)
        return times_matrix(pooled, cast(self.text_projection, pooled.dtype))

    def construct(self, text: Tensor) -> tuple[Tensor, Tensor]:
        x = self.embed(text)  # (B, T, D)
        mask = None
        if self.embed_cls:
            cls = ops.tile(cast(self.cls_emb, x.dtype).reshape(1, 1, -1), (x.shape[0], 1, 1))
            x = ops.concat((x, cls), 1)  # (B, T + 1, D)
            mask = self.key_mask(text)
        length = x.shape[1]
        if self.causal:
            causal = self.causal_mask[:length, :length][None, None]
            mask = causal if mask is None else ops.minimum(causal, mask)  # (B or 1, 1, length, length)
        x = self.transformer(self.add_to_each(x, cast(self.positional_embedding[:length], x.dtype)), mask)
        if self.embed_cls:
            return self.project(self.ln_final(x[:, -1])), x[:, :-1]
        x = self.ln_final(x)
        return self.project(self.pool(x, text)), x
