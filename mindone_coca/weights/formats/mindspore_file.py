"""MindSpore's .ckpt format: one protobuf message, read and written field by field.

The schema (mindspore/train/checkpoint_pb2.py):
    Checkpoint { repeated Value value = 1 }      Value { string tag = 1; TensorProto tensor = 2 }
    TensorProto { repeated int64 dims = 1; string tensor_type = 2; bytes tensor_content = 3 }
A large tensor is several values with the same tag in a row. A trailer `crc_num` with ten bytes may follow.
The protobuf library would hold the file and all tensors in memory at once; this reader notes where each
tensor lies in the mapped file and skips over it.
"""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mindone_coca.errors import InputError
from mindone_coca.weights.formats.dtypes import DTYPES, FROM_MINDSPORE
from mindone_coca.weights.formats.entry import Entry, MappedFile, Weights

_SLICE = 512 << 20  # bytes of one value, as MindSpore writes
_MAX_VALUES = 100_000
_MAX_TAG = 512
_MAX_RANK = 8
_TRAILER = b"crc_num"
_ALIGNMENT = 64
_PADDING_FIELD = 15  # of a value; unknown to MindSpore


@dataclass
class _Value:
    """One value of the message: a whole tensor or a slice of one."""

    tag: str = ""
    dims: tuple[int, ...] = ()
    tensor_type: str = ""
    start: int = 0
    end: int = 0
    is_tensor: bool = False


