"""The forms for the CPU, where some of MindSpore's kernels are slow or large out of proportion.

Arithmetic that broadcasts takes several times as long as arithmetic of equal shapes, and keeps the place of both
operands for each number of its result, four times its size, for as long as its graph lives. So nothing here
broadcasts: a row is added by BiasAdd, which joins the matrix product before it, and else tiled first.
"""

import math

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from mindone_coca.kernels import plain
from mindone_coca.kernels.plain import EPSILON, attention_scores
from mindone_coca.tensors import cast, total, total_kept

SOME_ROWS = 8, 64  # between these a product is faster with the weight on the left
GROUP = 64  # numbers of which one stands for all at first
PIECE = 2**19  # numbers of a piece that goes through many operators one after another
FEW_NUMBERS = 8192  # up to here an operator more takes longer on the CPU than a slow kernel


_product, _product_from_left, _add_bias = ops.MatMul(transpose_b=True), ops.MatMul(), ops.BiasAdd()
_batch_product, _transpose = ops.BatchMatMul(), ops.Transpose()
_tile = ops.Tile()  # not ops.tile: used in a cell and in its gradient, MindSpore fails with "func graph is empty"
_over_last = ops.Softmax(-1)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b over flattened rows.

    With W on the right, which is then read across its rows, some rows take up to four times as long as with W on the
    left, (W x^T)^T, where it is read as it lies.
    """
    rows = x.reshape(-1, x.shape[-1])
    if SOME_ROWS[0] <= rows.shape[0] <= SOME_ROWS[1]:
        y = _transpose(_product_from_left(weight, _transpose(rows, (1, 0))), (1, 0))
    else:
        y = _product(rows, weight)
    if bias is not None:
        y = _add_bias(y, bias)
    return y.reshape(*x.shape[:-1], y.shape[-1])


def add_to_each(x: Tensor, y: Tensor) -> Tensor:
    """The same tensor added to each of a batch, as a bias to flattened rows."""
    return _add_bias(x.reshape(-1, y.size), y.reshape(-1)).reshape(x.shape)


def multiply(x: Tensor, y: Tensor) -> Tensor:
    """A product of x and y, y tiled to x's shape."""
    return x * tile_to(y, x.shape)


