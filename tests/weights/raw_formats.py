"""Weights files of each format byte by byte, also such as no library would write."""

import io
import zipfile
from collections.abc import Callable


def zip_archive(members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return out.getvalue()


def zip_members(data: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(member.filename, archive.read(member)) for member in archive.infolist()]


def torch_archive(pickled: bytes) -> bytes:
    """A torch archive around any pickle."""
    return zip_archive(
        [("a/data.pkl", pickled), ("a/byteorder", b"little"), ("a/data/0", bytes(64)), ("a/version", b"3\n")]
    )


def flip_bit(data: bytes, position: int, bit: int) -> bytes:
    out = bytearray(data)
    out[position] ^= 1 << bit
    return bytes(out)


class Call:
    """Pickles into a call of a function; never unpickled by these tests."""

    def __init__(self, function: Callable, *arguments: object):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def message(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + varint(len(content)) + content


def ckpt_value(tag: bytes, dims: list[int], kind: bytes, content: bytes) -> bytes:
    tensor = b"".join(b"\x08" + varint(size) for size in dims) + message(2, kind) + message(3, content)
    return message(1, message(1, tag) + message(2, tensor))
