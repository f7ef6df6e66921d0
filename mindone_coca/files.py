"""Writing files so that a reader never meets half of one, under names that the file system can hold; patterns."""

import glob
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LONGEST_NAME = 255  # bytes, where the system does not say
LONGEST_SUFFIX = 32  # bytes; what is longer is no suffix that says what a file is


@contextmanager
def atomic_path(target: str | os.PathLike) -> Iterator[Path]:
    """Give a path beside `target` to write to; on success flush it to disk and rename it to `target`.

    On any exception the partial file is removed and `target` stays as it was. The partial file's name is short, however
    long that of `target` is; it has the suffix of `target`, because some writers choose the format by it.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    suffix = target.suffix if len(os.fsencode(target.suffix)) <= LONGEST_SUFFIX else ""
    partial = target.with_name(f".{secrets.token_hex(4)}.partial{suffix}")
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
