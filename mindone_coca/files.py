"""Writing files so that a reader never meets half of one; patterns of paths."""

import glob
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(target: str | os.PathLike) -> Iterator[Path]:
    """Give a path beside `target` to write to; on success flush it to disk and rename it to `target`.

    On any exception the partial file is removed and `target` stays as it was. The suffix of
    `target` is kept, because some writers choose the format by it.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.stem}.{secrets.token_hex(4)}.partial{target.suffix}")
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


def with_literal_folders(pattern: str) -> str:
    """The pattern for glob in which the first folders are no patterns, as long as there are folders of these names.

    So `[2023] trip/*.png` finds the pictures in a folder of this name.
    """
    parts = pattern.split("/")
    literal = 0
    while literal < len(parts) - 1 and os.path.isdir("/".join(parts[: literal + 1]) or "/"):
        literal += 1
    return "/".join([*map(glob.escape, parts[:literal]), *parts[literal:]])
