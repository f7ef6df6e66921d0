"""Which files are pictures and videos, for every reader: one set of suffixes, and one way through folders."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mindone_coca import storage
from mindone_coca.account import Account

IMAGE_SUFFIXES = (
    frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".webp", ".bmp", ".dib", ".tga"})
    | {".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx"}
    | {".heic", ".heif", ".hif", ".avif"}
)
VIDEO_SUFFIXES = (
    frozenset({".mp4", ".m4v", ".mov", ".qt", ".f4v", ".3gp", ".3g2", ".avi", ".divx", ".mkv", ".webm", ".flv"})
    | {".mpg", ".mpeg", ".mpe", ".m1v", ".m2v", ".vob", ".ts", ".mts", ".m2ts", ".mxf", ".dv"}
    | {".wmv", ".asf", ".rm", ".rmvb", ".ogv", ".ogm", ".h264", ".hevc", ".mjpeg", ".mjpg", ".y4m"}
)
MEDIA_SUFFIXES = IMAGE_SUFFIXES | VIDEO_SUFFIXES

_NOT_MEANT = frozenset({"__MACOSX", "@eaDir"})  # folders that macOS and Synology put beside the user's files


def is_media(name: str) -> bool:
    """Whether a file is a picture or a video by its suffix."""
    return Path(name).suffix.lower() in MEDIA_SUFFIXES


def is_hidden(name: str) -> bool:
    """Whether the name of one file or folder says that no user put it there, as `._a.jpg` or `.ipynb_checkpoints`."""
    return name.startswith(".") or name in _NOT_MEANT


def is_hidden_member(name: str) -> bool:
    """Whether an archive's member is hidden, itself or one of its folders; `./` in front hides nothing."""
    return any(is_hidden(part) for part in PurePosixPath(name).parts if part not in (".", ".."))


def walk(folder: str, account: Account) -> Iterator[str]:
    """All files under a folder, or its URL, but hidden ones, sorted; links are followed, each folder is entered once.

    Hidden files and folders that cannot be opened are counted in `account`.
    """
    if storage.is_url(folder):
        yield from _walk_url(folder, account)
        return
    entered = {os.path.realpath(folder)}

    def unopened(error: OSError) -> None:
        account.notes.append(f"{error.filename}: this folder cannot be opened ({error.strerror})")

    for where, folders, files in os.walk(folder, followlinks=True, onerror=unopened):
        kept = []
        for name in sorted(folders):
            real = os.path.realpath(os.path.join(where, name))
            if not is_hidden(name) and real not in entered:
                entered.add(real)
                kept.append(name)
        folders[:] = kept
        for name in sorted(files):
            if is_hidden(name):
                account.pass_over("hidden")
            else:
                yield os.path.join(where, name)


def _walk_url(folder: str, account: Account) -> Iterator[str]:
    for url in storage.listing(folder):
        if is_hidden_member(url.removeprefix(folder)):
            account.pass_over("hidden")
        else:
            yield url
