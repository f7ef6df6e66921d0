"""The pieces all three towers are built of: linear layers, norms, activations, attention, residual blocks, poolers.

Weights keep PyTorch's layouts (a linear weight is (out, in)), so that a checkpoint converts without touching a number.
Norms, softmax and attention scores are computed in float32 whatever the type of the activations.
"""

import math

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import (
    Constant,
    HeUniform,
    Initializer,
    Normal,
    One,
    Uniform,
    XavierUniform,
    Zero,
    initializer,
)

from mindone_coca import kernels
from mindone_coca.model.adapters import Adapter, no_adapter
from mindone_coca.tensors import cast_for

MASKED = kernels.MASKED


def new_parameter(init: Initializer, shape: tuple[int, ...], dtype: ms.Type, name: str) -> Parameter:
    return Parameter(initializer(init, shape, dtype), name=name)


class Linear(nn.Cell):
    """y = x W^T + b with W of shape (out, in). Fresh weights follow torch.nn.Linear unless `init` says otherwise."""

    adapted = ("weight",)

    def __init__(
        self,
        in_features: int,
        out_features: int,
        dtype: ms.Type,
        init: Initializer | None = None,
        bias_init: Initializer | None = None,
    ) -> None:
        super().__init__()
        init, bias_init = init or HeUniform(math.sqrt(5)), bias_init or Uniform(1 / math.sqrt(in_features))
        self.weight = new_parameter(init, (out_features, in_features), dtype, "weight")
        self.bias = new_parameter(bias_init, (out_features,), dtype, "bias")
        self.linear, self.weight_adapter = kernels.linear(), no_adapter()

    def construct(self, x: Tensor) -> Tensor:
        y = self.linear(x, cast_for(self.weight, x), self.bias.astype(x.dtype))
        return y if self.weight_adapter is None else y + self.weight_adapter(x)


