"""Low-rank adapters of linear layers (LoRA, arXiv 2106.09685).

A layer keeps its frozen weight W and adds scale * B A x. As with weights the layouts are PyTorch's: A is (r, in), B is
(out, r). The packed attention has one pair for query, key and value, A (r, D) and B (3 D, r), as the peft library has.

A cell that takes adapters names in `adapted` the weights they are for; that of `weight` is its `weight_adapter`.
"""

import math

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import HeUniform, Zero, initializer

from mindone_coca import kernels
from mindone_coca.model.family import ADAPTER_SIDES

DRAW = "lora.draw"  # the number that dropout follows: a parameter, for it changes between passes, but no weight
# odd numbers that spread the bits of a place, a draw and a layer (Weyl's and MurmurHash3's constants)
_PLACE, _DRAW, _LAYER, _MIX = -1640531535, -2048144789, 668265263, -1028477387
_BITS = 23  # of a hash that become a number in [0, 1), all of which float32 holds


class SeededDropout(nn.Cell):
    """Dropout whose mask is a function of the layer and of a number that the caller sets before each pass; 0 keeps all.

    So a pass that is computed again drops the same, be it for recomputation or in a run that goes on.

    Args:
        rate: the share that is dropped. draw: the number, int32 (). layer: told apart by it.
    """

    def __init__(self, rate: float, draw: Parameter, layer: int) -> None:
        super().__init__(auto_prefix=False)
        self.rate, self.draw = rate, draw
        self.layer = int(np.int32(np.int64(layer) * _LAYER & 0x7FFFFFFF))

    def construct(self, x: Tensor) -> Tensor:
        h = ops.arange(0, x.size, 1).astype(ms.int32) * _PLACE + (self.draw * _DRAW + self.layer)
        for shift in (16, 13):
            h = ops.bitwise_xor(h, _shifted(h, shift)) * _MIX
        h = ops.bitwise_xor(h, _shifted(h, 16))
        uniform = _shifted(h, 32 - _BITS).astype(ms.float32) * 2.0**-_BITS
        rate = ops.minimum(self.draw, 1).astype(ms.float32) * self.rate
        kept = (uniform >= rate).astype(ms.float32) / (1.0 - rate)
        return x * kept.reshape(x.shape).astype(x.dtype)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """The bits of int32 moved right, zeros from the left."""
    return ops.bitwise_and(ops.bitwise_right_shift(x, Tensor(bits, ms.int32)), Tensor((1 << (32 - bits)) - 1, ms.int32))


class Adapter(nn.Cell):
    """x (..., in) -> scale * B A dropout(x) (..., out), or only the outputs from `low` to `high`.

    A is drawn as torch.nn.Linear draws weights, B is 0, so that nothing changes at first. Both are float32.

    Args:
        weight: the adapted one, (out, in). dropout: a cell on x.
    """

    def __init__(self, weight: Parameter, rank: int, scale: float, dropout: nn.Cell | None = None) -> None:
        super().__init__(auto_prefix=False)
        outputs, inputs = weight.shape
        self.weight_name, self.scale = weight.name, scale
        draw = initializer(HeUniform(math.sqrt(5)), (rank, inputs), ms.float32)
        self.a = Parameter(draw, name="a")
        self.b = Parameter(initializer(Zero(), (outputs, rank), ms.float32), name="b")
        self.dropout, self.linear = dropout, kernels.linear()

    def settle(self) -> None:
        """Give the parameters their names, which the cell that the adapter was put into has changed."""
        self.a.name, self.b.name = (self.weight_name + suffix for suffix in ADAPTER_SIDES)
        if isinstance(self.dropout, SeededDropout):
            self.dropout.draw.name = DRAW

    def construct(self, x: Tensor, low: int = 0, high: int | None = None) -> Tensor:
        if self.dropout is not None:
            x = self.dropout(x)
        low_rank = self.linear(x, self.a.astype(x.dtype)) * self.scale
        b = self.b if high is None else self.b[low:high]  # a slice of all would be computed, and its gradient too
        return self.linear(low_rank, b.astype(x.dtype))

    def change(self, low: int = 0, high: int | None = None) -> Tensor:
        """What is added to the rows of the weight from `low` to `high`, (rows, in), float32."""
        return ops.matmul(self.b[low:high], self.a) * self.scale


def no_adapter() -> Adapter | None:
    """What stands in an adapter's place until there is one."""
    return None


def insert(cell: nn.Cell, weight: str, adapter: Adapter) -> None:
    """Put an adapter into a cell that has `weight` among its `adapted`."""
    setattr(cell, f"{weight}_adapter", adapter)
    adapter.settle()
