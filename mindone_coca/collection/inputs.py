"""Which files to caption: files, folders, globs and lists, in a stable order."""

import codecs
import glob
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mindone_coca import storage
from mindone_coca.account import Account
from mindone_coca.data.text import encoding_of
from mindone_coca.errors import InputError
from mindone_coca.files import with_literal_folders
from mindone_coca.media_files import is_media, walk
from mindone_coca.storage import is_url, shown

log = logging.getLogger(__name__)
LIST_SUFFIXES = (".txt", ".lst", ".list")


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
    images, hidden ones left out; a pattern with `*`, `?`, `[...]` or `**`, of which the folders that exist under these
    very names are no patterns; a text file (.txt, .lst, .list) with one file or folder a line, or with NULs between
    them; or `-` for such a list on standard input. Paths in lists count from the working directory. Listed files that
    do not exist are kept, to be reported among the failures. Any name or path may be a URL.

    What a folder has beside videos and images is counted by suffix and logged in one line.

    Raises InputError for a name that is nothing of this, or that holds nothing to caption.
    """
    paths: dict[str, None] = {}  # a set that keeps the order
    for name in names:
        account = Account(shown(name), "file")
        found = list(_expand(name, account))
        if not found:
            beside = f" ({account.passed_over_line()})" if account.passed_over else ""
            raise InputError(f"{shown(name)}: no video or image there{beside}; {_instead(name)}")
        if account.notes or set(account.passed_over) - {"hidden"}:
            account.read = len(found)
            log.warning("%s", account.summary())
        paths.update(dict.fromkeys(found))
    single = len(names) == 1 and list(paths) == [names[0]] and not is_list(names[0])
    return Inputs(list(paths), single)


def _expand(name: str, account: Account) -> Iterator[str]:
    if is_url(name):
        yield from _remote(name, account)
    elif name == "-":
        yield from _entries(sys.stdin.buffer.read(), "standard input", account)
    elif os.path.isdir(name):
        yield from _media(name, account)
    elif os.path.exists(name):
        if is_list(name):
            yield from _entries(Path(name).read_bytes(), name, account)
        else:
            yield name
    elif glob.has_magic(name):
        for path in sorted(glob.glob(with_literal_folders(name), recursive=True)):
            if os.path.isdir(path):
                if not name.endswith("**"):  # which finds the files in it by itself
                    yield from _media(path, account)
            elif not name.endswith("**") or is_media(path):
                yield path
            else:
                account.pass_over_file(path)
    else:
        raise InputError(f"{name}: no such file")


def _remote(url: str, account: Account) -> Iterator[str]:
    """The same behind a URL. Nothing is asked of a file of which the suffix says what it is."""
    pattern = any(sign in url for sign in "*[")
    if not pattern and is_media(url):
        yield url
    elif not pattern and is_list(url):
        yield from _entries(storage.read(url), shown(url), account)
    elif pattern or storage.is_folder(url):
        if pattern and not url.endswith("**"):
            yield from storage.listing(url)
        else:
            yield from _media(url, account)
    elif storage.size(url) >= 0:
        yield url
    else:
        raise InputError(f"{shown(url)}: no such file")


def _instead(name: str) -> str:
    """What to give in place of a name that holds nothing."""
    if "[" in name and not os.path.exists(name):
        return "[ ] are part of a pattern, so write [[] for a [ that is meant; or give a file, folder or list"
    return "give another file, folder, pattern or list"


def is_list(name: str) -> bool:
    """Whether a name is that of a list."""
    return name.lower().endswith(LIST_SUFFIXES)


def _entries(content: bytes, where: str, account: Account) -> Iterator[str]:
    """The paths in a list: one a line, of any bytes but line ends; or of any bytes but NUL, with NULs between them."""
    for entry in _split(content, where):
        path = os.fsdecode(entry)
        if os.path.isdir(path):
            found = list(_media(path, account))
            if not found:
                account.notes.append(f"{path}: no video or image in this folder")
            yield from found
        elif path:
            yield path


def _split(content: bytes, where: str) -> Sequence[bytes]:
    encoding = _list_encoding(content)
    if encoding != "utf-8-sig":
        try:
            content = os.fsencode(content.decode(encoding))
        except UnicodeDecodeError as error:
            raise InputError(f"{where}: it begins as UTF-16 or 32 and is not ({error}); save it as UTF-8") from error
    content = content.removeprefix(codecs.BOM_UTF8)
    if b"\0" in content:  # as `find -print0` writes, for names that hold line ends
        return content.split(b"\0")
    return [line.removesuffix(b"\r") for line in content.split(b"\n")]


def _list_encoding(content: bytes) -> str:
    """By the mark at the beginning; UTF-16 without it by the line ends of Windows."""
    line_end = content.find(b"\r\0\n")
    if encoding_of(content[:4]) != "utf-8-sig" or line_end < 0:
        return encoding_of(content[:4])
    return "utf-16-be" if line_end % 2 else "utf-16-le"


def _media(folder: str, account: Account) -> Iterator[str]:
    """The videos and images under a folder, sorted."""
    for path in walk(folder, account):
        if is_media(path):
            yield path
        else:
            account.pass_over_file(path)
