"""Whether gradients overflowed, agreed over all devices."""

import mindspore as ms
from mindspore import Tensor, nn
from mindspore.amp import all_finite

from mindone_coca.distributed import Ranks, Sum


class FiniteOnAll(nn.Cell):
    """Gradients of this device, not summed over devices yet -> 1.0 where none overflowed on any device, else 0.0.

    `all_finite` looks for what is not finite. Ascend's 910A has no such numbers, an overflow there gives the largest
    one: there, and on later products set to saturate, it reads the device's own flag, which stands for all that ran
    since it was last read, and clears it.
    """

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self.sum = Sum(ranks)

    def construct(self, grads: tuple[Tensor, ...]) -> Tensor:
        overflows = self.sum(1.0 - all_finite(grads).astype(ms.float32))
        return (overflows < 0.5).astype(ms.float32)
