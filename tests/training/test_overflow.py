"""An overflow on one device leaves an update out on all, with infinities and where the device saturates with a flag."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mindone_coca import device
from mindone_coca.distributed import Ranks
from mindone_coca.training import overflow
from mindone_coca.training.optim import AdamW
from mindone_coca.training.overflow import FiniteOnAll
from mindone_coca.training.settings import OptimConfig

pytestmark = pytest.mark.graphs

LARGEST = 65504.0  # of float16


def reads_flag(inputs: tuple[Tensor, ...]) -> Tensor:
    """As `all_finite` on a 910A: the device's flag, which stands here for a number that ended at the largest."""
    overflows = ms.Tensor(0.0, ms.float32)
    for x in inputs:
        overflows = overflows + (x.abs() >= LARGEST).astype(ms.float32).sum()
    return overflows == 0


class Small(nn.Cell):
    """What AdamW asks of a model."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = ms.Parameter(Tensor(np.ones((2, 3), np.float32)), name="weight")
        self.logit_scale = ms.Parameter(Tensor(np.float32(1)), name="logit_scale")

    def blocks_after(self, name: str) -> int:
        return 0


@pytest.fixture(params=["infinities", "saturation"])
def mode(request, monkeypatch) -> str:
    device.ensure_configured()
    if request.param == "saturation":
        monkeypatch.setattr(overflow, "all_finite", reads_flag)
    return request.param


def test_an_update_is_left_out(mode):
    model = Small()
    optimiser = AdamW(model, OptimConfig(), Ranks(), loss_scaling=True)
    optimiser.set_train(False)

    def update(value: float) -> tuple[bool, bool, float]:
        """Whether it was said to be made, whether it was, and the loss scale after it."""
        before = model.weight.asnumpy().copy()
        gradient = np.full((2, 3), 2.0, np.float32)
        gradient[1, 1] = value
        _, good = optimiser((Tensor(gradient), Tensor(np.float32(1))), Tensor(np.float32(0.1)))
        changed = not np.array_equal(before, model.weight.asnumpy())
        return bool(good.asnumpy()), changed, float(optimiser.loss_scale.asnumpy())

    assert update(3.0) == (True, True, 65536)
    assert update(np.inf) == (False, False, 32768)
    assert update(np.nan)[:2] == (False, False)
    scale = float(optimiser.loss_scale.asnumpy())
    # that value is a number like any other, unless the device saturates
    assert update(LARGEST) == ((True, True, scale) if mode == "infinities" else (False, False, scale / 2))


class AnotherOverflowed(nn.Cell):
    """A sum over two devices, of which the other one overflowed."""

    def construct(self, x: Tensor) -> Tensor:
        return x + 1.0


@pytest.mark.parametrize("value", [1.0, np.inf])
def test_devices_agree(value, mode):
    gradients = (Tensor(np.array([value, 2.0], np.float32)),)
    alone = FiniteOnAll(Ranks())
    assert alone(gradients).asnumpy() == float(value == 1)
    together = FiniteOnAll(Ranks())
    together.sum = AnotherOverflowed()
    assert together(gradients).asnumpy() == 0
