"""The .safetensors format: an 8-byte length, a JSON header, the tensors end to end.

Own code and not the safetensors library, for two reasons: tensors are written one at a time (the library
wants them all in memory), and a header is checked in full before anything is read by it.
"""

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from mindone_coca.errors import InputError
from mindone_coca.weights.formats.dtypes import DTYPES, FROM_SAFETENSORS
from mindone_coca.weights.formats.entry import Entry, MappedFile, Weights

_MAX_HEADER = 16 << 20  # bytes; L/14 with 773 tensors has 90 kB
_MAX_RANK = 8
_ALIGNMENT = 64  # a cache line, and enough for any vector load


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _header(file: MappedFile) -> tuple[dict[str, Any], int]:
    """The parsed header and the offset of the first tensor byte."""
    length = int.from_bytes(file.bytes(0, 8), "little")
    if file.size < 8 or length > min(file.size - 8, _MAX_HEADER):
        raise InputError(f"{file.path}: not a whole .safetensors file (header of {length} bytes in {file.size})")
    try:
        header = json.loads(file.bytes(8, 8 + length).decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file.path}: damaged .safetensors header: {str(error).splitlines()[0]}") from error
    if not isinstance(header, dict):
        raise InputError(f"{file.path}: damaged .safetensors header: not a JSON object")
    return header, 8 + length


def _tensor(file: MappedFile, name: str, info: Any) -> tuple[int, int, tuple[int, ...], str]:
    """Begin, end, shape and type of one header item, checked."""
    bad = f"{file.path}: damaged .safetensors header at {name[:100]!r}: "
    if not isinstance(info, dict) or set(info) != {"dtype", "shape", "data_offsets"}:
        raise InputError(bad + "it needs dtype, shape and data_offsets")
    dtype, shape, offsets = info["dtype"], info["shape"], info["data_offsets"]
    if not isinstance(dtype, str) or dtype not in FROM_SAFETENSORS:
        raise InputError(bad + f"element type {str(dtype)[:40]} is not supported (use {', '.join(FROM_SAFETENSORS)})")
    if not isinstance(shape, list) or len(shape) > _MAX_RANK or not all(_is_count(n) for n in shape):
        raise InputError(bad + "shape must be a short list of sizes")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_count(n) for n in offsets):
        raise InputError(bad + "data_offsets must be two byte counts")
    begin, end = offsets
    row = FROM_SAFETENSORS[dtype]
    if end - begin != prod(shape) * row.storage.itemsize:
        raise InputError(bad + f"{end - begin} bytes do not hold shape {shape} of {dtype}")
    return begin, end, tuple(shape), row.name


def read_safetensors(path: Path) -> Weights:
    """Open a .safetensors file; the whole header is checked, no tensor is read.

    Raises:
        InputError: the file is damaged: header cut, too long or no JSON; a name twice; bytes that do not
            match a shape, overlap, leave a gap or go past the end of the file.
    """
    file = MappedFile(path)
    header, data = _header(file)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise InputError(f"{path}: damaged .safetensors header: __metadata__ must hold text only")
    tensors = {name: _tensor(file, name, info) for name, info in header.items()}
    position = 0
    for name, (begin, end, _, _) in sorted(tensors.items(), key=lambda item: item[1][:2]):
        if begin != position:
            raise InputError(f"{path}: damaged .safetensors header at {name[:100]!r}: a gap or overlap before it")
        position = end
    if data + position != file.size:
        raise InputError(
            f"{path}: cut off or damaged: {file.size} bytes, its header wants {data + position}; download or "
            "save it again"
        )
    entries = {name: file.entry(data + begin, shape, dtype) for name, (begin, _, shape, dtype) in tensors.items()}
    return Weights(path, "safetensors", entries, metadata=metadata, files=[file])


def write_safetensors(out: BinaryIO, entries: Mapping[str, Entry], metadata: Mapping[str, str]) -> None:
    """Write tensors to a binary file, each read, written and dropped before the next.

    Tensors whose size is a multiple of 64 bytes (all large ones) come first and so start at such multiples,
    which lets a reader use the mapped file without a copy.
    """

    def order(name: str) -> tuple[bool, int]:
        return entries[name].nbytes % _ALIGNMENT != 0, -DTYPES[entries[name].dtype].storage.itemsize

    names = sorted(entries, key=order)
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name in names:
        entry = entries[name]
        header[name] = {
            "dtype": DTYPES[entry.dtype].safetensors,
            "shape": list(entry.shape),
            "data_offsets": [position, position + entry.nbytes],
        }
        position += entry.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-(len(text) + 8) % _ALIGNMENT)
    out.write(len(text).to_bytes(8, "little"))
    out.write(text)
    for name in names:
        out.write(entries[name].read().reshape(-1).data.cast("B"))
