"""The forms chosen for the CPU: the numbers of the plain ones, and none of the places of numbers that those keep."""

import gc
import os
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mindone_coca import device
from mindone_coca.kernels import Kernel, cpu, plain
from tests.models import Graph

pytestmark = pytest.mark.graphs


@pytest.fixture(autouse=True)
def _graph_mode():
    device.ensure_configured()


def draw(*shapes: tuple[int, ...]) -> list[Tensor]:
    rng = np.random.default_rng(0)
    return [Tensor(rng.standard_normal(shape).astype(np.float32)) for shape in shapes]


class Summed(Graph):
    """A kernel's output, each number weighted, as a scalar."""

    def __init__(self, kernel: Kernel, weight: Tensor) -> None:
        super().__init__(kernel)
        self.weight = weight

    def construct(self, *inputs: Tensor) -> Tensor:
        return (self.kernel(*inputs) * self.weight).sum()


CASES = {
    "linear of few rows": (cpu.linear, plain.linear, [(3, 1, 12), (7, 12), (7,)]),
    "linear of some rows": (cpu.linear, plain.linear, [(4, 5, 12), (7, 12), (7,)]),
    "linear of many rows": (cpu.linear, plain.linear, [(9, 10, 12), (7, 12)]),
    "positions": (cpu.add_to_each, plain.add_to_each, [(3, 4, 5), (4, 5)]),
    "product with a column": (cpu.multiply, plain.multiply, [(6, 5), (6, 1)]),
    "attention": (cpu.attention, plain.attention, [(2, 3, 4, 8), (2, 3, 5, 8), (2, 3, 5, 8), (2, 1, 1, 5)]),
    "heads of few numbers": (cpu.swap_middle, plain.swap_middle, [(2, 5, 3, 4)]),
    "heads of many": (cpu.swap_middle, plain.swap_middle, [(3, 40, 10, 8)]),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_the_plain_form(name):
    ours, theirs, shapes = CASES[name]
    inputs = draw(*shapes)
    want = Graph(theirs)(*inputs)
    (weight,) = draw(want.shape)
    places = tuple(range(len(inputs)))
    for got, expected in zip(
        (Graph(ours)(*inputs), *ms.grad(Summed(ours, weight), places)(*inputs)),
        (want, *ms.grad(Summed(theirs, weight), places)(*inputs)),
        strict=True,
    ):
        np.testing.assert_allclose(got.asnumpy(), expected.asnumpy(), atol=2e-5)


@pytest.mark.parametrize(("count", "k"), [(640, 4), (701, 5), (100, 4), (64 * 9 + 1, 4)])
def test_the_best_are_those_of_the_plain_form(count, k):
    x = np.random.default_rng(0).permuted(np.tile(np.arange(count, dtype=np.float32), (6, 1)), axis=1)
    x[0, -1], x[1, :] = 1e4, np.sort(x[1])[::-1]  # the last number; all in one group
    x[2, :10] = -np.inf
    for got, expected in zip(cpu.TopK(k)(Tensor(x)), plain.TopK(k)(Tensor(x)), strict=True):
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got.asnumpy(), expected.asnumpy())


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


SIZE = 2048 * 2048 * 4  # bytes of each result
KEPT = {
    "positions": (cpu.add_to_each, plain.add_to_each, [(2, 1024, 2048), (1024, 2048)]),
    "product with a row": (cpu.multiply, plain.multiply, [(2048, 2048), (1, 2048)]),
    "attention": (cpu.attention, plain.attention, [(1, 1, 2048, 8)] * 3 + [(1, 1, 1, 2048)]),
    "heads": (cpu.swap_middle, plain.swap_middle, [(4, 256, 64, 64)]),
}


@pytest.mark.parametrize("name", KEPT)
def test_nothing_is_kept_that_the_plain_form_keeps(name):
    ours, theirs, shapes = KEPT[name]
    inputs = draw(*shapes)
    cells = []

    def growth(kernel: Kernel) -> int:
        cell = Graph(kernel)
        cells.append(cell)
        gc.collect()
        before = resident()
        cell(*inputs).asnumpy()
        gc.collect()
        return resident() - before

    growth(ours)  # MindSpore's own pool grows at first
    small, large = growth(ours), growth(theirs)
    print(name, small / SIZE, large / SIZE)
    assert small < 2 * SIZE and large > small + (1.5 if name == "heads" else 3) * SIZE
