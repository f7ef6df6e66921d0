"""Residual blocks and stacks of them."""

import mindspore as ms
from mindspore import Tensor, nn
from mindspore.common.initializer import Normal

from mindone_coca.model.attention import MultiheadAttention
from mindone_coca.model.layers import LayerNorm, LayerScale, Linear, activation


class MLP(nn.Cell):
    """Two linear layers with an activation between them."""

    def __init__(
        self, width: int, hidden: int, quick_gelu: bool, dtype: ms.Type, fc_std: float | None, proj_std: float | None
    ) -> None:
        super().__init__()
        self.c_fc = Linear(width, hidden, dtype, None if fc_std is None else Normal(fc_std))
        self.gelu = activation(quick_gelu)
        self.c_proj = Linear(hidden, width, dtype, None if proj_std is None else Normal(proj_std))

    def construct(self, x: Tensor) -> Tensor:
        return self.c_proj(self.gelu(self.c_fc(x)))


def scaled(scale: LayerScale | None, branch: Tensor) -> Tensor:
    """A residual's branch, which may have a scale."""
    return branch if scale is None else scale(branch)


class ResidualBlock(nn.Cell):
    """Attention and MLP, each with its norm before it and a residual.

    Args:
        depth: layers of the tower, for the draw of fresh text weights (open_clip's TextTransformer.init_parameters);
            None draws as torch.nn does, which is what open_clip's image tower has.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float = 4.0,
        ls_init_value: float | None = None,
        quick_gelu: bool = False,
        dtype: ms.Type = ms.float32,
        depth: int | None = None,
    ) -> None:
        super().__init__()
        attn_std = None if depth is None else width**-0.5
        proj_std = None if depth is None else (width**-0.5) * ((2 * depth) ** -0.5)
        fc_std = None if depth is None else (2 * width) ** -0.5
        self.ln_1 = LayerNorm(width)
        self.attn = MultiheadAttention(width, heads, dtype, std=attn_std, out_std=proj_std)
        self.ls_1 = None if ls_init_value is None else LayerScale(width, ls_init_value)
        self.ln_2 = LayerNorm(width)
        self.mlp = MLP(width, int(width * mlp_ratio), quick_gelu, dtype, fc_std, proj_std)
        self.ls_2 = None if ls_init_value is None else LayerScale(width, ls_init_value)

    def add_branches(self, x: Tensor, attended: Tensor) -> Tensor:
        """Finish the block: x and its attention's output, both (B, T, D) -> (B, T, D)."""
        x = x + scaled(self.ls_1, attended)
        return x + scaled(self.ls_2, self.mlp(self.ln_2(x)))  # the sum here; see `ImageTextModel.recomputed_cells`


class ResidualAttentionBlock(ResidualBlock):
    """Attention of x (B, T, D) to itself. Source: open_clip.transformer.ResidualAttentionBlock."""

    def construct(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.add_branches(x, self.attn(self.ln_1(x), mask))


class CrossAttentionBlock(ResidualBlock):
    """Attention of x (B, T, D) to a context (B, K, D). Source: the same, with is_cross_attention."""

    def __init__(self, width: int, heads: int, **options) -> None:
        super().__init__(width, heads, **options)
        self.ln_1_kv = LayerNorm(width)

    def construct(self, x: Tensor, context: Tensor) -> Tensor:
        return self.add_branches(x, self.attn.attend_to(self.ln_1(x), self.ln_1_kv(context)))


class Transformer(nn.Cell):
    """A stack of residual blocks. Source: open_clip.transformer.Transformer."""

    def __init__(self, width: int, layers: int, heads: int, **block_options) -> None:
        super().__init__()
        self.resblocks = nn.CellList([ResidualAttentionBlock(width, heads, **block_options) for _ in range(layers)])

    def construct(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for block in self.resblocks:
            x = block(x, mask)
        return x
