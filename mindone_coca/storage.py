"""Files behind URLs, through fsspec: `s3://`, `hf://`, `https://`, and whatever else is installed.

Reading is by ranges, so that a frame of a long video costs no download of all of it. Every request is tried several
times, with growing waits. Who may read is fsspec's affair; what of a URL may be secret is in no message.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from mindone_coca.errors import InputError

Result = TypeVar("Result")
TRIES = 6
FIRST_WAIT = 0.2  # seconds; each further one is twice as long
BLOCK = 1 << 20  # bytes of one request
_KEPT_BLOCKS = 16  # of a file
_URL = re.compile(r"[a-z][a-z0-9+.-]+://")
_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ImportError, ValueError)
# an object appears there once it is whole; elsewhere it gets its name then
_WHOLE_OBJECTS = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hf", "oss", "obs"}


def is_url(path: object) -> bool:
    """Whether a path is a URL rather than a file of this machine."""
    return isinstance(path, str) and _URL.match(path) is not None


def shown(url: str) -> str:
    """A URL without user, password and query, which may hold secrets."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def retried(url: str, request: Callable[[], Result]) -> Result:
    """What a request gives, tried again where it fails. Raises InputError that names the URL."""
    for attempt in range(TRIES):
        try:
            return request()
        except InputError:
            raise
        except Exception as error:  # each file system has errors of its own
            if attempt == TRIES - 1 or isinstance(error, _LASTING):
                raise _failed(url, error) from None  # whose text may hold the URL with its secrets
        time.sleep(FIRST_WAIT * 2**attempt)
    raise AssertionError


def _failed(url: str, error: Exception) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(f"{shown(url)}: no such file")
    if isinstance(error, PermissionError):
        return InputError(f"{shown(url)}: access is denied; give fsspec the credentials for it")
    if isinstance(error, ImportError | ValueError) and "://" in url:
        scheme = url.partition("://")[0]
        return InputError(
            f"{shown(url)}: fsspec cannot open {scheme}:// here; install what it needs, as s3fs for s3://"
        )
    return InputError(f"{shown(url)}: cannot be reached ({type(error).__name__}); try again, or look at the network")


def _system(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it."""
    from fsspec.core import url_to_fs

    return url_to_fs(url)


def size(url: str) -> int:
    """Bytes of a file; -1 where there is none."""

    def ask() -> int:
        system, path = _system(url)
        try:
            info = system.info(path)
        except FileNotFoundError:
            return -1
        if info["type"] == "directory":
            return -1
        known = info.get("size")
        return known if known is not None else len(system.cat_file(path))

    return retried(url, ask)


def is_folder(url: str) -> bool:
    """Whether there are files under a URL."""

    def ask() -> bool:
        system, path = _system(url)
        return bool(system.isdir(path))

    return retried(url, ask)


def listing(url: str) -> list[str]:
    """The URLs of all files under a folder, or that a pattern matches, sorted."""

    def ask() -> list[str]:
        system, path = _system(url)
        if any(sign in path for sign in "*?["):
            return sorted(str(system.unstrip_protocol(found)) for found in system.glob(path))
        base = path.rstrip("/")
        return sorted(url.rstrip("/") + found[len(base) :] for found in system.find(base))

    return retried(url, ask)


def read(url: str) -> bytes:
    """All of a file."""

    def ask() -> bytes:
        system, path = _system(url)
        return system.cat_file(path)

    return retried(url, ask)


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
        head = retried(url, self._head)
        self.fetched = len(head)
        self.size = len(head) if len(head) != BLOCK else size(url)
        for number in range(-(-len(head) // BLOCK)):  # several where the server knows no ranges and gave all
            self._blocks[number] = head[number * BLOCK : (number + 1) * BLOCK]

    def _head(self) -> bytes:
        system, path = _system(self.url)
        try:
            return system.cat_file(path, start=0, end=BLOCK)
        except FileNotFoundError:
            raise
        except Exception:  # S3 refuses to give a range of nothing
            if system.info(path).get("size") == 0:
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
            system, path = _system(self.url)
            content = system.cat_file(path, start=start, end=end)
            if len(content) > end - start:  # a server that knows no ranges gives all
                content = content[start:end]
            if len(content) < end - start:
                raise OSError("the answer is short")
            return content

        self.fetched += end - start
        return retried(self.url, ask)

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


def upload(file: Path, url: str) -> None:
    """Write a file to a URL, where it appears once it is whole. Raises InputError."""

    def put() -> None:
        system, path = _system(url)
        scheme = url.partition("://")[0]
        if scheme in _WHOLE_OBJECTS:
            system.put_file(str(file), path)
            return
        system.makedirs(path.rpartition("/")[0], exist_ok=True)
        system.put_file(str(file), f"{path}.partial")
        system.mv(f"{path}.partial", path)

    retried(url, put)
