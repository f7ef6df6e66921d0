"""The order of work. It depends on the set of inputs alone, so that results do, too.

In floating point, an image's numbers depend on the size of its batch in the last digits (not on its place in it, nor on
its neighbours). So batches are formed within groups of inputs that are the same in every run: a run that is killed and
started again, one of several shards, and a run over the same files in another order all see the same batches.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from mindone_coca.errors import InputError
from mindone_coca.launcher import find_launch


@dataclass(frozen=True)
class Shard:
    """Part `index` (from 0) of `count`."""

    index: int = 0
    count: int = 1

    @property
    def file(self) -> str:
        """The name of its journal."""
        return f"{self.index}-of-{self.count}.jsonl"

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """From "i/n". Raises InputError."""
        match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if not match or int(match[1]) >= int(match[2]):
            raise InputError(f"--shard {text}: write i/n with i from 0 to n - 1, such as 0/2 and 1/2")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def from_launcher(cls) -> "Shard":
        """The part of this process among those started together, which need not be joined; the whole without a
        launcher. Raises InputError where it is not told."""
        launch = find_launch(os.environ)
        if launch is None:
            return cls()
        if launch.rank is None:  # msrun over several machines leaves it open unless told --node_rank
            how = "start msrun with --node_rank, or " if launch.variable == "MS_WORKER_NUM" else ""
            raise InputError(f"{launch.promise}, but {launch.rank_variable} is not set; {how}give --shard i/n")
        return cls(launch.rank, launch.size)


def reading_threads(cores: int) -> int:
    """How many threads read for a device that has so many cores: half of them, 1 to 8."""
    return min(8, max(1, cores // 2))


def work_groups(paths: Sequence[str], size: int, shard: Shard) -> list[list[str]]:
    """Groups of up to `size` paths, in the order of paths; every shard.count-th of them, from number shard.index."""
    ordered = sorted(paths)
    groups = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    return groups[shard.index :: shard.count]