class LayerNorm(nn.Cell):
    """Layer normalisation over the last axis in float32, epsilon 1e-5. Source: open_clip.transformer.LayerNormFp32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = new_parameter(One(), (width,), ms.float32, "gamma")
        self.beta = new_parameter(Zero(), (width,), ms.float32, "beta")
        self.normalise = kernels.layer_norm()

    def construct(self, x: Tensor) -> Tensor:
        return self.normalise(x.astype(ms.float32), self.gamma, self.beta).astype(x.dtype)


class LayerScale(nn.Cell):
    """A learned gain per channel on a residual branch. Source: open_clip.transformer.LayerScale."""

    def __init__(self, width: int, init_value: float) -> None:
        super().__init__()
        self.gamma = new_parameter(Constant(init_value), (width,), ms.float32, "gamma")
        self.multiply = kernels.multiply()

    def construct(self, x: Tensor) -> Tensor:
        gamma = self.gamma.astype(x.dtype)[None]
        return self.multiply(x.reshape(-1, x.shape[-1]), gamma).reshape(x.shape)


class QuickGELU(nn.Cell):
    """x * sigmoid(1.702 x). Source: open_clip.transformer.QuickGELU."""

    def construct(self, x: Tensor) -> Tensor:
        return x * ops.sigmoid(ops.mul(x, 1.702))


def activation(quick_gelu: bool) -> nn.Cell:
    """The activation of a feedforward layer."""
    return QuickGELU() if quick_gelu else kernels.gelu()


class Heads(nn.Cell):
    """The axes of several heads."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads, self.swap = heads, kernels.swap_middle()

    def construct(self, x: Tensor, parts: int = 1) -> Tensor:
        """Split the last axis: x (B, T, parts H d) -> (B, parts H, T, d)."""
        return self.swap(x.reshape(*x.shape[:2], parts * self.heads, -1))

    def thirds(self, packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value side by side (B, T, 3 H d) -> each (B, H, T, d)."""
        # one transpose of rank 4 and a split: on the CPU rank 5 takes ten times as long
        return ops.split(self.construct(packed, 3), self.heads, 1)

    def merge(self, x: Tensor) -> Tensor:
        """x (B, H, T, d) -> (B, T, H d)."""
        return self.swap(x).reshape(x.shape[0], x.shape[2], -1)


class MultiheadAttention(nn.Cell):
    """Multi-head attention with torch.nn.MultiheadAttention's parameters.

    Where keys come from another width than queries, query, key and value weights are stored apart and share one packed
    bias; otherwise one packed (3 width, width) weight is stored.
    """

    adapted = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")

    def __init__(
        self,
        width: int,
        heads: int,
        dtype: ms.Type,
        context_width: int | None = None,
        std: float | None = None,
        out_std: float | None = None,
    ) -> None:
        super().__init__()
        self.width = width
        self.heads = heads
        context_width = width if context_width is None else context_width
        self.packed = context_width == width
        init = XavierUniform() if std is None else Normal(std)
        if self.packed:
            self.in_proj_weight = new_parameter(init, (3 * width, width), dtype, "in_proj_weight")
        else:
            self.q_proj_weight = new_parameter(init, (width, width), dtype, "q_proj_weight")
            self.k_proj_weight = new_parameter(init, (width, context_width), dtype, "k_proj_weight")
            self.v_proj_weight = new_parameter(init, (width, context_width), dtype, "v_proj_weight")
        self.in_proj_bias = new_parameter(Zero(), (3 * width,), dtype, "in_proj_bias")
        self.out_proj = Linear(width, width, dtype, None if out_std is None else Normal(out_std), Zero())
        self.linear, self.attend, self.by_head = kernels.linear(), kernels.attention(), Heads(heads)
        self.in_proj_weight_adapter = self.q_proj_weight_adapter = no_adapter()
        self.k_proj_weight_adapter = self.v_proj_weight_adapter = no_adapter()

    def _project(self, x: Tensor, first: int, count: int) -> Tensor:
        """Project by the rows of `count` packed matrices from `first` (0 query, 1 key, 2 value)."""
        low, high = first * self.width, (first + count) * self.width
        weight, bias = self.in_proj_weight[low:high], self.in_proj_bias[low:high]
        y = self.linear(x, cast_for(weight, x), bias.astype(x.dtype))
        return y if self.in_proj_weight_adapter is None else y + self.in_proj_weight_adapter(x, low, high)

    def project_packed(self, x: Tensor) -> Tensor:
        """x (..., D) -> query, key and value side by side (..., 3 D)."""
        y = self.linear(x, cast_for(self.in_proj_weight, x), self.in_proj_bias.astype(x.dtype))
        return y if self.in_proj_weight_adapter is None else y + self.in_proj_weight_adapter(x)

    def query_weight(self, dtype: ms.Type) -> Tensor:
        """The query's part of the packed weight, with what an adapter adds to it (D, D)."""
        weight = self.in_proj_weight[: self.width]
        adapter = self.in_proj_weight_adapter
        return (weight if adapter is None else weight + adapter.change(0, self.width)).astype(dtype)

    def query_key_value(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, T, D) -> query, key and value, each (B, H, T, D / H)."""
        return self.by_head.thirds(self.project_packed(x))

    def project_query(self, x: Tensor) -> Tensor:
        """x (B, Q, D) -> (B, H, Q, D / H)."""
        if self.packed:
            return self.by_head(self._project(x, 0, 1))
        bias = self.in_proj_bias[: self.width]
        return self.by_head(self._apart(x, self.q_proj_weight, bias, self.q_proj_weight_adapter))

    def _apart(self, x: Tensor, weight: Parameter, bias: Tensor, adapter: Adapter | None) -> Tensor:
        """Project by a matrix of its own."""
        y = self.linear(x, cast_for(weight, x), bias.astype(x.dtype))
        return y if adapter is None else y + adapter(x)

    def project_key_value(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, K, C) -> key and value, each (B, H, K, D / H)."""
        if self.packed:
            both = self._project(x, 1, 2)  # (B, K, 2 D)
            key, value = both[..., : self.width], both[..., self.width :]
        else:
            bias, width = self.in_proj_bias, self.width
            key = self._apart(x, self.k_proj_weight, bias[width : 2 * width], self.k_proj_weight_adapter)
            value = self._apart(x, self.v_proj_weight, bias[2 * width :], self.v_proj_weight_adapter)
        return self.by_head(key), self.by_head(value)

    def project_out(self, x: Tensor) -> Tensor:
        """x (B, H, Q, D / H) -> (B, Q, D)."""
        return self.out_proj(self.by_head.merge(x))

    def construct(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Attend from x (B, Q, D) to itself, or to context (B, K, C)."""
        if context is None:
            query, key, value = self.query_key_value(x)
        else:
            query, (key, value) = self.project_query(x), self.project_key_value(context)
        return self.project_out(self.attend(query, key, value, mask))


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


class ResidualAttentionBlock(nn.Cell):
    """Pre-norm attention and MLP with residuals. Source: open_clip.transformer.ResidualAttentionBlock.

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
        is_cross_attention: bool = False,
        depth: int | None = None,
    ) -> None:
        super().__init__()
        attn_std = None if depth is None else width**-0.5
        proj_std = None if depth is None else (width**-0.5) * ((2 * depth) ** -0.5)
        fc_std = None if depth is None else (2 * width) ** -0.5
        self.is_cross_attention = is_cross_attention
        self.ln_1 = LayerNorm(width)
        self.attn = MultiheadAttention(width, heads, dtype, std=attn_std, out_std=proj_std)
        self.ls_1 = nn.Identity() if ls_init_value is None else LayerScale(width, ls_init_value)
        if is_cross_attention:
            self.ln_1_kv = LayerNorm(width)
        self.ln_2 = LayerNorm(width)
        self.mlp = MLP(width, int(width * mlp_ratio), quick_gelu, dtype, fc_std, proj_std)
        self.ls_2 = nn.Identity() if ls_init_value is None else LayerScale(width, ls_init_value)

    def add_branches(self, x: Tensor, attended: Tensor) -> Tensor:
        """Finish the block: x and its attention's output, both (B, T, D) -> (B, T, D)."""
        x = x + self.ls_1(attended)
        return x + self.ls_2(self.mlp(self.ln_2(x)))

    def construct(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        if self.is_cross_attention:
            context = self.ln_1_kv(context)
        return self.add_branches(x, self.attn(self.ln_1(x), context, mask))


class Transformer(nn.Cell):
    """A stack of residual blocks. Source: open_clip.transformer.Transformer."""

    def __init__(self, width: int, layers: int, heads: int, **block_options) -> None:
        super().__init__()
        self.resblocks = nn.CellList([ResidualAttentionBlock(width, heads, **block_options) for _ in range(layers)])

    def construct(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for block in self.resblocks:
            x = block(x, None, mask)
        return x


class AttentionalPooler(nn.Cell):
    """Learned queries attending to tokens (paper section 3.2). Source: open_clip.transformer.AttentionalPooler."""

    def __init__(self, width: int, context_width: int, heads: int, queries: int, dtype: ms.Type) -> None:
        super().__init__()
        self.query = new_parameter(Normal(1.0), (queries, width), dtype, "query")
        self.attn = MultiheadAttention(width, heads, dtype, context_width)
        self.ln_q = LayerNorm(width)
        self.ln_k = LayerNorm(context_width)

    def construct(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, K, C) -> (B, queries, D); `mask` as in `kernels.attention`."""
        x = self.ln_k(x)
        query = self.attn.project_query(self.ln_q(self.query.astype(x.dtype))[None])  # (1, H, queries, D / H): the same
        query = ops.tile(query, (x.shape[0], 1, 1, 1))  # for every image, so it is projected once
        key, value = self.attn.project_key_value(x)
        return self.attn.project_out(self.attn.attend(query, key, value, mask))
