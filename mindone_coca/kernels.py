"""The form of an operation that is fastest on a device, chosen here and nowhere else.

On the CPU some of MindSpore's kernels are slow out of proportion; what stands here in their place has the same numbers.
"""

import math

import mindspore as ms
from mindspore import Tensor, nn, ops

EPSILON = 1e-5  # of layer norms
FEW_NUMBERS = 8192  # up to here an operator more takes longer on the CPU than a slow kernel


def layer_norm() -> nn.Cell:
    """A cell (x (..., D), gamma (D,), beta (D,)) -> x normalised over its last axis, all float32, for this device."""
    return LayerNormOnCPU() if ms.get_context("device_target") == "CPU" else PlainLayerNorm()


def gelu() -> nn.Cell:
    """The exact GELU for this device."""
    return GELU() if ms.get_context("device_target") == "CPU" else nn.GELU(approximate=False)


class PlainLayerNorm(nn.Cell):
    """The operator LayerNorm with its own gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.operator = ops.LayerNorm(begin_norm_axis=-1, begin_params_axis=-1, epsilon=EPSILON)

    def construct(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return self.operator(x, gamma, beta)[0]


class LayerNormOnCPU(PlainLayerNorm):
    """The same; where there are many numbers, with a gradient of our own."""

    def __init__(self) -> None:
        super().__init__()
        self.many = LayerNormOfMany()

    def construct(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        if x.size > FEW_NUMBERS:
            return self.many(x, gamma, beta)[0]
        return self.operator(x, gamma, beta)[0]


class LayerNormOfMany(nn.Cell):
    """The operator LayerNorm, x (..., D) -> normalised (..., D), mean and variance (..., 1), with its gradient written
    out, because the CPU's calls pow for every number. Rows and columns are tiled first: arithmetic that broadcasts
    takes several times as long as the tiling."""

    def __init__(self) -> None:
        super().__init__()
        self.layer_norm = ops.LayerNorm(begin_norm_axis=-1, begin_params_axis=-1, epsilon=EPSILON)

    def construct(self, x: Tensor, gamma: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.layer_norm(x, gamma, beta)

    def bprop(
        self, x: Tensor, gamma: Tensor, beta: Tensor, out: tuple[Tensor, ...], grads: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor, Tensor]:
        width = x.shape[-1]
        flat, grad = x.reshape(-1, width), grads[0].reshape(-1, width)  # (N, D)
        mean, variance = out[1].reshape(-1, 1), out[2].reshape(-1, 1)  # (N, 1)
        rows = (1, width)
        scale = ops.tile(ops.rsqrt(variance + EPSILON), rows)
        normal = (flat - ops.tile(mean, rows)) * scale
        inner = grad * ops.tile(gamma[None], (flat.shape[0], 1))
        offset = ops.tile(inner.sum(-1, keepdims=True) * (1 / width), rows)
        slope = ops.tile((inner * normal).sum(-1, keepdims=True) * (1 / width), rows)
        x_grad = (inner - offset - normal * slope) * scale
        return x_grad.reshape(x.shape), (grad * normal).sum(0), grad.sum(0)


class NormalCDF(nn.Cell):
    """Phi(x), the standard normal distribution function, for the CPU, where erf of many numbers takes several times as
    long.

    Phi(x) = sigmoid(x P(x^2)) with P fitted to 2 atanh(erf(x / sqrt 2)) / x: x Phi(x) is 7e-8 from the exact GELU at
    most, less than float32's own rounding (benchmarks/fit_gelu.py). x^2 is capped where Phi has long been 0 or 1. Not
    through tanh: the CPU's is off by 1e-4 beyond 5.
    """

    def construct(self, x: Tensor) -> Tensor:
        if x.size <= FEW_NUMBERS:
            return 0.5 * ops.erf(x * 0.5**0.5) + 0.5  # each of the polynomial's twenty operators takes as long as this
        square = ops.minimum(x * x, GELU_CAP)
        poly = GELU_COEFFICIENTS[0]
        for coefficient in GELU_COEFFICIENTS[1:]:
            poly = poly * square + coefficient
        return ops.sigmoid(x * poly)

    def bprop(self, x: Tensor, out: Tensor, grad: Tensor) -> tuple[Tensor]:
        # written out, so that training keeps none of the polynomial's terms
        return (grad * (ops.exp((-0.5 * x) * x) * (1 / math.sqrt(2 * math.pi))),)


class GELU(nn.Cell):
    """The exact GELU, x * Phi(x), for the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.normal_cdf = NormalCDF()

    def construct(self, x: Tensor) -> Tensor:
        return x * self.normal_cdf(x)


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
