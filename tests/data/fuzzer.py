"""Makes damaged tables, lists, shards, folders and pictures out of valid ones, by a seed."""

import random
from collections.abc import Callable
from pathlib import Path

from tests.data import fuzz_folders, fuzz_json, fuzz_pictures, fuzz_shards, fuzz_tables
from tests.data.mutants import Mutant, Pictures

MODULES = (fuzz_tables, fuzz_json, fuzz_shards, fuzz_folders, fuzz_pictures)


def all_kinds() -> dict[str, Callable[[random.Random, Pictures], Mutant]]:
    """The kinds of damage by name, in turn from each module."""
    return {
        f"{module.__name__.rpartition('.')[2]} {name}": function
        for module in MODULES
        for name, function in vars(module).items()
        if name.startswith("kind_")
    }


class Fuzzer:
    """`make(number)` writes source `number` into a new folder of `folder`: (kind, what is to come of it)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kinds = list(all_kinds().items())

    def make(self, number: int) -> tuple[str, Mutant]:
        name, make = self.kinds[number % len(self.kinds)]
        return name, make(random.Random(f"data {number}"), Pictures(self.folder / str(number)))
