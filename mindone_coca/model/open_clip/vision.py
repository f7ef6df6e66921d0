"""The image tower: a ViT with open_clip's pooling variants."""

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import HeUniform, Normal, Zero

from mindone_coca import kernels
from mindone_coca.model.attention import AttentionalPooler
from mindone_coca.model.blocks import Transformer
from mindone_coca.model.layers import LayerNorm, new_parameter
from mindone_coca.model.open_clip.config import CLIPVisionCfg
from mindone_coca.tensors import cast, interpolation, times_matrix


class PatchEmbedding(nn.Cell):
    """Images (B, 3, H, W) -> patch embeddings (B, patches, width): a convolution whose stride is its kernel.

    Computed as one matrix product over the cut-out patches, which on the CPU is many times as fast as the convolution.
    """

    def __init__(self, width: int, patch_hw: tuple[int, int], grid_hw: tuple[int, int], dtype: ms.Type) -> None:
        super().__init__()
        self.patch_hw = patch_hw
        self.grid_hw = grid_hw
        self.weight = new_parameter(HeUniform(5**0.5), (width, 3, *patch_hw), dtype, "weight")
        self.linear = kernels.linear()

    def construct(self, images: Tensor) -> Tensor:
        (patch_h, patch_w), (rows, columns) = self.patch_hw, self.grid_hw
        x = images[:, :, : rows * patch_h, : columns * patch_w]  # what does not fill a patch is left out
        x = x.reshape(-1, 3, rows, patch_h, columns, patch_w).transpose(0, 2, 4, 1, 3, 5)
        x = x.reshape(-1, rows * columns, 3 * patch_h * patch_w)  # (B, patches, 3 * patch_h * patch_w)
        return self.linear(x, cast(self.weight.reshape(self.weight.shape[0], -1), x.dtype))


