"""The files of one revision of a repository, whichever hub it is at."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mindone_coca.errors import InputError
from mindone_coca.hub.checksums import check_sum
from mindone_coca.hub.names import HubName

_WEIGHTS = "open_clip_pytorch_model.bin"  # as open_clip calls them where a name says nothing


@dataclass(frozen=True)
class RemoteFile:
    """What a hub says of a file: its size in bytes, and its sha256 where it names it, as it does for large files."""

    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Repository:
    """The files of a repository.

    Attributes:
        name: what asked for it.
        files: all there are, by path within the repository; where the hub cannot be asked, those in the cache.
        get: the path of such a file in the cache, where it is put if it is not there yet. Raises InputError.
        asked: whether the hub was.
    """

    name: HubName
    files: dict[str, RemoteFile]
    get: Callable[[str], Path]
    asked: bool = True

    def fetch(self, file: str) -> Path:
        """The path of a file in the cache, fetched and checked if it was not before.

        Raises:
            InputError: it cannot be had, in one line.
        """
        if file not in self.files:
            where = "in the repository" if self.asked else "in the cache, and the hub cannot be asked"
            raise InputError(f"{self.name.given}: {file} is not {where}")
        path = self.get(file)
        expected = self.files[file].sha256
        if expected is not None:
            check_sum(path, expected, self.name.given)
        return path

    def folder_of(self, file: str) -> dict[str, str]:
        """The files beside a file: path within the repository by name."""
        folder = PurePosixPath(file).parent
        return {PurePosixPath(other).name: other for other in self.files if PurePosixPath(other).parent == folder}


def by_other_means(name: HubName, why: str, cache: object, page: str, file: str | None = None) -> str:
    """The line for what is not to be had: what to fetch in another way, and where to put it.

    Args:
        why: the hub could not be asked. cache: the folder where it is not either. page: that shows the files.
    """
    return (
        f"{name.given}: {why}, and it is not in the cache {cache}; fetch {file or name.file or _WEIGHTS}, and the "
        f".json files beside it, from {page} into a folder by other means and name the folder instead"
    )


def reason(error: BaseException) -> str:
    """The first cause of an error, in a short line."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