class _Reader:
    """Walks protobuf fields of a mapped file without touching their contents."""

    def __init__(self, file: MappedFile):
        self.file = file

    def damaged(self, why: str) -> InputError:
        return InputError(f"{self.file.path}: cut off, damaged or no MindSpore checkpoint: {why}")

    def varint(self, position: int, end: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if position >= end:
                raise self.damaged("it ends inside a number")
            byte = self.file.buffer[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, position
        raise self.damaged("a number of more than ten bytes")

    def fields(self, position: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield (field number, wire type, start, end) of each field; for a number, start is its value."""
        while position < end:
            key, position = self.varint(position, end)
            number, wire = key >> 3, key & 7
            if wire == 0:
                value, position = self.varint(position, end)
                yield number, wire, value, position
            elif wire == 2:
                length, position = self.varint(position, end)
                if length > end - position:
                    raise self.damaged(f"a field of {length} bytes, {end - position} are left")
                yield number, wire, position, position + length
                position += length
            else:
                raise self.damaged(f"unexpected field {number} of wire type {wire}")

    def text(self, start: int, end: int) -> str:
        if end - start > _MAX_TAG:
            raise self.damaged("a name that is too long")
        try:
            return self.file.bytes(start, end).decode("utf-8")
        except UnicodeDecodeError:
            raise self.damaged("a name that is not text") from None

    def tensor(self, start: int, end: int, value: _Value) -> None:
        dims: list[int] = []
        for number, wire, begin, stop in self.fields(start, end):
            if (number, wire) == (1, 0):
                dims.append(begin)
            elif (number, wire) == (1, 2):  # packed: allowed by protobuf, not written by MindSpore
                while begin < stop and len(dims) <= _MAX_RANK:
                    size, begin = self.varint(begin, stop)
                    dims.append(size)
            elif (number, wire) == (2, 2):
                value.tensor_type = self.text(begin, stop)
            elif (number, wire) == (3, 2):
                value.start, value.end = begin, stop
            else:
                raise self.damaged(f"unexpected field {number} in a tensor")
            if len(dims) > _MAX_RANK:
                raise self.damaged(f"a tensor of more than {_MAX_RANK} dimensions")
        value.dims = tuple(dims)
        value.is_tensor = True

    def values(self, end: int) -> Iterator[_Value]:
        for count, (number, wire, start, stop) in enumerate(self.fields(0, end)):
            if (number, wire) != (1, 2) or count >= _MAX_VALUES:
                raise self.damaged("it is not a list of named tensors")
            value = _Value()
            for inner, inner_wire, begin, last in self.fields(start, stop):
                if (inner, inner_wire) == (1, 2):
                    value.tag = self.text(begin, last)
                elif (inner, inner_wire) == (2, 2):
                    self.tensor(begin, last, value)
                elif (inner, inner_wire) not in ((3, 2), (_PADDING_FIELD, 2)):  # 3: a map parameter, none of ours
                    raise self.damaged(f"unexpected field {inner} in a value")
            yield value


def _slices_entry(file: MappedFile, parts: list[_Value], shape: tuple[int, ...], dtype: str) -> Entry:
    if len(parts) == 1:
        return file.entry(parts[0].start, shape, dtype)

    def read() -> np.ndarray:
        pieces = [file.array(part.start, (part.end - part.start,), "uint8") for part in parts]
        return np.concatenate(pieces).view(DTYPES[dtype].storage).reshape(shape)

    return Entry(shape, dtype, read)


def _check_trailer(file: MappedFile, end: int) -> None:
    crc, step = 0, 64 << 20
    for start in range(0, end, step):
        crc = zlib.crc32(file.bytes(start, min(start + step, end)), crc)
    if crc != int.from_bytes(file.bytes(end + len(_TRAILER), file.size), "big"):
        raise InputError(f"{file.path}: damaged: its contents do not match its checksum")


def read_mindspore(path: Path) -> Weights:
    """Open a MindSpore .ckpt file; names, shapes and places are read, no tensor is.

    Entries that are no tensors (a training run's texts and map parameters) are left out with a note.

    Raises:
        InputError: the file is cut off, damaged or something else; a name occurs twice; bytes that do
            not match a shape; a type that is not supported; a checksum that does not match.
    """
    file = MappedFile(path)
    reader = _Reader(file)
    end = file.size
    has_trailer = end > 17 and file.bytes(end - 17, end - 10) == _TRAILER
    if has_trailer:
        end -= 17
        _check_trailer(file, end)
    groups: list[list[_Value]] = []
    left_out = 0
    for value in reader.values(end):
        if not value.is_tensor or value.tensor_type == "str":
            left_out += 1
        elif groups and groups[-1][-1].tag == value.tag:
            groups[-1].append(value)
        else:
            groups.append([value])
    entries: dict[str, Entry] = {}
    for parts in groups:
        name, shape, kind = parts[0].tag, parts[0].dims, parts[0].tensor_type
        if name in entries:
            raise reader.damaged(f"{name!r} occurs twice")
        if kind not in FROM_MINDSPORE:
            raise InputError(f"{path}: {name!r} has element type {kind!r}, supported are {', '.join(FROM_MINDSPORE)}")
        row = FROM_MINDSPORE[kind]
        stored = sum(part.end - part.start for part in parts)
        if shape == (0,) and stored == row.storage.itemsize:
            shape = ()  # how older versions write a scalar
        if stored != prod(shape) * row.storage.itemsize:
            raise reader.damaged(f"{name!r}: {stored} bytes do not hold shape {list(shape)} of {kind}")
        entries[name] = _slices_entry(file, parts, shape, row.name)
    notes = [f"{left_out} entries that are no tensors left out"] if left_out else []
    return Weights(path, "mindspore", entries, notes=notes, files=[file])


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, length: int) -> bytes:
    return bytes([number << 3 | 2]) + _varint(length)


def _heads(name: bytes, tensor_head: bytes, length: int, position: int) -> bytes:
    """What precedes the `length` content bytes of a value at `position` in the file.

    A field that readers do not know, and protobuf makes them skip, pads it so that the content starts at a multiple
    of 64 bytes: then a reader can use the mapped file as it is.
    """
    for padding in range(2 * _ALIGNMENT):
        head = _field(1, len(name)) + name + _field(_PADDING_FIELD, padding) + bytes(padding)
        head += _field(2, len(tensor_head) + length)
        whole = _field(1, len(head) + len(tensor_head) + length) + head + tensor_head
        if (position + len(whole)) % _ALIGNMENT == 0:
            return whole
    raise AssertionError("every remainder occurs among so many lengths")


def write_mindspore(out: BinaryIO, entries: Mapping[str, Entry]) -> None:
    """Write tensors to a binary file that `mindspore.load_checkpoint` reads, one at a time."""
    for name, entry in entries.items():
        kind = DTYPES[entry.dtype].mindspore.encode()
        sizes = b"".join(b"\x08" + _varint(size) for size in entry.shape)
        content = entry.read().reshape(-1).data.cast("B")
        for start in range(0, len(content), _SLICE):
            part = content[start : start + _SLICE]
            tensor_head = sizes + _field(2, len(kind)) + kind + _field(3, len(part))
            out.write(_heads(name.encode("utf-8"), tensor_head, len(part), out.tell()))
            out.write(part)
