"""The towers of coca-pytorch's CoCa: image encoder with its pooler, unimodal layers, multimodal layers."""

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.common.initializer import Normal

from mindone_coca import kernels
from mindone_coca.model.coca_pytorch.layers import CrossAttention, GainNorm, ParallelBlock, Projection, future_mask
from mindone_coca.model.layers import MASKED, new_parameter


class ImageTower(nn.Cell):
    """The image encoder and the pooler: n + 1 learned queries, the first for contrast, the others for the decoder.

    `construct` maps images to a feature (B, dim_latents), not normalised, and decoder tokens (B, n, dim).
    """

    img_encoder: nn.Cell  # None in a model that is given tokens alone, and then not called

    def __init__(
        self,
        img_encoder: nn.Cell | None,
        dim: int,
        image_dim: int,
        dim_latents: int,
        num_img_queries: int,
        dim_head: int,
        heads: int,
        dtype: ms.Type,
    ) -> None:
        super().__init__()
        self.dtype = dtype
        self.image_hw, self.feature_width = getattr(img_encoder, "image_hw", None), dim_latents
        self.img_encoder = img_encoder
        self.img_queries = new_parameter(Normal(1.0), (num_img_queries + 1, dim), dtype, "img_queries")
        self.img_attn_pool = CrossAttention(dim, image_dim, dim_head, heads, dtype, norm_context=True)
        self.img_attn_pool_norm = GainNorm(dim)
        self.img_to_latents = Projection(dim, dim_latents, dtype)

    def compute_in(self, dtype: ms.Type) -> None:
        for _, cell in self.cells_and_names():
            if hasattr(cell, "dtype"):
                cell.dtype = dtype

    def patch_tokens(self, images: Tensor) -> Tensor:
        """Images -> the encoder's tokens (B, N, image_dim)."""
        tokens = self.img_encoder(images)
        if isinstance(tokens, tuple):  # our VisionTransformer: a feature, then the tokens
            tokens = tokens[-1]
        return tokens

    def video_tokens(self, frames: Tensor) -> Tensor:
        """Frames of videos (B, F, 3, H, W) -> the tokens of all of them (B, F N, image_dim)."""
        tokens = self.patch_tokens(frames.reshape(-1, *frames.shape[2:]))
        return tokens.reshape(frames.shape[0], -1, tokens.shape[-1])

    def embed(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The encoder's tokens (B, N, image_dim) -> embedding (B, dim) and decoder tokens (B, n, dim)."""
        tokens = tokens.astype(self.dtype)
        queries = ops.tile(self.img_queries.astype(self.dtype)[None], (tokens.shape[0], 1, 1))
        pooled = self.img_attn_pool_norm(self.img_attn_pool(queries, tokens))
        return pooled[:, 0], pooled[:, 1:]

    def pool(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The encoder's tokens (B, N, image_dim) -> feature (B, dim_latents) and decoder tokens (B, n, dim)."""
        embedding, tokens = self.embed(tokens)
        return self.img_to_latents(embedding), tokens

    def construct(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.pool(self.patch_tokens(images))


class TokenTable(nn.Cell):
    """The token embeddings, which are the output projection too, so they are kept in float32."""

    def __init__(self, num_tokens: int, dim: int) -> None:
        super().__init__()
        self.weight = new_parameter(Normal(0.02), (num_tokens, dim), ms.float32, "weight")
        self.take_rows = kernels.take_rows()

    def construct(self, ids: Tensor) -> Tensor:
        return self.take_rows(self.weight, ids)


class TextTower(nn.Cell):
    """The unimodal layers: causal over the tokens, then a class token that sees all of them but padding.

    `construct` maps ids (B, T) to a feature (B, dim_latents), not normalised, and token embeddings (B, T, dim).
    """

    def __init__(
        self,
        num_tokens: int,
        dim: int,
        depth: int,
        dim_latents: int,
        dim_head: int,
        heads: int,
        ff_mult: int,
        pad_id: int,
        context_length: int,
        dtype: ms.Type,
    ) -> None:
        super().__init__()
        self.dtype, self.pad_id, self.vocab_size, self.context_length = dtype, pad_id, num_tokens, context_length
        self.causal = True
        self.token_emb = TokenTable(num_tokens, dim)
        self.text_cls_token = new_parameter(Normal(1.0), (dim,), dtype, "text_cls_token")
        self.unimodal_layers = nn.CellList([ParallelBlock(dim, dim_head, heads, ff_mult, dtype) for _ in range(depth)])
        self.text_cls_norm = GainNorm(dim)
        self.text_to_latents = Projection(dim, dim_latents, dtype)

    def mask(self, text: Tensor) -> Tensor:
        """Additive (B, T + 1, T + 1): causal, and padding hidden from the class token alone."""
        count = text.shape[1]
        hidden = (text == self.pad_id).astype(ms.float32) * MASKED  # (B, T)
        hidden = ops.concat((hidden, ops.zeros((text.shape[0], 1), ms.float32)), 1)
        is_class = (ops.arange(0, count + 1, 1) == count).astype(ms.float32)[:, None]
        return future_mask(count + 1) + hidden[:, None] * is_class

    def embed(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Ids (B, T) -> embedding (B, dim) and token embeddings (B, T, dim)."""
        x = self.token_emb(text).astype(self.dtype)
        class_token = ops.tile(self.text_cls_token.astype(x.dtype)[None, None], (x.shape[0], 1, 1))
        x = ops.concat((x, class_token), 1)  # (B, T + 1, dim)
        mask = self.mask(text)
        for layer in self.unimodal_layers:
            x = layer(x, mask)
        return self.text_cls_norm(x[:, -1]), x[:, :-1]

    def construct(self, text: Tensor) -> tuple[Tensor, Tensor]:
        embedding, tokens = self.embed(text)
        return self.text_to_latents(embedding), tokens


class MultimodalLayer(nn.Cell):
    """Causal self-attention over the text, then cross-attention to the image, each with a feedforward beside it."""

    def __init__(self, dim: int, dim_head: int, heads: int, ff_mult: int, dtype: ms.Type) -> None:
        super().__init__()
        self.self_attn = ParallelBlock(dim, dim_head, heads, ff_mult, dtype)
        self.cross_attn = CrossAttention(dim, dim, dim_head, heads, dtype, ff_mult)

    def construct(self, x: Tensor, image_tokens: Tensor, mask: Tensor) -> Tensor:
        x = self.self_attn(x, mask)
        return x + self.cross_attn(x, image_tokens)


class ParallelDecoder(nn.Cell):
    """The multimodal layers and the logits: image tokens (B, K, dim), embeddings (B, T, dim) -> (B, T, V), float32."""

    def __init__(self, dim: int, depth: int, dim_head: int, heads: int, ff_mult: int, dtype: ms.Type) -> None:
        super().__init__()
        self.width = dim
        layers = [MultimodalLayer(dim, dim_head, heads, ff_mult, dtype) for _ in range(depth)]
        self.multimodal_layers = nn.CellList(layers)
        self.norm = GainNorm(dim)
        self.linear = kernels.linear()

    def normalise(self, x: Tensor) -> Tensor:
        """The decoder's output as its projection reads it, float32: (..., dim) -> (..., dim)."""
        return self.norm(x.astype(ms.float32))

    def projection(self) -> Tensor:
        """What `hidden` is multiplied by to become logits, (dim, V): the token embeddings."""
        return self.token_table.astype(ms.float32).swapaxes(0, 1)

    def logits(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., V) by the token embeddings, float32."""
        return self.linear(self.normalise(x), self.token_table.astype(ms.float32))

    def run_layers(self, image_tokens: Tensor, text_tokens: Tensor) -> Tensor:
        """Image tokens (B, K, dim) and text embeddings (B, T, dim) -> the last layer's output (B, T, dim)."""
        x, mask = text_tokens, future_mask(text_tokens.shape[1])
        for layer in self.multimodal_layers:
            x = layer(x, image_tokens, mask)
        return x

    def hidden(self, image_tokens: Tensor, text_tokens: Tensor) -> Tensor:
        """Image tokens (B, K, dim) and text embeddings (B, T, dim) -> fused embeddings (B, T, dim), float32."""
        return self.normalise(self.run_layers(image_tokens, text_tokens))

    def construct(self, image_tokens: Tensor, text_tokens: Tensor) -> Tensor:
        return self.logits(self.run_layers(image_tokens, text_tokens))
