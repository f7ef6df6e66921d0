"""What is in a tar shard: its samples by the offsets of their files, found in one pass and kept if wished."""

import hashlib
import json
import logging
import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from mindone_coca.errors import InputError
from mindone_coca.files import atomic_path
from mindone_coca.media_files import is_hidden_member
from mindone_coca.places import Place, UrlPath, open_binary
from mindone_coca.storage import state as state_of

log = logging.getLogger(__name__)
_FORMAT = 2  # of the saved index; an older one is made anew
_BLOCK = 512  # bytes, of which a tar file is made
_COMPRESSED = {b"\x1f\x8b": "gzip -d", b"BZ": "bzip2 -d", b"\xfd7": "xz -d", b"\x28\xb5": "zstd -d", b"PK": "unzip"}

# The files of one sample by their lower-case extension: name in the archive, offset and size of the content in bytes.
Members = dict[str, tuple[str, int, int]]


@dataclass
class ShardIndex:
    """The samples of a shard, and what else was in it."""

    samples: list[Members] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)  # samples of which it is unclear what belongs to them
    passed_over: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


def read_index(shard: Place, index_dir: Path | None) -> ShardIndex:
    """The index of a shard; from `index_dir` if it was indexed there since the shard was last changed."""
    if index_dir is None:
        return make_index(shard)
    state = _state(shard)
    digest = hashlib.sha256(str(state[1]).encode(errors="surrogateescape")).hexdigest()
    saved = index_dir / f"{shard.name}-{digest[:16]}.json"
    if saved.is_file():
        try:
            content = json.loads(saved.read_bytes())
            if content["state"] == state:
                return ShardIndex(**{**content["index"], "passed_over": Counter(content["index"]["passed_over"])})
        except (ValueError, KeyError, TypeError) as error:
            log.warning("%s: this index is damaged and made anew (%s: %s)", saved, type(error).__name__, error)
    index = make_index(shard)
    with atomic_path(saved) as partial:
        partial.write_text(json.dumps({"state": state, "index": asdict(index)}))
    return index


def _state(shard: Place) -> list[int | str]:
    """What tells a shard from another, and from itself when it has changed."""
    if isinstance(shard, UrlPath):
        return [_FORMAT, str(shard), *state_of(shard.url)]
    status = shard.stat()
    return [_FORMAT, str(shard.resolve()), status.st_size, status.st_mtime_ns]


def make_index(shard: Place) -> ShardIndex:
    """Go through a shard. Raises InputError when it is no plain tar file, or damaged.

    The files of a sample have the same folder and the same name up to its first dot, the key; they need not follow
    each other. An extension that the key's sample has already begins another sample. When the samples of one key do
    not have the same extensions, nothing tells what belongs together: all of them are refused.
    """
    index = ShardIndex()
    samples: dict[tuple[str, str], list[Members]] = {}
    order: list[tuple[tuple[str, str], Members]] = []
    contents: dict[str, tuple[int, int]] = {}  # by name, for hard links to them
    for member in _members(shard, index):
        if member.isdir():
            continue
        if is_hidden_member(member.name):
            index.passed_over["hidden"] += 1
            continue
        if member.isreg() and not member.issparse():
            contents[member.name] = place = (member.offset_data, member.size)
        elif member.islnk() and member.linkname in contents:
            place = contents[member.linkname]
        else:
            index.passed_over["linked" if member.issym() or member.islnk() else "special"] += 1
            continue
        folder, _, file = member.name.rpartition("/")
        stem, _, extension = file.partition(".")
        key, extension = (folder.removeprefix("./").removeprefix("."), stem), extension.lower()
        of_key = samples.setdefault(key, [])
        if not of_key or extension in of_key[-1]:
            of_key.append({})
            order.append((key, of_key[-1]))
        of_key[-1][extension] = (member.name, *place)
    unclear = {key for key, of_key in samples.items() if len({frozenset(members) for members in of_key}) > 1}
    for key, members in order:
        if key in unclear:
            name = next(iter(members.values()))[0]
            several = len(samples[key])
            index.refused.append(
                f"{shard}:{name}: its key is there {several} times, with different files; give each sample its own key"
            )
        else:
            index.samples.append(members)
    return index


def _members(shard: Place, index: ShardIndex) -> Iterator[tarfile.TarInfo]:
    """All members of a tar file, also of several that were put together by `cat`."""
    with open_binary(shard) as file:
        size, position = file.seek(0, os.SEEK_END), 0
        while position < size:
            try:
                archive = tarfile.TarFile(fileobj=_at(file, position))
                while (member := archive.next()) is not None:
                    # tarfile would keep a record of each; typeshed does not know the attribute
                    archive.members = []  # type: ignore[attr-defined]
                    if member.size < 0 or member.offset_data <= position:
                        raise tarfile.ReadError("a member with a wrong size")
                    if member.offset_data + (member.size if member.isreg() else 0) > size:
                        raise tarfile.ReadError("unexpected end of data")
                    position = member.offset_data
                    yield member
            except (tarfile.TarError, ValueError, OverflowError, RecursionError, EOFError) as error:
                raise InputError(_damaged(shard, position, str(error))) from error
            stopped = archive.offset
            position = _next_block(file, stopped)
            if position == stopped and stopped < size:
                raise InputError(_damaged(shard, stopped, "no header of a file there"))
            if stopped >= size:
                index.notes.append("the end mark of tar files is missing; was it cut short?")
    if not size:
        raise InputError(f"{shard}: the file is empty")


def _at(file: IO[bytes], position: int) -> IO[bytes]:
    file.seek(position)
    return file


def _next_block(file: IO[bytes], position: int) -> int:
    """Where the first block that is not all zeros begins, from `position` on, or the end of the file."""
    file.seek(position)
    while block := file.read(_BLOCK):
        if block.strip(b"\0"):
            return position
        position += len(block)
    return position


def _damaged(shard: Place, position: int, reason: str) -> str:
    with open_binary(shard) as file:
        unpack = _COMPRESSED.get(file.read(2))
    if unpack and not position:
        return f"{shard}: not a plain tar file but a compressed one; unpack it: {unpack} {shard.name}"
    return f"{shard}: not a plain tar file, or damaged or cut short, at byte {position:,} ({reason}); make it anew"
