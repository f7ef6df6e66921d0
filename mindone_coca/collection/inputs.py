"""Which files to caption: files, folders, globs and lists, in a stable order."""

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mindone_coca.data.samples import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from mindone_coca.errors import InputError

LIST_SUFFIXES = (".txt", ".lst", ".list")
# what a folder is searched for; a file that is named itself, or in a list, may have any suffix
MEDIA_SUFFIXES = (
    IMAGE_SUFFIXES
    | VIDEO_SUFFIXES
    | {".apng", ".avif", ".jp2", ".3gp", ".asf", ".h264", ".hevc", ".m2ts", ".m2v", ".mjpeg", ".mjpg", ".mts", ".mxf"}
    | {".ogv", ".ts", ".vob", ".y4m"}
)


@dataclass(frozen=True)
class Inputs:
    """The files to caption.

    Attributes:
        paths: as the user would write them, in order, each once.
        single: whether the user named one file and nothing else.
    """

    paths: list[str]
    single: bool


def list_inputs(names: Sequence[str]) -> Inputs:
    """Files for the given names.

    Each name is a file; a folder, searched through with all folders and links in it for the suffixes of videos and
    images, hidden ones left out; a pattern with `*`, `?`, `[...]` or `**`; a text file (.txt, .lst, .list) with one
    file or folder a line; or `-` for such a list on standard input. Paths in lists count from the working directory.
    Listed files that do not exist are kept, to be reported among the failures.

    Raises InputError for a name that is nothing of this, or that holds nothing to caption.
    """
    paths: dict[str, None] = {}  # a set that keeps the order
    for name in names:
        found = list(_expand(name))
        if not found:
            raise InputError(f"{name}: no video or image there; give another file, folder, pattern or list")
        paths.update(dict.fromkeys(found))
    single = len(names) == 1 and list(paths) == [names[0]] and not _is_list(names[0])
    return Inputs(list(paths), single)


def _expand(name: str) -> Iterator[str]:
    if name == "-":
        yield from _entries(sys.stdin.buffer.read())
    elif os.path.isdir(name):
        yield from _walk(name)
    elif os.path.exists(name):
        if _is_list(name):
            yield from _entries(Path(name).read_bytes())
        else:
            yield name
    elif glob.has_magic(name):
        for path in sorted(glob.glob(name, recursive=True)):
            if os.path.isdir(path):
                if not name.endswith("**"):  # which finds the files in it by itself
                    yield from _walk(path)
            elif not name.endswith("**") or _is_media(path):
                yield path
    else:
        raise InputError(f"{name}: no such file")


def _is_list(name: str) -> bool:
    return name.lower().endswith(LIST_SUFFIXES)


def _is_media(path: str) -> bool:
    return Path(path).suffix.lower() in MEDIA_SUFFIXES


def _entries(content: bytes) -> Iterator[str]:
    """One path a line, of any bytes but line ends."""
    for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        path = os.fsdecode(line.removesuffix(b"\r"))
        if os.path.isdir(path):
            yield from _walk(path)
        elif path:
            yield path


def _walk(folder: str) -> Iterator[str]:
    """The media files under a folder, sorted; links are followed, each folder is entered once."""
    entered = {os.path.realpath(folder)}
    for where, folders, files in os.walk(folder, followlinks=True):
        kept = []
        for name in sorted(folders):
            real = os.path.realpath(os.path.join(where, name))
            if not name.startswith(".") and real not in entered:
                entered.add(real)
                kept.append(name)
        folders[:] = kept
        yield from (os.path.join(where, name) for name in sorted(files) if name[0] != "." and _is_media(name))
