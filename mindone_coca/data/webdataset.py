"""Webdataset shards: plain tar files in which the files of one sample follow each other and share a name.

The shards are indexed once, at the start, by the offsets of their members; a sample is then one seek and one read
for each of its files, so that shuffling and the split over ranks need no help from the order in the shards.
"""

import hashlib
import json
import logging
import os
import re
import tarfile
from collections.abc import Iterator
from glob import glob
from pathlib import Path

import numpy as np

from mindone_coca.data.samples import IMAGE_SUFFIXES, VIDEO_SUFFIXES, BadSample, PackedRows, Sample, as_captions
from mindone_coca.errors import InputError
from mindone_coca.files import atomic_path

log = logging.getLogger(__name__)
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


def find_files(pattern: str, in_folder: str) -> list[Path]:
    """The files of a brace or * pattern, of a folder (those that match `in_folder`), or the one file; by name.

    Raises InputError naming the first file that is missing.
    """
    path = Path(pattern).expanduser()
    if path.is_dir():
        path = path / in_folder
    files = []
    for name in expand_pattern(str(path)):
        found = sorted(glob(name, recursive=True)) if "*" in name else [name]
        files += [Path(file) for file in found]
        if not found or not os.path.isfile(found[0]):
            raise InputError(f"{name}: no such file" + (f" (from {pattern})" if name != str(path) else ""))
    return files


# The files of one sample by their lower-case extension: name in the archive, offset and size of the content in bytes.
Members = dict[str, tuple[str, int, int]]


def _index(shard: Path, index_dir: Path | None) -> list[Members]:
    """The samples of a shard; from `index_dir` if it was indexed there since the shard was last changed."""
    if index_dir is None:
        return list(_groups(shard))
    path, status = shard.resolve(), shard.stat()
    state = [str(path), status.st_size, status.st_mtime_ns]
    saved = index_dir / f"{shard.name}-{hashlib.sha256(state[0].encode()).hexdigest()[:16]}.json"
    if saved.is_file():
        content = json.loads(saved.read_bytes())
        if content["state"] == state:
            return content["samples"]
    samples = list(_groups(shard))
    with atomic_path(saved) as partial:
        partial.write_text(json.dumps({"state": state, "samples": samples}))
    return samples


def _groups(shard: Path) -> Iterator[Members]:
    """Go through a shard; neighbours belong together when their names agree up to the first dot."""
    try:
        with tarfile.open(shard, "r:") as archive:
            current, members = None, {}
            for member in archive:
                archive.members = []  # tarfile would keep a record of each
                if not member.isreg():
                    continue
                folder, _, file = member.name.rpartition("/")
                stem, _, extension = file.partition(".")
                if (folder, stem) != current and members:
                    yield members
                    members = {}
                current = folder, stem
                members[extension.lower()] = (member.name, member.offset_data, member.size)
            if members:
                yield members
    except tarfile.TarError as error:
        raise InputError(f"{shard}: not a plain tar file, or cut short ({error}); unpack a compressed one") from error


class TarShards:
    """The samples of some shards: an image or video and a text each.

    `caption_key` is the extension of the text's file ("txt", "cls") or "json.FIELD" for a field of the JSON file, a
    text or a list of texts. Files of other extensions are not read; samples without an image or a text are left out
    with a warning. The index is saved in `index_dir`, if given.
    """

    def __init__(self, shards: list[Path], caption_key: str = "txt", index_dir: Path | None = None):
        text_extension, _, self._field = caption_key.partition(".")
        self._shards = shards
        names, table = [], []  # rows: shard, image offset and size, text offset and size
        extensions, incomplete = set(), []
        for number, shard in enumerate(shards):
            for members in _index(shard, index_dir):
                extensions.update(members)
                image = next((members[e] for e in members if f".{e}" in IMAGE_SUFFIXES | VIDEO_SUFFIXES), None)
                text = members.get(text_extension)
                if image is None or text is None:
                    incomplete.append(f"{shard}:{next(iter(members.values()))[0]}")
                    continue
                names.append(image[0])
                table.append((number, *image[1:], *text[1:]))
        if not table:
            found = ", ".join(sorted(extensions)) or "no files"
            raise InputError(f"{shards[0]}: no sample with an image and a .{text_extension} (it has: {found})")
        if incomplete:
            log.warning(
                "%d samples without an image or a .%s are left out, the first: %s",
                len(incomplete),
                text_extension,
                incomplete[0],
            )
        self._names, self._table = PackedRows(names), np.array(table, np.int64)

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> Sample:
        shard_number, image_offset, image_size, text_offset, text_size = self._table[index].tolist()
        shard = self._shards[shard_number]
        name = f"{shard}:{self._names[index]}"
        try:
            with open(shard, "rb") as file:
                file.seek(image_offset)
                image = file.read(image_size)
                file.seek(text_offset)
                text = file.read(text_size).decode("utf-8")
            captions = as_captions(json.loads(text)[self._field] if self._field else text)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadSample(name, f"{type(error).__name__}: {error}") from error
        return Sample(name, captions, image)
