"""Several devices: who this process is, and the two exchanges that data-parallel training needs."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.communication import get_group_size, get_rank, init

from mindone_coca.errors import InputError
from mindone_coca.launcher import find_launch

# An exchange costs its start, whatever it carries: tensors travel together, in at most so many exchanges (and one for
# the rest), each of at least so many numbers.
MOST_BUCKETS, BUCKET_NUMBERS = 10, 1 << 24


@dataclass(frozen=True)
class Ranks:
    """This process's number and how many there are."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def gather(self, number: int) -> list[int]:
        """Each process's number; every process has to ask."""
        if self.size == 1:
            return [number]
        return [int(n) for n in ops.AllGather()(Tensor([number], ms.float32)).asnumpy()]

    def highest(self, number: int) -> int:
        """The highest of all processes' numbers, on which they agree so; every process has to ask."""
        return max(self.gather(number))


def start_ranks() -> Ranks:
    """Join the processes that a launcher started, or alone where there is none. Call it after `device.configure`.

    Raises InputError where the environment promises several processes and they cannot be joined.
    """
    launch = find_launch(os.environ)
    if launch is None:
        return Ranks()
    if refusal := launch.refusal(ms.get_context("device_target"), os.environ):
        raise InputError(refusal)
    try:
        init()
    except (RuntimeError, ValueError) as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise InputError(f"{launch.promise}, which could not be joined: {reason}") from None
    ranks = Ranks(get_rank(), get_group_size())
    if ranks.size != launch.size:
        raise InputError(f"{launch.promise}, but {ranks.size} were joined")
    ms.set_auto_parallel_context(parallel_mode="data_parallel", gradients_mean=False, device_num=ranks.size)
    return ranks


class Gather(nn.Cell):
    """(b, ...) on each device -> (size b, ...) on all, in the order of ranks. Not differentiable on the CPU."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self.exchange = ops.AllGather() if ranks.size > 1 else None

    def construct(self, x: Tensor) -> Tensor:
        return x if self.exchange is None else self.exchange(x)


class Sum(nn.Cell):
    """Sum of one tensor over devices."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self.exchange = ops.AllReduce() if ranks.size > 1 else None

    def construct(self, x: Tensor) -> Tensor:
        return x if self.exchange is None else self.exchange(x)


def bucket_bounds(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """First tensor and the one after the last of each bucket, for tensors of these sizes in their order."""
    least = max(BUCKET_NUMBERS, sum(sizes) // MOST_BUCKETS)
    bounds, start, filled = [], 0, 0
    for number, size in enumerate(sizes, 1):
        filled += size
        if filled >= least or number == len(sizes):
            bounds.append((start, number))
            start, filled = number, 0
    return bounds


class SumTogether(nn.Cell):
    """A tuple of tensors, all of one type -> each summed over devices, by few exchanges.

    Args:
        shapes: of the tensors.
    """

    def __init__(self, ranks: Ranks, shapes: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        self.exchange = ops.AllReduce() if ranks.size > 1 else None
        sizes = [prod(shape) for shape in shapes]
        self.bounds = bucket_bounds(sizes)
        self.starts = tuple(sum(sizes[first:n]) for first, last in self.bounds for n in range(first, last))
        self.map = ops.Map()

    def construct(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if self.exchange is None:
            return tensors
        # mapped: the compiler unrolls loops, that of ops.split too, into calls as deep as they are long, 1000 at most
        flat = self.map(flatten, tensors)
        buckets: tuple[Tensor, ...] = ()  # of each tensor
        for first, last in self.bounds:
            buckets += (self.exchange(ops.concat(flat[first:last])),) * (last - first)
        return self.map(part_of, buckets, self.starts, tensors)


def flatten(x: Tensor) -> Tensor:
    return x.reshape(-1)


def part_of(bucket: Tensor, start: int, like: Tensor) -> Tensor:
    return ops.slice(bucket, (start,), (like.size,)).reshape(like.shape)
