"""The forms that any device runs well."""

import mindspore as ms
from mindspore import Tensor, nn, ops

EPSILON = 1e-5  # of layer norms
# Added to the scores of hidden keys. Finite, because the CPU's softmax corrupts its neighbours on a row of -inf.
MASKED = -1e9


class PlainLinear(nn.Cell):
    """x W^T + b."""

    def construct(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return ops.dense(x, weight, bias)


class PlainAddToEach(nn.Cell):
    """The same tensor added to each of a batch."""

    def construct(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class PlainMultiply(nn.Cell):
    """A product that broadcasts."""

    def construct(self, x: Tensor, y: Tensor) -> Tensor:
        return x * y


class PlainLayerNorm(nn.Cell):
    """The operator LayerNorm with its own gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.operator = ops.LayerNorm(begin_norm_axis=-1, begin_params_axis=-1, epsilon=EPSILON)

    def construct(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return self.operator(x, gamma, beta)[0]


def attention_scores(query: Tensor, key: Tensor) -> Tensor:
    """Query (..., Q, d) and key (..., K, d) -> scaled scores (..., Q, K), float32."""
    query = ops.mul(query, query.shape[-1] ** -0.5)
    return ops.BatchMatMul(transpose_b=True)(query, key).astype(ms.float32)


class PlainAttention(nn.Cell):
    """Scores, softmax and weighted mean as operators of their own."""

    def construct(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        scores = attention_scores(query, key)
        if mask is not None:
            scores = scores + mask
        return ops.BatchMatMul()(ops.softmax(scores, -1).astype(value.dtype), value)


class PlainSwapMiddle(nn.Cell):
    """The operator Transpose."""

    def construct(self, x: Tensor) -> Tensor:
        return x.swapaxes(1, 2)


class PlainTakeRows(nn.Cell):
    """The operator Gather."""

    def construct(self, table: Tensor, ids: Tensor) -> Tensor:
        return ops.gather(table, ids, 0)


class PlainTopK(nn.Cell):
    """The operator TopK."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k, self.operator = k, ops.TopK(sorted=True)

    def construct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.operator(x, self.k)
