"""Writing files so that a reader never meets half of one, where that can be done; locks; names and patterns."""

import fcntl
import glob
import hashlib
import os
import secrets
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from mindone_coca.errors import InputError, OutputError
from mindone_coca.interrupts import TEMPORARY

LONGEST_NAME = 255  # bytes, where the system does not say
LONGEST_SUFFIX = 32  # bytes; what is longer is no suffix that says what a file is
PROBE_BYTES = 4096
_MAKE_ROOM = "make room there, or choose another place"


@contextmanager
def reported_writes(target: str | os.PathLike, fix: str = _MAKE_ROOM) -> Iterator[None]:
    """What the system refuses while `target` is written becomes an OutputError that names it and ends with `fix`.

    Errors that name files elsewhere, which are read meanwhile, pass unchanged.
    """
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        if error.filename is not None:
            own, named = Path(target).absolute().parent, Path(os.fsdecode(error.filename)).absolute()
            if own not in named.parents and named not in (own, *own.parents):
                raise
        raise _output_error(target, error, fix) from error


def _output_error(target: str | os.PathLike, error: OSError, fix: str) -> OutputError:
    return OutputError(f"{target}: cannot be written ({error.strerror or error}); {fix}", error)


def check_output(path: str | os.PathLike, fix: str, *, folder: bool = True) -> None:
    """Refuse a place where results cannot be written, before the work is done for them. Nothing is left there.

    Args:
        path: a folder, or with `folder=False` a file; it need not exist, nor the folders that it lies in.
        fix: the end of the message, such as "give another --output_dir".
    Raises:
        OutputError: a file is in the way, the folder takes no files, the disk is full.
    """
    path = Path(path)
    try:
        if not folder and os.path.lexists(path) and not path.is_file():
            raise OSError("it is a folder" if path.is_dir() else "it is no regular file")
        place = _nearest(path if folder else path.parent)
        if not place.is_dir():
            raise OSError(f"{place} is no folder")
        with tempfile.TemporaryFile(dir=place) as probe:  # permissions alone do not tell, to root least of all
            probe.write(bytes(PROBE_BYTES))
    except OSError as error:
        raise _output_error(path, error, fix) from None


def _nearest(path: Path) -> Path:
    """The path itself, or the nearest of the folders that it would lie in that there is."""
    for place in (path, *path.absolute().parents):
        try:
            os.lstat(place)
            return place
        except (FileNotFoundError, NotADirectoryError):
            continue
    return Path(path.anchor)


@contextmanager
def atomic_path(target: str | os.PathLike) -> Iterator[Path]:
    """Give a path beside `target` to write to; on success flush it to disk and rename it to `target`.

    On any exception the partial file is removed and `target` stays as it was; the system's become OutputErrors. The
    partial file's name is short, however long that of `target` is; it has the suffix of `target`, because some writers
    choose the format by it.
    """
    target = Path(target)
    suffix = target.suffix if len(os.fsencode(target.suffix)) <= LONGEST_SUFFIX else ""
    partial = target.with_name(f".{secrets.token_hex(4)}.partial{suffix}")
    with reported_writes(target), _temporary(partial):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            with open(partial, "rb") as written:
                os.fsync(written.fileno())
            os.replace(partial, target)
            directory = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(directory)  # the rename itself must survive a power cut
            finally:
                os.close(directory)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(target: str | os.PathLike) -> Iterator[Path]:
    """Give a new folder to fill; on success it becomes `target`, or its files take their places in one that exists.

    On any exception it is removed and `target` stays as it was; the system's become OutputErrors.
    """
    target = Path(target)
    there = target.is_dir()
    folder = (target if there else target.absolute().parent) / f".{secrets.token_hex(4)}.partial"
    with reported_writes(target), _temporary(folder):
        folder.mkdir(parents=True)
        try:
            yield folder
            if not there:
                os.rename(folder, target)
                return
            for path in sorted(folder.rglob("*")):
                place = target / path.relative_to(folder)
                if path.is_dir():
                    place.mkdir(exist_ok=True)
                else:
                    os.replace(path, place)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _temporary(path: Path) -> Iterator[None]:
    """A file or folder that a signal which ends the process takes away too."""
    TEMPORARY.add(path)
    try:
        yield
    finally:
        TEMPORARY.discard(path)


def try_lock(file: IO) -> bool:
    """Take the kernel's lock on an open file, without waiting; it ends with the file, or the process, however that
    ends. Returns False where another holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        warnings.warn(
            f"{file.name}: this file system has no locks ({error.strerror}); see to it yourself that nothing else "
            "writes there meanwhile",
            stacklevel=2,
        )
    return True


class FolderLock:
    """Keeps other processes out of a folder by a lock on `folder/lock`, until `release` or the end of this process.

    Processes that are forked meanwhile, as readers of data are, do not hold it: they may outlive a killed one.

    Args:
        refusal: the message where another process holds it.
    Raises:
        InputError: the refusal. OutputError: the folder cannot be written.
    """

    _all: "weakref.WeakSet[FolderLock]" = weakref.WeakSet()

    def __init__(self, folder: Path, refusal: str) -> None:
        with reported_writes(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = open(folder / "lock", "ab", buffering=0)  # noqa: SIM115 open as long as the lock
        if not try_lock(self._file):
            self.release()
            raise InputError(refusal)
        self._all.add(self)

    def release(self) -> None:
        self._file.close()

    @classmethod
    def _release_all(cls) -> None:
        for lock in cls._all:
            lock.release()


os.register_at_fork(after_in_child=FolderLock._release_all)


def user_cache() -> Path:
    """Where this package keeps what it can make anew: `$MINDONE_COCA_CACHE`, else `mindone_coca` in the user's cache
    folder."""
    own = os.environ.get("MINDONE_COCA_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mindone_coca"


def with_literal_folders(pattern: str) -> str:
    """The pattern for glob in which the first folders are no patterns, as long as there are folders of these names.

    So `[2023] trip/*.png` finds the pictures in a folder of this name.
    """
    parts = pattern.split("/")
    literal = 0
    while literal < len(parts) - 1 and os.path.isdir("/".join(parts[: literal + 1]) or "/"):
        literal += 1
    return "/".join([*map(glob.escape, parts[:literal]), *parts[literal:]])


def longest_name(folder: Path) -> int:
    """The most bytes that a name may have in a folder, which need not exist yet."""
    for existing in (folder, *folder.absolute().parents):
        if os.path.isdir(existing):
            try:
                return os.pathconf(existing, "PC_NAME_MAX")
            except OSError:  # some network file systems do not say
                return LONGEST_NAME
    return LONGEST_NAME


def fitting_name(name: str, suffix: str, limit: int) -> str:
    """`name + suffix` where that has no more bytes than `limit`; else `name` cut, with a hash of all of it.

    The same name always gives the same one, and different names give different ones.
    """
    if len(os.fsencode(name + suffix)) <= limit:
        return name + suffix
    mark = f"~{hashlib.sha256(os.fsencode(name)).hexdigest()[:12]}"
    room = limit - len(os.fsencode(mark + suffix))
    kept = os.fsencode(name)[:room]
    while kept and _splits_a_letter(kept, os.fsencode(name)):
        kept = kept[:-1]
    return os.fsdecode(kept) + mark + suffix


def _splits_a_letter(start: bytes, whole: bytes) -> bool:
    """Whether the first bytes of a UTF-8 text end within a letter, where its next byte goes on with that."""
    return 0x80 <= whole[len(start)] < 0xC0
