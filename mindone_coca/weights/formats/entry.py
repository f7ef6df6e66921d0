"""What every weights file looks like once opened: named tensors that are read one at a time."""

import mmap
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import numpy as np

from mindone_coca.errors import InputError
from mindone_coca.weights.formats.dtypes import DTYPES

# Kernels read tensors with vector loads; a less aligned place in a file is copied to memory of our own.
_ALIGNMENT = 16


@dataclass(frozen=True)
class Entry:
    """One tensor of a weights file, not read yet.

    `read()` gives a C-contiguous array of `shape`; bfloat16 comes as its bit patterns in uint16.
    The array may be a copy-on-write view of the mapped file. `check()` raises InputError where the
    format keeps a checksum of the tensor and the data do not match it.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]
    check: Callable[[], None] = lambda: None

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * DTYPES[self.dtype].storage.itemsize


@dataclass
class Weights(Mapping[str, Entry]):
    """An opened weights file or folder: a mapping from tensor name to `Entry`, in file order.

    Attributes:
        path: what was opened, as given.
        format: "safetensors", "torch" or "mindspore" (.ckpt).
        entries: the tensors.
        metadata: text beside the tensors (safetensors only).
        notes: what was left out or chosen while opening, one sentence each, for a log.
    """

    path: Path
    format: str
    entries: dict[str, Entry]
    metadata: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    files: list["MappedFile"] = field(default_factory=list)

    def __getitem__(self, name: str) -> Entry:
        return self.entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def release(self) -> None:
        """Give back the memory of pages read so far. Writes to arrays still held are lost."""
        for file in self.files:
            file.release()


class MappedFile:
    """A whole file mapped copy-on-write: reading costs no copy, writing to an array changes no file.

    Raises:
        InputError: the file is missing, unreadable or empty.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            with open(path, "rb") as file:
                self.size = os.fstat(file.fileno()).st_size
                if self.size == 0:
                    raise InputError(f"{path}: the file is empty; download or save it again")
                self.buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error

    def bytes(self, start: int, end: int) -> bytes:
        """A copy of a small range; short at the end of the file."""
        return self.buffer[start:end]

    def array(self, start: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """The tensor at byte `start`; the caller has checked that it lies inside the file."""
        storage = DTYPES[dtype].storage
        if prod(shape) == 0:
            return np.empty(shape, storage)
        raw = np.frombuffer(self.buffer, np.uint8, prod(shape) * storage.itemsize, start)
        if raw.ctypes.data % _ALIGNMENT:
            raw = raw.copy()
        return raw.view(storage).reshape(shape)

    def entry(self, start: int, shape: tuple[int, ...], dtype: str) -> Entry:
        """The tensor at byte `start`, to be read later."""
        return Entry(shape, dtype, lambda: self.array(start, shape, dtype))

    def release(self) -> None:
        if hasattr(mmap, "MADV_DONTNEED"):
            self.buffer.madvise(mmap.MADV_DONTNEED)
