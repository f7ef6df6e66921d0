"""Captions as lines on standard output."""

import sys
from collections.abc import Sequence

from tqdm import tqdm

from mindone_coca.outputs.schema import Record
from mindone_coca.outputs.tables import lines


class Printer:
    """Prints captions in the order of the inputs, whatever the order in which they come.

    Those of a single file stand without its path, and with the alternatives that were asked for.
    """

    def __init__(self, paths: Sequence[str], with_times: bool, single: bool) -> None:
        self._paths = iter(paths)
        self._parts = {"with_path": not single, "with_times": with_times, "with_alternatives": single}
        self._next = next(self._paths, None)
        self._waiting: dict[str, Record] = {}

    def add(self, records: Sequence[Record]) -> None:
        self._waiting |= {record["path"]: record for record in records}
        while self._next in self._waiting:
            for line in lines(self._waiting.pop(self._next), **self._parts):
                tqdm.write(line, file=sys.stdout)  # past a bar
            self._next = next(self._paths, None)
        sys.stdout.flush()  # a signal may end the process before Python does
