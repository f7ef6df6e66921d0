"""What a training source is, and the words that all its readers share.

A source is anything with `len(source)` and `source[index] -> Sample`. Sources are read by several processes at
once, so they keep no open files.
"""

import json
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mindone_coca.account import Account, some_of
from mindone_coca.errors import InputError
from mindone_coca.places import Place, place
from mindone_coca.typed_mapping import nearest
from mindone_coca.video.media import Encoded, encoded


@dataclass(frozen=True)
class Sample:
    """An image or video with its captions."""

    name: str  # file or archive member, for messages
    captions: Sequence[str]  # one is drawn for each use
    content: Path | bytes | str  # the encoded file, or where it is: a path, or a URL (str)
    image_id: int | str | None = None  # in COCO's lists

    @property
    def encoded(self) -> Encoded:
        """What the reader of images and videos takes. Raises InputError for a URL that cannot be reached."""
        if isinstance(self.content, str):
            return encoded(self.content)
        return Encoded(self.content, self.name)

    def read(self) -> bytes:
        """The bytes of the encoded image or video. Raises OSError when the file cannot be read."""
        return self.encoded.read()


class BadSample(Exception):
    """One sample cannot be used; training counts it and goes on with the next."""

    def __init__(self, name: str, reason: str):
        super().__init__(name, reason)
        self.name, self.reason = name, reason


class Source(Protocol):
    """Random access to samples; reading one may raise BadSample."""

    account: Account  # of what was found when the source was opened

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


class PackedRows:
    """Many small JSON values in one block of memory, for lists with millions of rows.

    Forked workers share the block; of a Python list each of them would in time make its own copy, page by page, since
    reading an object writes its reference count.
    """

    def __init__(self, rows: Iterable[Any]):
        block, ends = bytearray(), array("q", [0])
        for row in rows:
            block += json.dumps(row).encode()
            ends.append(len(block))
        self._block, self._ends = bytes(block), np.array(ends)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> Any:
        return json.loads(self._block[self._ends[index] : self._ends[index + 1]])

    def head(self, count: int) -> list[Any]:
        """The first rows, `count` at most."""
        return [self[index] for index in range(min(count, len(self)))]


def existing_file(path: str) -> Place:
    """The file at a path or URL; InputError when there is none."""
    found = place(path)
    if not found.is_file():
        raise InputError(f"{found}: no such {'file, it is a folder' if found.is_dir() else 'file'}")
    return found


def existing_folder(path: str) -> Place:
    """The folder at a path or URL; InputError when there is none."""
    found = place(path)
    if not found.is_dir():
        raise InputError(f"{found}: no such folder")
    return found


def require_key(key: str, known: Iterable[str], where: str | Place, setting: str) -> None:
    """InputError with the nearest known name when `key`, from the setting of that name, is not among `known`."""
    known = list(known)
    if key not in known:
        hint = nearest(key, known) or f"; there are {some_of([str(name) for name in known]) or 'none'}"
        raise InputError(f"{where}: {key!r}, which {setting} asks for, is not in it{hint}")
