"""Files and folders wherever they are: `pathlib.Path` here, `UrlPath` behind a URL, with the same words for both.

Readers of training's data, lists and weights take either. What only a file of this machine can be is refused by
`here`.
"""

import hashlib
import json
import os
import posixpath
from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import urlsplit, urlunsplit

from mindone_coca import storage
from mindone_coca.errors import InputError
from mindone_coca.files import atomic_path, user_cache
from mindone_coca.remote import Remote, RemoteFile
from mindone_coca.storage import is_url, shown

_GAP = 1 << 16  # bytes between two wanted pieces that are rather fetched than asked for apart


class UrlPath:
    """A file or folder behind a URL. As text it has no user, password and query, so that messages may name it.

    Attributes:
        url: with all that is in it.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._path = PurePosixPath(urlsplit(url).path)

    def __str__(self) -> str:
        return shown(self.url)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UrlPath) and self.url == other.url

    def __hash__(self) -> int:
        return hash(self.url)

    def __lt__(self, other: "UrlPath") -> bool:
        return self.url < other.url

    @property
    def name(self) -> str:
        return self._path.name

    @property
    def suffix(self) -> str:
        return self._path.suffix

    @property
    def parent(self) -> "UrlPath":
        parts = urlsplit(self.url.rstrip("/"))
        return UrlPath(urlunsplit((parts.scheme, parts.netloc, parts.path.rpartition("/")[0], "", "")))

    def __truediv__(self, other: str) -> "Place":
        if is_url(other):
            return UrlPath(other)
        if os.path.isabs(other):  # as of paths
            return Path(other)
        parts = urlsplit(self.url)
        path = posixpath.normpath(posixpath.join(parts.path or "/", other))
        return UrlPath(urlunsplit((parts.scheme, parts.netloc, path, "", "")))

    def is_file(self) -> bool:
        return storage.size(self.url) >= 0

    def is_dir(self) -> bool:
        return storage.is_folder(self.url)

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def files(self, pattern: str) -> list["UrlPath"]:
        """Those in this folder that a pattern matches, sorted."""
        return [UrlPath(url) for url in storage.listing(f"{self.url.rstrip('/')}/{pattern}")]

    def read_bytes(self) -> bytes:
        return storage.read(self.url)


Place = Path | UrlPath


def place(path: str | os.PathLike) -> Place:
    """A path, with ~ expanded, or a URL."""
    if isinstance(path, str) and is_url(path):
        return UrlPath(path)
    return Path(path).expanduser()


def here(path: str, what: str, instead: str) -> Path:
    """A path of this machine, with ~ expanded. Raises InputError for a URL: `what` stands at its head, `instead` says
    what to do."""
    if is_url(path):
        raise InputError(f"{what}: {shown(path)}: must be on this machine; {instead}")
    return Path(path).expanduser()


def is_file(path: Place) -> bool:
    """Whether there is a file; at a path that the system refuses, as one too long, there is none."""
    return path.is_file() if isinstance(path, UrlPath) else os.path.isfile(path)


def content_of(path: Place) -> Path | str:
    """Where the bytes are, as samples have it: a path, or the whole URL."""
    return path.url if isinstance(path, UrlPath) else path


def open_binary(path: Place) -> IO[bytes]:
    """A file to read from any position; behind a URL by ranges."""
    if isinstance(path, UrlPath):
        return BufferedReader(RemoteFile(Remote(path.url), path.name))
    return open(path, "rb")


def read_ranges(path: Place, ranges: Sequence[range]) -> list[bytes]:
    """Pieces of a file; those that lie together behind a URL are one request."""
    if not isinstance(path, UrlPath):
        with open(path, "rb") as file:
            return [os.pread(file.fileno(), len(piece), piece.start) for piece in ranges]
    start, end = min(piece.start for piece in ranges), max(piece.stop for piece in ranges)
    if end - start > sum(map(len, ranges)) + _GAP:
        return [storage.read(path.url, piece.start, piece.stop) for piece in ranges]
    content = storage.read(path.url, start, end)
    return [content[piece.start - start : piece.stop - start] for piece in ranges]


def local_copy(url: str) -> Path:
    """A copy of a file behind a URL, for what reads files of this machine alone: made once, and again when the file has
    changed. Files of one folder there have one folder here. Raises InputError."""
    there = UrlPath(url)
    folder = user_cache() / "copies" / hashlib.sha256(there.parent.url.encode()).hexdigest()[:16]
    copy, mark = folder / there.name, folder / f".{there.name}.state"
    state = json.dumps(storage.state(url))
    if not (copy.is_file() and mark.is_file() and mark.read_text() == state):
        with atomic_path(copy) as partial:
            storage.download(url, partial)
        with atomic_path(mark) as partial:
            partial.write_text(state)
    return copy
