"""A file behind a URL as one that is open: read by ranges, of which some are kept."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import RawIOBase
from threading import Lock
from typing import Any

from mindone_coca import storage

BLOCK = 1 << 20  # bytes of one request
_KEPT_BLOCKS = 16  # of a file


class Remote:
    """A file behind a URL, read by blocks, some of which are kept.

    Attributes:
        size: in bytes.
        fetched: bytes that were asked for so far.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._blocks: dict[int, bytes] = {}
        self._lock = Lock()
        self._hollow: list[range] = []
        # one request for a small file: what is shorter than asked for is all of it
        head = storage.retried(url, self._head)
        self.fetched = len(head)
        self.size = len(head) if len(head) != BLOCK else storage.size(url)
        for number in range(-(-len(head) // BLOCK)):  # several where the server knows no ranges and gave all
            self._blocks[number] = head[number * BLOCK : (number + 1) * BLOCK]

    def _head(self) -> bytes:
        system, path = storage.system_of(self.url)
        try:
            return system.cat_file(path, start=0, end=BLOCK)
        except FileNotFoundError:
            raise
        except Exception as error:  # S3 refuses to give a range of nothing
            try:
                empty = system.info(path).get("size") == 0
            except Exception:
                raise error from None
            if empty:
                return b""
            raise

    def read(self, start: int, end: int) -> bytes:
        """The bytes from `start` to `end`, which may lie behind the end."""
        end = min(end, self.size)
        parts = []
        for number in range(start // BLOCK, -(-end // BLOCK)):
            first = number * BLOCK
            parts.append(self._block(number)[max(start - first, 0) : end - first])
        return b"".join(parts)

    def _block(self, number: int) -> bytes:
        start, end = number * BLOCK, min((number + 1) * BLOCK, self.size)
        if any(start >= hole.start and end <= hole.stop for hole in self._hollow):
            return bytes(end - start)
        with self._lock:
            if number not in self._blocks:
                self._blocks[number] = self._fetch(start, end)
                if len(self._blocks) > _KEPT_BLOCKS:
                    del self._blocks[next(iter(self._blocks))]
            return self._blocks[number]

    def _fetch(self, start: int, end: int) -> bytes:
        def ask() -> bytes:
            content = storage.read_range(self.url, start, end)
            if len(content) < end - start:
                raise OSError("the answer is short")
            return content

        self.fetched += end - start
        return storage.retried(self.url, ask)

    @contextmanager
    def without_data(self) -> Iterator[None]:
        """Within, what an MP4 or MOV file has in its `mdat` boxes is zeros, and is not fetched: for those who want its
        tables alone."""
        self._hollow = list(self._data_boxes())
        try:
            yield
        finally:
            self._hollow = []

    def _data_boxes(self) -> Iterator[range]:
        position = 0
        while position + 16 <= self.size:
            head = self.read(position, position + 16)
            length, kind = int.from_bytes(head[:4], "big"), head[4:8]
            if length == 1:
                length = int.from_bytes(head[8:], "big")
            if length == 0:
                length = self.size - position
            if length < 8 or not kind.isalpha():
                return
            if kind == b"mdat":
                yield range(position + 16, position + length)
            position += length


class RemoteFile(RawIOBase):
    """A `Remote` as a file that is open.

    Args:
        name: which some readers take for a hint at what it holds.
    """

    def __init__(self, remote: Remote, name: str) -> None:
        self._remote, self.name, self._position = remote, name, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._remote.size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        content = self._remote.read(self._position, self._position + len(buffer))
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)
