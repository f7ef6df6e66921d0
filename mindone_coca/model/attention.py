"""Attention of several heads, to the tokens themselves and to a context; poolers."""

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.common.initializer import Normal, XavierUniform, Zero

from mindone_coca import kernels
from mindone_coca.model.adapters import no_adapter
from mindone_coca.model.layers import LayerNorm, Linear, new_parameter, project, project_rows
from mindone_coca.tensors import cast, halves


def split_heads(swap: kernels.Kernel, x: Tensor, heads: int) -> Tensor:
    """Split the last axis: x (B, T, heads d) -> (B, heads, T, d)."""
    return swap(x.reshape(*x.shape[:2], heads, -1))


def split_thirds(swap: kernels.Kernel, packed: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value side by side (B, T, 3 H d) -> each (B, H, T, d)."""
    # one transpose of rank 4 and a split: on the CPU rank 5 takes ten times as long
    return ops.Split(1, 3)(split_heads(swap, packed, 3 * heads))


def merge_heads(swap: kernels.Kernel, x: Tensor) -> Tensor:
    """x (B, H, T, d) -> (B, T, H d)."""
    return swap(x).reshape(x.shape[0], x.shape[2], -1)


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
        self.linear, self.attend, self.swap = kernels.linear(), kernels.attention(), kernels.swap_middle()
        self.in_proj_weight_adapter = self.q_proj_weight_adapter = no_adapter()
        self.k_proj_weight_adapter = self.v_proj_weight_adapter = no_adapter()

    def _project(self, x: Tensor, first: int, count: int) -> Tensor:
        """Project by the rows of `count` packed matrices from `first` (0 query, 1 key, 2 value)."""
        rows = first * self.width, (first + count) * self.width
        return project_rows(self.linear, x, self.in_proj_weight, self.in_proj_bias, self.in_proj_weight_adapter, *rows)

    def project_packed(self, x: Tensor) -> Tensor:
        """x (..., D) -> query, key and value side by side (..., 3 D)."""
        return project(self.linear, x, self.in_proj_weight, self.in_proj_bias, self.in_proj_weight_adapter)

    def query_weight(self, dtype: ms.Type) -> Tensor:
        """The query's part of the packed weight, with what an adapter adds to it (D, D)."""
        weight = self.in_proj_weight[: self.width]
        adapter = self.in_proj_weight_adapter
        return cast(weight if adapter is None else weight + adapter.change(0, self.width), dtype)

    def query_key_value(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, T, D) -> query, key and value, each (B, H, T, D / H)."""
        return split_thirds(self.swap, self.project_packed(x), self.heads)

    def project_query(self, x: Tensor) -> Tensor:
        """x (B, Q, D) -> (B, H, Q, D / H)."""
        if self.packed:
            query = self._project(x, 0, 1)
        else:
            bias = self.in_proj_bias[: self.width]
            query = project(self.linear, x, self.q_proj_weight, bias, self.q_proj_weight_adapter)
        return split_heads(self.swap, query, self.heads)

    def project_key_value(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, K, C) -> key and value, each (B, H, K, D / H)."""
        if self.packed:
            key, value = halves(self._project(x, 1, 2))  # of (B, K, 2 D)
        else:
            bias, width = self.in_proj_bias, self.width
            key = project(self.linear, x, self.k_proj_weight, bias[width : 2 * width], self.k_proj_weight_adapter)
            value = project(self.linear, x, self.v_proj_weight, bias[2 * width :], self.v_proj_weight_adapter)
        return split_heads(self.swap, key, self.heads), split_heads(self.swap, value, self.heads)

    def project_out(self, x: Tensor) -> Tensor:
        """x (B, H, Q, D / H) -> (B, Q, D)."""
        return self.out_proj(merge_heads(self.swap, x))

    def attend_to(self, x: Tensor, context: Tensor) -> Tensor:
        """Attend from x (B, Q, D) to context (B, K, C) -> (B, Q, D)."""
        key, value = self.project_key_value(context)
        return self.project_out(self.attend(self.project_query(x), key, value))

    def construct(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend from x (B, T, D) to itself; weights are packed."""
        query, key, value = self.query_key_value(x)
        return self.project_out(self.attend(query, key, value, mask))


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
        query = self.attn.project_query(self.ln_q(cast(self.query, x.dtype))[None])  # (1, H, queries, D / H): the same
        query = ops.tile(query, (x.shape[0], 1, 1, 1))  # for every image, so it is projected once
        key, value = self.attn.project_key_value(x)
        return self.attn.project_out(self.attn.attend(query, key, value, mask))
