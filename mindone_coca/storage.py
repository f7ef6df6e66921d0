"""Files behind URLs, through fsspec: `s3://`, `hf://`, `https://`, and whatever else is installed.

Reading is by ranges, so that a frame of a long video costs no download of all of it. Every request is tried several
times, with growing waits. Who may read is fsspec's affair; what of a URL may be secret is in no message.
"""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from mindone_coca.errors import InputError

Result = TypeVar("Result")
TRIES = 6
FIRST_WAIT = 0.2  # seconds; each further one is twice as long
_URL = re.compile(r"[a-z][a-z0-9+.-]+://")
# what file systems call what changes with a file
_STATE = ("size", "ETag", "etag", "LastModified", "Last-Modified", "last_modified", "last_commit", "mtime", "created")
_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ImportError, ValueError)
# an object appears there once it is whole; elsewhere it gets its name then
_WHOLE_OBJECTS = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hf", "oss", "obs"}


def is_url(path: object) -> bool:
    """Whether a path is a URL rather than a file of this machine."""
    return isinstance(path, str) and _URL.match(path) is not None


def shown(url: str) -> str:
    """A URL without user, password and query, which may hold secrets; a path as it is."""
    if not is_url(url):
        return url
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
            error = _meant(error)
            if attempt == TRIES - 1 or isinstance(error, _LASTING):
                raise _failed(url, error) from None  # whose text may hold the URL with its secrets
        time.sleep(FIRST_WAIT * 2**attempt)
    raise AssertionError


def _meant(error: Exception) -> Exception:
    """What an error says: fsspec's HTTP takes whatever goes wrong for a missing file, and knows no forbidden one."""
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and isinstance(cause, Exception) and _is_of_http(cause):
        error = cause
    status = getattr(error, "status", None) if _is_of_http(error) else None
    if status in (401, 403):
        return PermissionError(status)
    return FileNotFoundError(status) if status in (404, 410) else error


def _is_of_http(error: Exception) -> bool:
    return type(error).__module__.partition(".")[0] == "aiohttp" or isinstance(error, ConnectionError | TimeoutError)


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


def system_of(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it."""
    from fsspec.core import url_to_fs

    return url_to_fs(url)


def size(url: str) -> int:
    """Bytes of a file; -1 where there is none."""

    def ask() -> int:
        system, path = system_of(url)
        try:
            info = system.info(path)
        except FileNotFoundError as error:
            if isinstance(_meant(error), FileNotFoundError):
                return -1
            raise
        if info["type"] == "directory":
            return -1
        known = info.get("size")
        return known if known is not None else len(system.cat_file(path))

    return retried(url, ask)


def is_folder(url: str) -> bool:
    """Whether there are files under a URL."""

    def ask() -> bool:
        system, path = system_of(url)
        return bool(system.isdir(path))

    return retried(url, ask)


def listing(url: str) -> list[str]:
    """The URLs of all files under a folder, or that a pattern matches, sorted."""

    def ask() -> list[str]:
        system, path = system_of(url)
        if any(sign in path for sign in "*?["):
            found = system.glob(path)
            if url.endswith(path):  # what stands before it may hold the host, which paths lack
                return sorted(url.removesuffix(path) + one for one in found)
            return sorted(str(system.unstrip_protocol(one)) for one in found)
        base = path.rstrip("/")
        return sorted(url.rstrip("/") + found[len(base) :] for found in system.find(base))

    return retried(url, ask)


def state(url: str) -> list[str]:
    """What tells a file from a changed one, as far as its file system says. Raises InputError where there is none."""

    def ask() -> list[str]:
        system, path = system_of(url)
        info = system.info(path)
        return [str(info[name]) for name in _STATE if info.get(name) is not None]

    return retried(url, ask)


def read(url: str, start: int | None = None, end: int | None = None) -> bytes:
    """All of a file, or its bytes from `start` to `end`, of which there are fewer at its end."""

    def ask() -> bytes:
        system, path = system_of(url)
        return system.cat_file(path) if start is None or end is None else read_range(url, start, end)

    return retried(url, ask)


def read_range(url: str, start: int, end: int) -> bytes:
    """As `read`, asked once: its errors are the file system's."""
    system, path = system_of(url)
    content = system.cat_file(path, start=start, end=end)
    # a server that knows no ranges gives all
    return content[start:end] if len(content) > end - start else content


def download(url: str, target: Path) -> None:
    """Write all of a file to a path of this machine. Raises InputError."""

    def get() -> None:
        system, path = system_of(url)
        system.get_file(path, str(target))

    retried(url, get)


def upload(file: Path, url: str) -> None:
    """Write a file to a URL, where it appears once it is whole. Raises InputError."""

    def put() -> None:
        system, path = system_of(url)
        scheme = url.partition("://")[0]
        if scheme in _WHOLE_OBJECTS:
            system.put_file(str(file), path)
            return
        system.makedirs(path.rpartition("/")[0], exist_ok=True)
        system.put_file(str(file), f"{path}.partial")
        system.mv(f"{path}.partial", path)

    retried(url, put)
