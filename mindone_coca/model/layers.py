"""The pieces all three towers are built of: linear layers, norms, activations.

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
    One,
    Uniform,
    Zero,
    initializer,
)

from mindone_coca import kernels
from mindone_coca.model.adapters import Adapter, no_adapter
from mindone_coca.tensors import cast, cast_for

MASKED = kernels.MASKED


def new_parameter(init: Initializer, shape: tuple[int, ...], dtype: ms.Type, name: str) -> Parameter:
    return Parameter(initializer(init, shape, dtype), name=name)


def project(
    linear: kernels.Kernel, x: Tensor, weight: Tensor, bias: Tensor | None = None, adapter: Adapter | None = None
) -> Tensor:
    """x (..., C) by a weight (D, C) of any type, a bias and what an adapter adds -> (..., D).

    Like all that layers of one kind have in common it is a function: the source of a cell's methods is read for each
    cell anew, which is most of a graph's compilation.
    """
    y = linear(x, cast_for(weight, x), None if bias is None else cast(bias, x.dtype))
    return y if adapter is None else y + adapter(x)


def project_rows(
    linear: kernels.Kernel, x: Tensor, weight: Tensor, bias: Tensor, adapter: Adapter | None, low: int, high: int
) -> Tensor:
    """The same by the rows of a packed weight from `low` to `high`."""
    y = project(linear, x, weight[low:high], bias[low:high])
    return y if adapter is None else y + adapter(x, low, high)


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
        return project(self.linear, x, self.weight, self.bias, self.weight_adapter)


def normalise(layer_norm: kernels.Kernel, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """x (..., D) normalised in float32, in its own type."""
    return cast(layer_norm(cast(x, ms.float32), gamma, beta), x.dtype)


class LayerNorm(nn.Cell):
    """Layer normalisation over the last axis in float32, epsilon 1e-5. Source: open_clip.transformer.LayerNormFp32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = new_parameter(One(), (width,), ms.float32, "gamma")
        self.beta = new_parameter(Zero(), (width,), ms.float32, "beta")
        self.normalise = kernels.layer_norm()

    def construct(self, x: Tensor) -> Tensor:
        return normalise(self.normalise, x, self.gamma, self.beta)


def scale_channels(multiply: kernels.Kernel, x: Tensor, gamma: Tensor) -> Tensor:
    """x (..., D) times gamma (D,)."""
    return multiply(x.reshape(-1, x.shape[-1]), cast(gamma, x.dtype)[None]).reshape(x.shape)


class LayerScale(nn.Cell):
    """A learned gain per channel on a residual branch. Source: open_clip.transformer.LayerScale."""

    def __init__(self, width: int, init_value: float) -> None:
        super().__init__()
        self.gamma = new_parameter(Constant(init_value), (width,), ms.float32, "gamma")
        self.multiply = kernels.multiply()

    def construct(self, x: Tensor) -> Tensor:
        return scale_channels(self.multiply, x, self.gamma)


def gelu_by_sigmoid(x: Tensor) -> Tensor:
    """x * sigmoid(1.702 x). Source: open_clip.transformer.QuickGELU."""
    return x * ops.sigmoid(ops.mul(x, 1.702))


def activation(quick_gelu: bool) -> kernels.Kernel:
    """The activation of a feedforward layer."""
    return gelu_by_sigmoid if quick_gelu else kernels.gelu()
