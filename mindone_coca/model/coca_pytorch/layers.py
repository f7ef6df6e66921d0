"""The pieces of coca-pytorch's CoCa: bias-free layers, rotary positions, multi-query attention, parallel blocks.

PaLM's block (arXiv 2204.02311, section 2): attention and feedforward read the same normed input and are added together;
all heads share one key and one value. As in `layers.py` weights are (out, in), and norms, softmax, scores and rotations
are computed in float32.
"""

import math

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import HeUniform

from mindone_coca import kernels
from mindone_coca.model.adapters import no_adapter
from mindone_coca.model.layers import MASKED, LayerNorm, new_parameter, project
from mindone_coca.tensors import cast, halves


class Projection(nn.Cell):
    """y = x W^T with W of shape (out, in); fresh weights follow torch.nn.Linear."""

    adapted = ("weight",)

    def __init__(self, in_features: int, out_features: int, dtype: ms.Type) -> None:
        super().__init__()
        self.weight = new_parameter(HeUniform(math.sqrt(5)), (out_features, in_features), dtype, "weight")
        self.linear, self.weight_adapter = kernels.linear(), no_adapter()

    def construct(self, x: Tensor) -> Tensor:
        return project(self.linear, x, self.weight, None, self.weight_adapter)


class GainNorm(LayerNorm):
    """Layer normalisation with a learned gain; beta is a buffer of the original, 0 and never trained.

    Source: coca_pytorch.LayerNorm.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.beta.requires_grad = False


def swiglu(x: Tensor) -> Tensor:
    """(..., 2 F) -> (..., F): the first half gated by the SiLU of the second (arXiv 2002.05202)."""
    value, gate = halves(x)
    return value * (gate * ops.sigmoid(gate))


@ops.constexpr
def future_mask(length: int) -> Tensor:
    """Additive (1, length, length) mask over queries and keys that hides every later key."""
    return Tensor(np.triu(np.full((length, length), MASKED, np.float32), 1)[None])


class Rotation(nn.Cell):
    """Rotary positions (arXiv 2104.09864) by halves: channel i is paired with channel i + d / 2.

    `construct` takes x (B, T, ..., d) and the angles' cosines and sines (T, d).
    """

    def __init__(self) -> None:
        super().__init__()
        self.multiply = kernels.multiply()

    def construct(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return rotated(self.multiply, x, cos, sin)


def rotated(multiply: kernels.Kernel, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    y = cast(x, ms.float32)
    first, second = halves(y)
    shape = (1, x.shape[1], *[1] * (x.ndim - 3), x.shape[-1])
    turned = ops.concat((-second, first), -1)
    return cast(multiply(y, cos.reshape(shape)) + multiply(turned, sin.reshape(shape)), x.dtype)


class MultiQueryAttention(nn.Cell):
    """Attention of several heads to one key and value: query (B, Q, H, d), key and value (B, K, d) -> (B, Q, H d).

    `construct` may take a mask (B or 1, Q, K) too, added to the float32 scores; MASKED hides a key.
    """

    def __init__(self) -> None:
        super().__init__()
        self.attend = kernels.attention()

    def construct(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        return attend_to_one(self.attend, query, key, value, mask)


def attend_to_one(attend: kernels.Kernel, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    batch, count, heads, width = query.shape
    query = query.reshape(batch, count * heads, width)  # heads are but more queries
    if mask is not None:
        mask = ops.tile(mask[:, :, None], (1, 1, heads, 1)).reshape(mask.shape[0], count * heads, mask.shape[2])
    return attend(query, key, value, mask).reshape(batch, count, heads * width)


class ParallelBlock(nn.Cell):
    """Causal self-attention and SwiGLU feedforward side by side, with the residual.

    Source: coca_pytorch.ParallelTransformerBlock within Residual.
    """

    def __init__(self, dim: int, dim_head: int, heads: int, ff_mult: int, dtype: ms.Type) -> None:
        super().__init__()
        self.heads, self.dim_head = heads, dim_head
        inner, hidden = heads * dim_head, dim * ff_mult
        self.norm = GainNorm(dim)
        self.rotate, self.attend = Rotation(), MultiQueryAttention()
        # a buffer of the original, so it is converted with the weights; it is never trained
        frequencies = 1 / 10000 ** (np.arange(0, dim_head, 2, dtype=np.float32) / dim_head)
        self.inv_freq = Parameter(Tensor(frequencies.astype(np.float32)), name="inv_freq", requires_grad=False)
        self.fused_attn_ff_proj = Projection(dim, inner + 2 * dim_head + 2 * hidden, dtype)
        self.attn_out = Projection(inner, dim, dtype)
        self.ff_out = Projection(hidden, dim, dtype)

    def project(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x (B, T, D) at positions (T,) -> query (B, T, H, d), key and value (B, T, d), gated feedforward (B, T, F)."""
        batch, count, _ = x.shape
        fused = self.fused_attn_ff_proj(self.norm(x))
        keys = self.heads * self.dim_head  # where the key starts
        values, hidden = keys + self.dim_head, keys + 2 * self.dim_head
        angles = cast(positions, ms.float32)[:, None] * self.inv_freq  # (T, d / 2)
        angles = ops.concat((angles, angles), -1)
        cos, sin = ops.cos(angles), ops.sin(angles)  # (T, d)
        query = fused[..., :keys].reshape(batch, count, self.heads, self.dim_head)
        query = self.rotate(query, cos, sin)
        key = self.rotate(fused[..., keys:values], cos, sin)
        return query, key, fused[..., values:hidden], swiglu(fused[..., hidden:])

    def add_branches(self, x: Tensor, attended: Tensor, gated: Tensor) -> Tensor:
        """Finish the block: x (B, T, D), its heads' output (B, T, H d) and feedforward (B, T, F) -> (B, T, D)."""
        return x + (self.attn_out(attended) + self.ff_out(gated))

    def construct(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, T, D), additive mask (B or 1, T, T) -> (B, T, D)."""
        query, key, value, gated = self.project(x, ops.arange(0, x.shape[1], 1))
        return self.add_branches(x, self.attend(query, key, value, mask), gated)


class CrossAttention(nn.Cell):
    """Multi-query attention from x to a context of another kind. Source: coca_pytorch.CrossAttention.

    Args:
        ff_mult: width of a feedforward beside the attention, in multiples of dim; None has none.
        norm_context: normalise the context.
    """

    def __init__(
        self,
        dim: int,
        context_dim: int,
        dim_head: int,
        heads: int,
        dtype: ms.Type,
        ff_mult: int | None = None,
        norm_context: bool = False,
    ) -> None:
        super().__init__()
        self.heads, self.dim_head = heads, dim_head
        self.norm = GainNorm(dim)
        self.attend_heads = MultiQueryAttention()
        self.context_norm = GainNorm(context_dim) if norm_context else nn.Identity()
        self.to_q = Projection(dim, heads * dim_head, dtype)
        self.to_kv = Projection(context_dim, 2 * dim_head, dtype)
        self.to_out = Projection(heads * dim_head, dim, dtype)
        self.has_ff = ff_mult is not None
        if ff_mult is not None:
            self.ff_in = Projection(dim, 2 * ff_mult * dim, dtype)
            self.ff_out = Projection(ff_mult * dim, dim, dtype)

    def key_value(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Context (B, K, C) -> key and value, each (B, K, d)."""
        return halves(self.to_kv(self.context_norm(context)))

    def attend(self, x: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """x (R, Q, D), with R / B rows for each of the keys and values (B, K, d) -> (R, Q, D), without the residual."""
        rows, count, _ = x.shape
        images = key.shape[0]
        x = self.norm(x)
        query = self.to_q(x).reshape(images, rows // images * count, self.heads, self.dim_head)
        out = self.to_out(self.attend_heads(query, key, value).reshape(rows, count, -1))
        return out + self.ff_out(swiglu(self.ff_in(x))) if self.has_ff else out

    def construct(self, x: Tensor, context: Tensor) -> Tensor:
        """x (B, Q, D), context (B, K, C) -> (B, Q, D), without the residual."""
        key, value = self.key_value(context)
        return self.attend(x, key, value)