def tile_to(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Repeat x along the axes where it has length 1."""
    if x.shape == shape:
        return x
    times: tuple[int, ...] = ()
    for own, wanted in zip(x.shape, shape):
        times += (wanted // own,)
    return _tile(x, times)


class Softmax(nn.Cell):
    """The operator over the last axis, with its gradient written out, because MindSpore's broadcasts."""

    def construct(self, x: Tensor) -> Tensor:
        return _over_last(x)

    def bprop(self, x: Tensor, out: Tensor, grad: Tensor) -> tuple[Tensor]:
        inner = grad * out
        return (inner - out * tile_to(total_kept(inner, -1), out.shape),)


_softmax = Softmax()


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention whose mask is tiled; one that several layers share is so once, graphs have equal operators once."""
    scores = attention_scores(query, key)
    if mask is not None:
        scores = scores + tile_to(mask, scores.shape)
    return _batch_product(cast(_softmax(scores), value.dtype), value)


@ops.constexpr
def swapped_places(first: int, second: int, third: int) -> Tensor:
    """Of the rows of a (first, second, third, d), their places in the order of (first, third, second, d), int32."""
    places = np.arange(first * second * third, dtype=np.int32).reshape(first, second, third)
    return Tensor(places.swapaxes(1, 2).reshape(-1).copy())


def swap_middle(x: Tensor) -> Tensor:
    """(A, B, C, d) -> (A, C, B, d), of many numbers by taking rows. The operator Transpose keeps, for as long as its
    graph lives, the place of each number that it moves, seven times their size: of ViT-L/14's training 3 GiB. The CPU's
    Gather takes no bfloat16.

    The gradient is Gather's own, though one by taking rows, too, would take half as long: where a block is recomputed,
    a gradient of ours that stands between two products lets the graph run in a circle.
    """
    first, second, third, width = x.shape
    if x.size <= FEW_NUMBERS or x.dtype == ms.bfloat16:
        return _transpose(x, (0, 2, 1, 3))
    rows = ops.gather(x.reshape(-1, width), swapped_places(first, second, third), 0)
    return rows.reshape(first, third, second, width)


def take_rows(table: Tensor, ids: Tensor) -> Tensor:
    """The operator Gather, which takes no bfloat16: such a table is cast as a whole."""
    return ops.gather(cast(table, ms.float32) if table.dtype == ms.bfloat16 else table, ids, 0)


class TopK(nn.Cell):
    """The k best of each row: first the k groups whose best are best, then the best of those groups' members. The
    operator sorts with an index for each number and takes ten times as long over a whole vocabulary."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k, self.operator = k, ops.TopK(sorted=True)

    def construct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        rows, count = x.shape
        groups, k = count // GROUP, self.k
        if groups < 2 * k:
            return self.operator(x, k)
        rest = count - groups * GROUP  # the last ones, too few for a group
        members = (x if rest == 0 else x[:, : groups * GROUP]).reshape(rows, groups, GROUP)
        best = self.operator(members.max(axis=2), k)[1]  # (R, k)
        first = ops.arange(0, rows * groups, groups).astype(ms.int32).reshape(rows, 1)  # of each row's groups
        candidates = ops.gather(members.reshape(-1, GROUP), best + first, 0).reshape(rows, k * GROUP)
        if rest:
            candidates = ops.concat((candidates, x[:, groups * GROUP :]), 1)
            best = ops.concat((best, ops.full((rows, 1), groups, dtype=ms.int32)), 1)
        values, places = self.operator(candidates, k)
        group = places // GROUP  # among the best
        return values, ops.mul(ops.gather_elements(best, 1, group), GROUP) + (places - ops.mul(group, GROUP))


class LayerNormOfMany(nn.Cell):
    """x (..., D) -> normalised (..., D), mean and inverse deviation (N, 1), written out: the operator LayerNorm takes
    twice as long, and its gradient calls pow for every number. Rows and columns are tiled first, because arithmetic
    that broadcasts takes several times as long as the tiling."""

    def construct(self, x: Tensor, gamma: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        width = x.shape[-1]
        flat = x.reshape(-1, width)  # (N, D)
        mean = ops.mul(total_kept(flat, -1), 1 / width)
        centred = flat - _tile(mean, (1, width))
        variance = ops.mul(total_kept(centred * centred, -1), 1 / width)
        inverse = ops.rsqrt(variance + EPSILON)
        scale = _product_from_left(inverse, gamma.reshape(1, width))  # (N, D), each by each
        return _add_bias(centred * scale, beta).reshape(x.shape), mean, inverse

    def bprop(
        self, x: Tensor, gamma: Tensor, beta: Tensor, out: tuple[Tensor, ...], grads: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor, Tensor]:
        width = x.shape[-1]
        flat, grad = x.reshape(-1, width), grads[0].reshape(-1, width)  # (N, D)
        rows = (1, width)
        scale = _tile(out[2], rows)
        normal = (flat - _tile(out[1], rows)) * scale
        inner = grad * _tile(gamma[None], (flat.shape[0], 1))
        offset = _tile(total_kept(inner, -1) * (1 / width), rows)
        slope = _tile(total_kept(inner * normal, -1) * (1 / width), rows)
        x_grad = (inner - offset - normal * slope) * scale
        return x_grad.reshape(x.shape), total(grad * normal, 0), total(grad, 0)


_layer_norm_of_many = LayerNormOfMany()


def layer_norm(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """The operator; where there are many numbers, a form of our own."""
    if x.size > FEW_NUMBERS:
        return _layer_norm_of_many(x, gamma, beta)[0]
    return plain.layer_norm(x, gamma, beta)


@ops.constexpr
def pieces(count: int) -> int:
    """Into how many equal pieces so many numbers are cut that each stays in the processor's cache."""
    found = 1
    while count % (2 * found) == 0 and count // found > PIECE:
        found *= 2
    return found


def cdf_by_erf(x: Tensor) -> Tensor:
    """Phi(x) in few operators."""
    return ops.mul(ops.erf(ops.mul(x, 0.5**0.5)), 0.5) + 0.5


def cdf_by_polynomial(x: Tensor) -> Tensor:
    """Phi(x) without erf, see `NormalCDF`."""
    square = ops.minimum(x * x, GELU_CAP)
    poly = ops.mul(square, GELU_COEFFICIENTS[0]) + GELU_COEFFICIENTS[1]
    for coefficient in GELU_COEFFICIENTS[2:]:
        poly = poly * square + coefficient
    return ops.sigmoid(x * poly)


class NormalCDF(nn.Cell):
    """Phi(x), the standard normal distribution function, for the CPU, where erf of many numbers takes several times as
    long.

    Phi(x) = sigmoid(x P(x^2)) with P fitted to 2 atanh(erf(x / sqrt 2)) / x: x Phi(x) is 7e-8 from the exact GELU at
    most, less than float32's own rounding (benchmarks/fit_gelu.py). x^2 is capped where Phi has long been 0 or 1. Not
    through tanh: the CPU's is off by 1e-4 beyond 5.
    """

    def construct(self, x: Tensor) -> Tensor:
        if x.size <= FEW_NUMBERS:
            return cdf_by_erf(x)  # each of the polynomial's twenty operators takes as long as this
        count = pieces(x.size)
        if count == 1:
            return cdf_by_polynomial(x)
        parts: tuple[Tensor, ...] = ()
        for piece in ops.Split(0, count)(x.reshape(count, -1)):
            parts += (cdf_by_polynomial(piece),)
        return ops.concat(parts, 0).reshape(x.shape)

    def bprop(self, x: Tensor, out: Tensor, grad: Tensor) -> tuple[Tensor]:
        # written out, so that training keeps none of the polynomial's terms
        return (grad * (ops.exp((-0.5 * x) * x) * (1 / math.sqrt(2 * math.pi))),)


_normal_cdf = NormalCDF()


def gelu(x: Tensor) -> Tensor:
    """The exact GELU, x * Phi(x), for the CPU."""
    return x * _normal_cdf(x)


# Highest power first.
GELU_COEFFICIENTS = (
    3.6112323293747482e-09,
    -2.668927961705412e-07,
    7.938218545174055e-06,
    -0.00011048031414701874,
    -6.625999721415765e-05,
    0.07266856704222244,
    1.5957684322262105,
)
GELU_CAP = 5.5**2
