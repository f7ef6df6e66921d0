"""torch's zip checkpoints (torch 1.6 and later, mostly .bin, .pt or .pth), read and written without torch.

The archive holds one pickle, `<top>/data.pkl`, and each tensor's bytes, uncompressed, in `<top>/data/<key>`.
"""

import pickle
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mindone_coca.errors import InputError
from mindone_coca.weights.formats.dtypes import DTYPES
from mindone_coca.weights.formats.entry import Entry, MappedFile, Weights
from mindone_coca.weights.formats.kinds import ZIP_ERRORS
from mindone_coca.weights.formats.pickle_reader import read_pickle
from mindone_coca.weights.formats.torch_objects import TensorRef

_MAX_PICKLE = 256 << 20  # a training checkpoint may pickle arrays beside its tensors
_MAX_RECORDS = 100_000
_ALIGNMENT = 64  # as torch itself aligns records


@dataclass(frozen=True)
class _Record:
    """Where one stored member of the archive lies in the file."""

    start: int
    size: int
    crc: int


class TorchArchive:
    """An opened torch checkpoint: the object tree, with tensors as `TensorRef`s, and their bytes.

    Raises:
        InputError: no zip, compressed or encrypted members, members outside the file, no data.pkl, or a
            pickle that is refused.
    """

    def __init__(self, path: Path):
        self.path = path
        self.file = MappedFile(path)
        self.records = self._records()
        pickles = [name for name in self.records if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise InputError(f"{path}: a zip file, but not one that torch.save wrote (no single data.pkl)")
        self.top = pickles[0].split("/")[0]
        order = self.records.get(f"{self.top}/byteorder")
        if order is not None and self._bytes(order) != b"little":
            raise InputError(f"{path}: a big-endian checkpoint is not supported; re-save it on a little-endian machine")
        record = self.records[pickles[0]]
        if record.size > _MAX_PICKLE:
            raise InputError(f"{path}: refused: its pickle takes {record.size} bytes, a checkpoint needs far less")
        self._check(record, "data.pkl")
        self.tree: Any = read_pickle(self._bytes(record), str(path))

    def _records(self) -> dict[str, _Record]:
        records: dict[str, _Record] = {}
        try:
            with zipfile.ZipFile(self.path) as archive:
                members = archive.infolist()
            if len(members) > _MAX_RECORDS:
                raise InputError(f"{self.path}: refused: {len(members)} members in one archive")
            for member in members:
                if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 0x1:
                    raise InputError(
                        f"{self.path}: refused: {member.filename[:100]!r} is compressed or encrypted; "
                        "give the file as torch.save wrote it"
                    )
                if member.filename in records:
                    raise InputError(f"{self.path}: damaged: {member.filename[:100]!r} occurs twice")
                records[member.filename] = self._record(member)
        except ZIP_ERRORS as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{self.path}: cut off or damaged zip archive: {str(error)[:150]}; download or save it again"
            ) from error
        return records

    def _record(self, member: zipfile.ZipInfo) -> _Record:
        header = self.file.bytes(member.header_offset, member.header_offset + 30)
        if member.header_offset < 0 or len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise zipfile.BadZipFile(f"no header of {member.filename[:100]!r}")
        name_length, extra_length = struct.unpack("<HH", header[26:30])
        start = member.header_offset + 30 + name_length + extra_length
        if start + member.file_size > self.file.size or member.compress_size != member.file_size:
            raise zipfile.BadZipFile(f"{member.filename[:100]!r} goes past the end")
        return _Record(start, member.file_size, member.CRC)

    def _bytes(self, record: _Record) -> bytes:
        return self.file.bytes(record.start, record.start + record.size)

    def _check(self, record: _Record, what: str) -> None:
        # torch can be told to write no checksums; they are 0 then.
        if record.crc:
            with memoryview(self.file.buffer) as view, view[record.start : record.start + record.size] as content:
                if zlib.crc32(content) != record.crc:
                    raise InputError(f"{self.path}: damaged: {what} does not match its checksum")

    def entry(self, name: str, tensor: TensorRef) -> Entry:
        """The tensor as an `Entry`; InputError if it does not lie inside its storage."""
        storage = tensor.storage
        record = self.records.get(f"{self.top}/data/{storage.key}")
        itemsize = DTYPES[storage.dtype].storage.itemsize
        if record is None or record.size != storage.size * itemsize:
            raise InputError(f"{self.path}: damaged: the data of {name[:100]!r} are missing or cut")
        shape, strides = tensor.shape, tensor.strides
        last = tensor.offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        # More elements than the storage has would be a repeated view (stride 0), a way to fill memory.
        count = prod(shape)
        if count > storage.size or (count and last >= storage.size):
            raise InputError(f"{self.path}: damaged: {name[:100]!r} reaches outside its data")
        start = record.start + tensor.offset * itemsize
        contiguous = tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))
        if all(size == 1 or own == want for size, own, want in zip(shape, strides, contiguous, strict=True)):
            plain = self.file.entry(start, shape, storage.dtype)
            return Entry(shape, storage.dtype, plain.read, lambda: self._check(record, name))

        def read() -> np.ndarray:  # e.g. a convolution saved in channels-last layout
            flat = self.file.array(record.start, (storage.size,), storage.dtype)[tensor.offset :]
            view = np.lib.stride_tricks.as_strided(flat, shape, [stride * itemsize for stride in strides])
            return np.ascontiguousarray(view)

        return Entry(shape, storage.dtype, read, lambda: self._check(record, name))


