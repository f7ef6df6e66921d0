"""The forms that any device runs well."""

import mindspore as ms
from mindspore import Tensor, nn, ops

from mindone_coca.tensors import cast

EPSILON = 1e-5  # of layer norms
# Added to the scores of hidden keys. Finite, because the CPU's softmax corrupts its neighbours on a row of -inf.
MASKED = -1e9


_layer_norm = ops.LayerNorm(begin_norm_axis=-1, begin_params_axis=-1, epsilon=EPSILON)
_scores, _weighted = ops.BatchMatMul(transpose_b=True), ops.BatchMatMul()
_softmax, _transpose = ops.Softmax(-1), ops.Transpose()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b."""
    return ops.dense(x, weight, bias)


def add_to_each(x: Tensor, y: Tensor) -> Tensor:
    """The same tensor added to each of a batch."""
    return x + y


def multiply(x: Tensor, y: Tensor) -> Tensor:
    """A product that broadcasts."""
    return x * y


def layer_norm(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """The operator LayerNorm with its own gradient."""
    return _layer_norm(x, gamma, beta)[0]


def gelu(x: Tensor) -> Tensor:
    """The exact GELU."""
    return ops.gelu(x, approximate="none")


def attention_scores(query: Tensor, key: Tensor) -> Tensor:
    """Query (..., Q, d) and key (..., K, d) -> scaled scores (..., Q, K), float32."""
    return cast(_scores(ops.mul(query, query.shape[-1] ** -0.5), key), ms.float32)


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scores, softmax and weighted mean as operators of their own."""
    scores = attention_scores(query, key)
    if mask is not None:
        scores = scores + mask
    return _weighted(cast(_softmax(scores), value.dtype), value)


def swap_middle(x: Tensor) -> Tensor:
    """The operator Transpose."""
    return _transpose(x, (0, 2, 1, 3))


def take_rows(table: Tensor, ids: Tensor) -> Tensor:
    """The operator Gather."""
    return ops.gather(table, ids, 0)


class TopK(nn.Cell):
    """The operator TopK."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k, self.operator = k, ops.TopK(sorted=True)

    def construct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.operator(x, self.k)
