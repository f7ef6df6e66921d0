"""Forms of one operation against each other on the CPU, behind the choices of mindone_coca/kernels/cpu.py.

    python -m benchmarks.forms [--rounds 25]

Microseconds for each use in a graph of many; a product has a weight of its own in each, so that it reads memory.
"""

import argparse
import os
import time
from collections.abc import Callable
from functools import partial

os.environ.setdefault("GLOG_v", "3")

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from mindone_coca.kernels import cpu, plain

ROWS = 16  # of a decoding step for eight images
WEIGHTS, USES = 40, 6
PRODUCTS = (768, 768), (2304, 768), (3072, 768), (768, 3072)  # (out, in)

update_places, update_rows = ops.ScatterNdUpdate(), ops.ScatterUpdate()


def gelu_by_erf(x: Tensor) -> Tensor:
    return x * cpu.cdf_by_erf(x)


def gelu_in_one_piece(x: Tensor) -> Tensor:
    return x * cpu.cdf_by_polynomial(x)


class Repeated(nn.Cell):
    """A form, given x and `others`, used again and again on what it made."""

    def __init__(self, form: Callable, *others: Tensor) -> None:
        super().__init__()
        self.form, self.others = form, others

    def construct(self, x: Tensor) -> Tensor:
        for _ in range(USES):
            x = self.form(x, *self.others)
        return x


class Many(nn.Cell):
    """A form with one Parameter after another; a number of each result is kept."""

    def __init__(self, form: Callable, shape: tuple[int, ...], *others: Tensor) -> None:
        super().__init__()
        self.form, self.others = form, others
        self.parameters = ParameterTuple([Parameter(draw(*shape), name=f"p{i}") for i in range(WEIGHTS)])

    def construct(self, x: Tensor) -> Tensor:
        y = x[:1, :1]
        for i in range(WEIGHTS):
            y = y + self.form(x, self.parameters[i], *self.others).reshape(-1, 1)[:1]
        return y


draws = np.random.default_rng(0)


def draw(*shape: int) -> Tensor:
    return Tensor(draws.standard_normal(shape).astype(np.float32))


def measure_form(rounds: int, name: str, cell: nn.Cell, x: Tensor, uses: int) -> None:
    cell.set_train(False)
    cell(x)  # compiles
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        cell(x).asnumpy()
        seconds.append(time.perf_counter() - start)
    print(f"{name:56} {np.median(seconds) / uses * 1e6:9.1f} us", flush=True)


def write_places(x: Tensor, cached: Tensor, places: Tensor) -> Tensor:
    return update_places(cached, places, x)[:1, :1, :1, :1]


def write_rows(x: Tensor, cached: Tensor, places: Tensor) -> Tensor:
    return update_rows(cached, places, x)[:1, :1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    measure = partial(measure_form, parser.parse_args().rounds)
    ms.set_context(mode=ms.GRAPH_MODE)
    for out, width in PRODUCTS:
        x = draw(ROWS, width)
        for name, form, shape in (
            ("as stored", ops.MatMul(transpose_b=True), (out, width)),
            ("from left", cpu.linear, (out, width)),
            ("(in, out)", ops.MatMul(), (width, out)),
        ):
            measure(f"product, {ROWS} rows, weight {out} x {width}: {name}", Many(form, shape), x, WEIGHTS)
    for rows, width in ((1028, 1024), (257, 1024), (2040, 768)):
        x, gamma, beta = draw(rows, width), draw(width), draw(width)
        for name, norm in (("operator", plain.layer_norm), ("written out", cpu.layer_norm)):
            measure(f"norm, {rows} x {width}: {name}", Repeated(norm, gamma, beta), x, USES)
    for rows, width in ((ROWS, 3072), (256, 4096), (1024, 4096)):
        for gelu in (gelu_by_erf, gelu_in_one_piece, cpu.gelu):
            measure(f"GELU, {rows} x {width}: {gelu.__name__}", Repeated(gelu), draw(rows, width), USES)
    images, heads, slots, head = 8, 12, 64, 64
    places = np.stack(np.meshgrid(np.arange(images), np.arange(heads), (3, 35), indexing="ij"), -1).reshape(-1, 3)
    flat = (places[:, 0] * heads + places[:, 1]) * slots + places[:, 2]
    x, as_index = draw(len(places), head), partial(Tensor, dtype=ms.int32)
    measure("write, by places", Many(write_places, (images, heads, slots, head), as_index(places)), x, WEIGHTS)
    measure("write, by rows", Many(write_rows, (images * heads * slots, head), as_index(flat)), x, WEIGHTS)
    for name, keys, by in (
        ("as stored", (images, heads, 255, head), ops.BatchMatMul(transpose_b=True)),
        ("transposed", (images, heads, head, 255), ops.BatchMatMul()),
    ):
        measure(f"queries by keys of 255 tokens, {name}", Many(by, keys), draw(images, heads, 2, head), WEIGHTS)


if __name__ == "__main__":
    main()
