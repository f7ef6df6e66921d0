"""Lists too long for memory: a text file, cut into parts in the order of its lines.

Nothing but the list is read at planning time, and of it only where each part begins is kept. A file is known by the
number of its line, so that nothing is lost where a path stands in the list twice.
"""

import codecs
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mindone_coca.data.text import encoding_of
from mindone_coca.errors import InputError
from mindone_coca.storage import is_url, shown
from mindone_coca.waiting import Wait

LONG = 1_000_000  # inputs; from here on a list is long
PART_LINES = 8192  # of the outputs' parts; whole groups of files
_READ = 1 << 24  # bytes at once


class LineGroup(list[str]):
    """The files of some lines, each once.

    Attributes:
        lines: the numbers, from 0, of each file's lines.
    """

    def __init__(self, first: int, entries: list[str]) -> None:
        self.lines: dict[str, list[int]] = {}
        for number, entry in enumerate(entries, first):
            if entry:
                self.lines.setdefault(entry, []).append(number)
        super().__init__(self.lines)


class LongList:
    """A list of files, one a line; lines with nothing in them count and are passed over.

    Args:
        path: of this machine. given: what the user calls it, which may be a URL.
    Attributes:
        parts: how many there are.
        identity: what tells the list from a changed one.
    """

    def __init__(self, path: str, given: str | None = None) -> None:
        self.path, given = path, given or path
        with Wait(f"reading {path}"):
            self._starts, self._length = _scan(Path(path))
        self.parts = len(self._starts) - 1
        name = shown(given) if is_url(given) else os.path.abspath(given)
        self.identity = {"list": name, "lines": self._length, "digest": _digest(Path(path))}

    def __len__(self) -> int:
        return self._length

    def lines_of(self, part: int) -> range:
        """The numbers of a part's lines."""
        return range(part * PART_LINES, min((part + 1) * PART_LINES, self._length))

    def entries(self, part: int) -> list[str]:
        """The lines of a part."""
        start, end = self._starts[part : part + 2]
        with open(self.path, "rb") as file:
            file.seek(start)
            content = file.read(end - start)
        if part == 0:
            content = content.removeprefix(codecs.BOM_UTF8)
        lines = [os.fsdecode(line.removesuffix(b"\r")) for line in content.split(b"\n")]
        return lines[: len(self.lines_of(part))]

    def groups(self, part: int, size: int) -> Iterator[LineGroup]:
        """The part's groups of up to `size` lines; those without any file are left out."""
        entries, first = self.entries(part), self.lines_of(part).start
        for start in range(0, len(entries), size):
            if group := LineGroup(first + start, entries[start : start + size]):
                yield group


def is_long(path: str) -> bool:
    """Whether a list has so many lines that it is worked off by these. Raises InputError for a long one of an encoding
    that cannot be cut."""
    lines = 0
    with open(path, "rb") as file:
        head = file.read(4)
        file.seek(0)
        while lines < LONG and (content := file.read(_READ)):
            lines += content.count(b"\n")
    if lines >= LONG and encoding_of(head) != "utf-8-sig":
        raise InputError(f"{path}: so long a list must be UTF-8; save it as that")
    return lines >= LONG


def _scan(path: Path) -> tuple[np.ndarray, int]:
    """Where each part starts, with the end of the last; and the number of lines."""
    starts, lines, position, ends_open = [0], 0, 0, False
    with open(path, "rb") as file:
        while content := file.read(_READ):
            ends = np.flatnonzero(np.frombuffer(content, np.uint8) == ord("\n"))
            wanted = np.arange(-(lines + 1) % PART_LINES, len(ends), PART_LINES)  # the last line end of each part
            starts += (position + ends[wanted] + 1).tolist()
            lines += len(ends)
            position += len(content)
            ends_open = not content.endswith(b"\n")
    if starts[-1] != position:
        starts.append(position)
    return np.array(starts, np.int64), lines + ends_open


def _digest(path: Path) -> str:
    """Of 64 pieces of the list and its size."""
    size, digest = path.stat().st_size, hashlib.sha256()
    digest.update(str(size).encode())
    with open(path, "rb") as file:
        for piece in range(64):
            file.seek(piece * max(size - 4096, 0) // 63)
            digest.update(file.read(4096))
    return digest.hexdigest()[:16]