def sin_cos_2d(side: int, width: int) -> np.ndarray:
    """Fixed embeddings (1 + side * side, width): zeros for the class token, then a wave of each patch's column in the
    first half and of its row in the second. Source: open_clip.pos_embed.get_2d_sincos_pos_embed."""
    frequencies = 10000.0 ** (-np.arange(width // 4) / (width / 4))
    angles = np.outer(np.arange(side), frequencies)
    waves = np.concatenate((np.sin(angles), np.cos(angles)), 1)  # (side, width / 2)
    patches = np.concatenate((np.tile(waves, (side, 1)), np.repeat(waves, side, 0)), 1)  # (side * side, width)
    return np.concatenate((np.zeros((1, width)), patches)).astype(np.float32)


class VisionTransformer(nn.Cell):
    """ViT image encoder with attentional poolers. Source: open_clip.transformer.VisionTransformer.

    `construct` maps images (B, 3, H, W) to a feature (B, embed_dim), not normalised, and the tokens for the decoder:
    (B, queries - 1, embed_dim) with `attentional_pool: true`, (B, queries, embed_dim) with `parallel` or `cascade`,
    (B, patches, width) without a pooler.
    """

    def __init__(
        self, cfg: CLIPVisionCfg, embed_dim: int, quick_gelu: bool = False, dtype: ms.Type = ms.float32
    ) -> None:
        super().__init__()
        width, scale = cfg.width, cfg.width**-0.5
        rows, columns = cfg.grid_hw
        self.dtype = dtype
        self.image_hw, self.feature_width = cfg.image_hw, embed_dim
        self.conv1 = PatchEmbedding(width, cfg.patch_hw, cfg.grid_hw, dtype)
        self.class_embedding = new_parameter(Normal(scale), (width,), dtype, "class_embedding")
        if cfg.pos_embed_type == "sin_cos_2d":
            table = Tensor(sin_cos_2d(rows, width), dtype)
            self.positional_embedding = Parameter(table, name="positional_embedding", requires_grad=False)
        else:
            self.positional_embedding = new_parameter(
                Normal(scale), (rows * columns + 1, width), dtype, "positional_embedding"
            )
        self.add_to_each = kernels.add_to_each()
        self.ln_pre = nn.Identity() if cfg.no_ln_pre else LayerNorm(width)
        self.transformer = Transformer(
            width,
            cfg.layers,
            cfg.heads,
            mlp_ratio=cfg.mlp_ratio,
            ls_init_value=cfg.ls_init_value,
            quick_gelu=quick_gelu,
            dtype=dtype,
        )

        self.attentional_pool = cfg.attentional_pool
        self.pool_type = cfg.pool_type
        self.final_ln_after_pool = cfg.final_ln_after_pool
        pool_dim = width
        if cfg.attentional_pool:
            pool_dim = embed_dim
            heads, queries = cfg.attn_pooler_heads, cfg.attn_pooler_queries
            self.attn_pool = AttentionalPooler(embed_dim, width, heads, queries, dtype)
            if isinstance(cfg.attentional_pool, str):
                self.attn_pool_contrastive = AttentionalPooler(embed_dim, width, heads, 1, dtype)
        self.ln_post = LayerNorm(pool_dim)
        self.temporal_embedding = None
        self.proj = new_parameter(Normal(scale), (pool_dim, embed_dim), dtype, "proj")

    def patch_tokens(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> class and patch tokens before any pooling (B, 1 + patches, width)."""
        x = self.conv1(cast(images, self.dtype))  # (B, patches, width)
        class_token = ops.tile(cast(self.class_embedding, x.dtype).reshape(1, 1, -1), (x.shape[0], 1, 1))
        x = ops.concat((class_token, x), 1)  # (B, 1 + patches, width)
        x = self.ln_pre(self.add_to_each(x, cast(self.positional_embedding, x.dtype)))
        return self.transformer(x)

    def add_temporal_embedding(self, frames: int) -> None:
        """See `CoCa.add_temporal_embedding`."""
        shape, dtype = (frames, self.class_embedding.shape[0]), self.class_embedding.dtype
        self.temporal_embedding = new_parameter(Zero(), shape, dtype, "visual.temporal_embedding")

    def video_tokens(self, frames: Tensor) -> Tensor:
        """Frames of videos (B, F, 3, H, W) -> the tokens of all of them (B, F (1 + patches), width).

        With another number of frames than was trained, the temporal embeddings are interpolated over the video.
        """
        batch, count = frames.shape[:2]
        x = self.patch_tokens(frames.reshape(-1, *frames.shape[2:]))  # (B F, 1 + patches, width)
        x = x.reshape(batch, count, x.shape[1], x.shape[2])
        if self.temporal_embedding is not None:
            places = interpolation(count, self.temporal_embedding.shape[0])  # (F, trained frames)
            added = ops.matmul(places, self.temporal_embedding.astype(ms.float32))  # (F, width)
            x = self.add_to_each(x, ops.tile(added.astype(x.dtype)[:, None], (1, x.shape[2], 1)))
        return x.reshape(batch, -1, x.shape[-1])

    def pool(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, K, width) -> feature (B, embed_dim) and the tokens for the decoder."""
        if self.attentional_pool == "parallel" or self.attentional_pool == "cascade":
            x = self.ln_post(x)
            tokens = self.attn_pool(x)
            pooled = self.attn_pool_contrastive(x if self.attentional_pool == "parallel" else tokens)[:, 0]
        else:
            if self.attentional_pool:
                x = self.ln_post(self.attn_pool(x))
            elif not self.final_ln_after_pool:
                x = self.ln_post(x)
            tokens = x[:, 1:]
            pooled = tokens.mean(axis=1) if self.pool_type == "avg" else x[:, 0]
            if not self.attentional_pool and self.final_ln_after_pool:
                pooled = self.ln_post(pooled)
        return times_matrix(pooled, cast(self.proj, pooled.dtype)), tokens

    def construct(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.pool(self.patch_tokens(images))
