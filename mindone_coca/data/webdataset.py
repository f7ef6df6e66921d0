"""Webdataset shards: plain tar files in which the files of one sample share a name up to its first dot.

The shards are indexed once, at the start, by the offsets of their members; a sample is then one seek and one read
for each of its files, so that shuffling and the split over ranks need no help from the order in the shards.
"""

import re
from collections import Counter
from glob import glob
from pathlib import Path, PurePosixPath

import numpy as np

from mindone_coca.account import Account, some_of
from mindone_coca.data.samples import BadSample, PackedRows, Sample
from mindone_coca.data.tar_index import Members, read_index
from mindone_coca.data.text import as_captions, decode, parse_json
from mindone_coca.errors import InputError
from mindone_coca.files import with_literal_folders
from mindone_coca.media_files import MEDIA_SUFFIXES
from mindone_coca.places import Place, UrlPath, is_file, place, read_ranges
from mindone_coca.storage import is_url

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")


def expand_pattern(pattern: str) -> list[str]:
    """The names a pattern stands for: {000..010} counts with leading zeros, {a,b} lists.

    >>> expand_pattern("{train,val}-{08..10}.tar")[2:4]
    ['train-10.tar', 'val-08.tar']
    """
    match = _BRACES.search(pattern)
    if not match:
        return [pattern]
    first, last, names = match.groups()
    if names is None:
        parts = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    else:
        parts = names.split(",")
    return [name for part in parts for name in expand_pattern(pattern[: match.start()] + part + pattern[match.end() :])]


def find_files(pattern: str, in_folder: str) -> list[Place]:
    """The files of a brace or * pattern, of a folder (those that match `in_folder`), or the one file; by name. Any of
    these may be behind a URL.

    Raises InputError naming the first file that is missing.
    """
    path = place(pattern)
    if "*" not in path.name and path.is_dir():
        path = path / in_folder
    files: list[Place] = []
    for name in expand_pattern(path.url if isinstance(path, UrlPath) else str(path)):
        found = _matching(name) if "*" in name else [place(name)]
        files += found
        if not found or not is_file(found[0]):
            raise InputError(f"{place(name)}: no such file" + (f" (from {place(pattern)})" if "{" in pattern else ""))
    return files


def _matching(pattern: str) -> list[Place]:
    if is_url(pattern):
        return [*UrlPath(pattern).parent.files(UrlPath(pattern).name)]
    return [Path(file) for file in sorted(glob(with_literal_folders(pattern), recursive=True))]


class TarShards:
    """The samples of some shards: an image or video and a text each.

    `caption_key` is the extension of the text's file ("txt", "cls") or "json.FIELD" for a field of the JSON file, a
    text or a list of texts. Files of other extensions are passed over; samples without an image or a text are refused.
    The index is saved in `index_dir`, if given.
    """

    def __init__(self, shards: list[Place], caption_key: str = "txt", index_dir: Path | None = None):
        text_extension, _, self._field = caption_key.partition(".")
        text_extension = text_extension.lower()
        self._shards = shards
        self.account = Account(shards[0] if len(shards) == 1 else f"{shards[0]} and {len(shards) - 1} more", "sample")
        names, table = [], []  # rows: shard, image offset and size, text offset and size
        extensions: set[str] = set()
        for number, shard in enumerate(shards):
            index = read_index(shard, index_dir)
            self.account.passed_over += index.passed_over
            self.account.notes += [f"{shard}: {note}" for note in index.notes]
            for reason in index.refused:
                self.account.refuse(reason)
            times: Counter[str] = Counter()  # a key may be there several times, each a sample of its own
            for members in index.samples:
                extensions.update(members)
                image = next((extension for extension in members if f".{extension}" in MEDIA_SUFFIXES), None)
                if image is None or text_extension not in members:
                    self.account.refuse(f"{shard}:{_incomplete(members, text_extension, image is None)}")
                    continue
                text = members[text_extension]
                name = members[image][0]
                times[name] += 1
                names.append(name if times[name] == 1 else f"{name.removesuffix(f'.{image}')} ({times[name]}).{image}")
                table.append((number, *members[image][1:], *text[1:]))
                self.account.without_caption += not text[2]
                for extension in members.keys() - {image, text_extension}:
                    self.account.pass_over_file(members[extension][0])
        self.account.read = len(table)
        if not table and (extensions or not self.account.refused):
            raise InputError(f"{shards[0]}: no sample with an image and a .{text_extension}{_instead(extensions)}")
        self._names, self._table = PackedRows(names), np.array(table, np.int64)

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> Sample:
        shard_number, image_offset, image_size, text_offset, text_size = self._table[index].tolist()
        shard = self._shards[shard_number]
        name = f"{shard}:{self._names[index]}"
        try:
            wanted = range(image_offset, image_offset + image_size), range(text_offset, text_offset + text_size)
            image, content = read_ranges(shard, wanted)
            text = decode(content)
            captions = as_captions(parse_json(text)[self._field] if self._field else text)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadSample(name, f"{type(error).__name__}: {error}") from error
        return Sample(name, captions, image)


def _incomplete(members: Members, text_extension: str, no_image: bool) -> str:
    """The name of a sample that lacks something, and what it lacks."""
    name = next(iter(members.values()))[0]
    lacks = "no image or video" if no_image else f"no .{text_extension}"
    return f"{name} has {lacks} beside it (its files: {some_of(list(members), 3)})"


def _instead(extensions: set[str]) -> str:
    """What a shard without a sample has, and how to fix it."""
    if not extensions:
        return "; there are no files in it"
    dotted = any("." in extension and PurePosixPath(extension).suffix in MEDIA_SUFFIXES for extension in extensions)
    fix = "caption_key names the extension of the text"
    if dotted:
        fix = "a name's first dot ends the sample's key, so use no other dots than the one before the extension"
    return f" (it has: {some_of(sorted(extensions))}); {fix}"
