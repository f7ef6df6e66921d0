"""vit-pytorch's vision transformers as image encoders of coca-pytorch's CoCa."""

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.common.initializer import Normal

from mindone_coca import kernels
from mindone_coca.model.attention import merge_heads, split_thirds
from mindone_coca.model.coca_pytorch.config import ViTCfg
from mindone_coca.model.coca_pytorch.layers import Projection
from mindone_coca.model.layers import LayerNorm, Linear, activation, new_parameter


def sincos_positions(rows: int, columns: int, dim: int) -> np.ndarray:
    """Fixed position embeddings (rows * columns, dim). Source: vit_pytorch.simple_vit.posemb_sincos_2d."""
    omega = np.arange(dim // 4, dtype=np.float32) / np.float32(dim // 4 - 1)
    omega = (1 / 10000**omega).astype(np.float32)
    y, x = (axis.reshape(-1, 1) * omega for axis in np.mgrid[:rows, :columns].astype(np.float32))
    return np.concatenate((np.sin(x), np.cos(x), np.sin(y), np.cos(y)), 1)


class Attention(nn.Cell):
    """Pre-norm attention. Source: vit_pytorch.vit.Attention; that of simple_vit has no bias at its output."""

    def __init__(self, cfg: ViTCfg, dtype: ms.Type) -> None:
        super().__init__()
        inner = cfg.heads * cfg.dim_head
        self.norm = LayerNorm(cfg.dim)
        self.heads, self.attend, self.swap = cfg.heads, kernels.attention(), kernels.swap_middle()
        self.to_qkv = Projection(cfg.dim, 3 * inner, dtype)
        if cfg.type == "simple_vit":
            self.to_out = Projection(inner, cfg.dim, dtype)
        else:
            self.to_out = nn.SequentialCell([Linear(inner, cfg.dim, dtype)] if cfg.projects_out else [nn.Identity()])

    def construct(self, x: Tensor) -> Tensor:
        query, key, value = split_thirds(self.swap, self.to_qkv(self.norm(x)), self.heads)  # each (B, H, N, d)
        return self.to_out(merge_heads(self.swap, self.attend(query, key, value)))


class FeedForward(nn.Cell):
    """Pre-norm feedforward. Source: vit_pytorch.vit.FeedForward; that of simple_vit has no dropout, so it counts its
    parts otherwise."""

    def __init__(self, cfg: ViTCfg, dtype: ms.Type) -> None:
        super().__init__()
        parts = [LayerNorm(cfg.dim), Linear(cfg.dim, cfg.mlp_dim, dtype)]
        without_weights = [nn.Identity() for _ in range(2 if cfg.type == "vit" else 1)]
        self.net = nn.CellList([*parts, *without_weights, Linear(cfg.mlp_dim, cfg.dim, dtype)])
        self.activation = activation(quick_gelu=False)

    def construct(self, x: Tensor) -> Tensor:
        return self.net[-1](self.activation(self.net[1](self.net[0](x))))


class Layer(nn.SequentialCell):
    """Attention and feedforward, each with a residual: what is recomputed as a whole."""

    def construct(self, x: Tensor) -> Tensor:
        attention, feedforward = self.cell_list
        x = attention(x) + x
        return feedforward(x) + x


class Transformer(nn.Cell):
    """Source: vit_pytorch.vit.Transformer."""

    def __init__(self, cfg: ViTCfg, dtype: ms.Type) -> None:
        super().__init__()
        self.layers = nn.CellList([Layer([Attention(cfg, dtype), FeedForward(cfg, dtype)]) for _ in range(cfg.depth)])
        self.norm = LayerNorm(cfg.dim)

    def construct(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)


class ViT(nn.Cell):
    """Images (B, 3, H, W) -> the transformer's tokens (B, N, dim), in `vit` the class token first.

    Source: vit_pytorch.vit.ViT and vit_pytorch.simple_vit.SimpleViT up to the output that Extractor takes. The
    classifier (`num_classes`) is only carried along for conversion; there is no dropout of any kind.
    """

    def __init__(self, cfg: ViTCfg, dtype: ms.Type = ms.float32) -> None:
        super().__init__()
        self.dtype = dtype
        self.image_hw, self.patch_hw, self.grid_hw = cfg.image_hw, cfg.patch_hw, cfg.grid_hw
        patch_dim = 3 * self.patch_hw[0] * self.patch_hw[1]
        self.to_patch_embedding = nn.SequentialCell(
            [nn.Identity(), LayerNorm(patch_dim), Linear(patch_dim, cfg.dim, dtype), LayerNorm(cfg.dim)]
        )
        self.learned = cfg.type == "vit"
        self.has_class_token = cfg.class_tokens > 0
        if self.has_class_token:
            self.cls_token = new_parameter(Normal(1.0), (1, cfg.dim), dtype, "cls_token")
        if self.learned:
            shape = (self.grid_hw[0] * self.grid_hw[1] + cfg.class_tokens, cfg.dim)
            self.pos_embedding = new_parameter(Normal(1.0), shape, dtype, "pos_embedding")
        else:
            self.positions = Tensor(sincos_positions(*self.grid_hw, cfg.dim))
        self.add_to_each = kernels.add_to_each()
        self.transformer = Transformer(cfg, dtype)
        if cfg.num_classes:
            head = Linear(cfg.dim, cfg.num_classes, dtype)
            head.weight.requires_grad = head.bias.requires_grad = False
            if self.learned:
                self.mlp_head = head
            else:
                self.linear_head = head

    def construct(self, images: Tensor) -> Tensor:
        (patch_h, patch_w), (rows, columns) = self.patch_hw, self.grid_hw
        x = images.astype(self.dtype).reshape(-1, 3, rows, patch_h, columns, patch_w).transpose(0, 2, 4, 3, 5, 1)
        x = x.reshape(-1, rows * columns, patch_h * patch_w * 3)  # the channel innermost
        x = self.to_patch_embedding(x)  # (B, patches, dim)
        if self.has_class_token:
            token = ops.tile(self.cls_token.astype(x.dtype)[None], (x.shape[0], 1, 1))
            x = ops.concat((token, x), 1)
        x = self.add_to_each(x, (self.pos_embedding if self.learned else self.positions).astype(x.dtype))
        return self.transformer(x)


class Extractor(nn.Cell):
    """A ViT whose parameters are called `vit.*`, as within vit_pytorch.extractor.Extractor."""

    def __init__(self, vit: ViT) -> None:
        super().__init__()
        self.vit = vit
        self.image_hw = vit.image_hw

    def construct(self, images: Tensor) -> Tensor:
        return self.vit(images)


def build_vit(cfg: ViTCfg, dtype: ms.Type = ms.float32) -> nn.Cell:
    """The image encoder of a config, within Extractor if it says so."""
    return Extractor(ViT(cfg, dtype)) if cfg.extractor else ViT(cfg, dtype)
