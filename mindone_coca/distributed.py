"""Several devices: who this process is, and the two exchanges that data-parallel training needs."""

import os
from dataclasses import dataclass

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.communication import get_group_size, get_rank, init

from mindone_coca.errors import InputError
from mindone_coca.launcher import find_launch


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
        raise InputError(
            f"{launch.variable} promises {launch.size} processes, which could not be joined: {reason}"
        ) from None
    ranks = Ranks(get_rank(), get_group_size())
    if ranks.size != launch.size:
        raise InputError(f"{launch.variable} promises {launch.size} processes, but {ranks.size} were joined")
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