def read_torch(path: Path, select: Any) -> Weights:
    """Open a torch checkpoint; `select(tree, path)` picks (state dict, notes) from the object tree.

    Raises:
        InputError: see `TorchArchive`; or the state dict's tensors together claim more than the file has.
    """
    archive = TorchArchive(path)
    state, notes = select(archive.tree, path)
    entries = {name: archive.entry(name, tensor) for name, tensor in state.items()}
    # tied weights are one tensor under two names
    views = {(t.storage, t.offset, t.shape, t.strides): entries[name].nbytes for name, t in state.items()}
    if sum(views.values()) > archive.file.size:
        raise InputError(f"{path}: refused: its tensors share data and together exceed the file")
    return Weights(path, "torch", entries, notes=notes, files=[archive.file])


def _pickled_state_dict(entries: Mapping[str, Entry]) -> bytes:
    """The protocol-2 pickle that torch.save writes for a dict of contiguous CPU tensors."""

    def text(value: str) -> bytes:
        encoded = value.encode("utf-8")
        return pickle.BINUNICODE + struct.pack("<I", len(encoded)) + encoded

    def integer(value: int) -> bytes:
        return pickle.dumps(value, protocol=2)[2:-1]

    def integers(values: tuple[int, ...]) -> bytes:
        return pickle.MARK + b"".join(map(integer, values)) + pickle.TUPLE

    out = [pickle.PROTO + b"\x02", pickle.EMPTY_DICT]
    for key, (name, entry) in enumerate(entries.items()):
        shape = entry.shape
        strides = tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))
        storage_type = pickle.GLOBAL + f"torch\n{DTYPES[entry.dtype].torch}\n".encode()
        out += [text(name), pickle.GLOBAL, b"torch._utils\n_rebuild_tensor_v2\n", pickle.MARK]
        out += [pickle.MARK, text("storage"), storage_type, text(str(key)), text("cpu"), integer(prod(shape))]
        out += [pickle.TUPLE, pickle.BINPERSID, integer(0), integers(shape), integers(strides), pickle.NEWFALSE]
        out += [pickle.GLOBAL, b"collections\nOrderedDict\n", pickle.EMPTY_TUPLE, pickle.REDUCE]
        out += [pickle.TUPLE, pickle.REDUCE, pickle.SETITEM]
    out.append(pickle.STOP)
    return b"".join(out)


def _add(archive: zipfile.ZipFile, out: BinaryIO, name: str, content: Any, size: int) -> None:
    info = zipfile.ZipInfo(name)  # dated 1980, so equal weights give equal files
    large = size >= 1 << 30
    # The local header ends after the name, this padding field and, for a large member, 20 more bytes.
    end = out.tell() + 30 + len(name.encode()) + 4 + 20 * large
    padding = -end % _ALIGNMENT
    info.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
    info.file_size = size
    with archive.open(info, "w", force_zip64=large) as member:
        member.write(content)


def write_torch(out: BinaryIO, entries: Mapping[str, Entry]) -> None:
    """Write a bare state dict that `torch.load(FILE, weights_only=True)` reads, one tensor at a time."""
    top = "archive"
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        pickled = _pickled_state_dict(entries)
        _add(archive, out, f"{top}/data.pkl", pickled, len(pickled))
        _add(archive, out, f"{top}/byteorder", b"little", 6)
        for key, entry in enumerate(entries.values()):
            content = entry.read().reshape(-1).data.cast("B")
            _add(archive, out, f"{top}/data/{key}", content, len(content))
        _add(archive, out, f"{top}/version", b"3\n", 2)
