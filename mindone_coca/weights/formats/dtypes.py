"""Element types of weight files: their names in each format, casts between them, the check for NaN.

NumPy has no bfloat16. Arrays of that type are carried as their bit patterns in uint16 and travel
with the type's name; nothing here needs MindSpore or torch.
"""

from typing import NamedTuple

import numpy as np


class DType(NamedTuple):
    """One element type: the NumPy type that stores its bits and its name in each file format."""

    name: str
    storage: np.dtype
    safetensors: str
    mindspore: str
    torch: str


_ROWS = [
    DType("float32", np.dtype("<f4"), "F32", "Float32", "FloatStorage"),
    DType("float16", np.dtype("<f2"), "F16", "Float16", "HalfStorage"),
    DType("bfloat16", np.dtype("<u2"), "BF16", "BFloat16", "BFloat16Storage"),
    DType("float64", np.dtype("<f8"), "F64", "Float64", "DoubleStorage"),
    DType("int64", np.dtype("<i8"), "I64", "Int64", "LongStorage"),
    DType("int32", np.dtype("<i4"), "I32", "Int32", "IntStorage"),
    DType("int16", np.dtype("<i2"), "I16", "Int16", "ShortStorage"),
    DType("int8", np.dtype("i1"), "I8", "Int8", "CharStorage"),
    DType("uint8", np.dtype("u1"), "U8", "UInt8", "ByteStorage"),
    DType("bool", np.dtype("?"), "BOOL", "Bool", "BoolStorage"),
]
DTYPES = {row.name: row for row in _ROWS}
FROM_SAFETENSORS = {row.safetensors: row for row in _ROWS}
FROM_MINDSPORE = {row.mindspore: row for row in _ROWS}
FROM_TORCH = {row.torch: row for row in _ROWS}

# What a parameter may have; float64 is accepted only where a cast to one of these follows.
WEIGHT_DTYPES = ("float32", "float16", "bfloat16")

_CHUNK = 1 << 22  # elements; keeps temporary masks small beside the tensor itself


def _bfloat16_to_float32(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _float32_to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Round to nearest, ties to even, as torch and the hardware do; a NaN stays a NaN."""
    bits = values.view(np.uint32)
    rounded = (bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16
    return np.where(np.isnan(values), np.uint32(0x7FC0), rounded).astype(np.uint16)


def cast(array: np.ndarray, source: str, target: str) -> np.ndarray:
    """Cast an array of any shape between two floating types given by name; the same type copies nothing.

    Values too large for float16 become infinite, without a warning: callers check with `count_nonfinite`.
    """
    if source == target:
        return array
    flat, out = array.reshape(-1), np.empty(array.size, DTYPES[target].storage)
    for start in range(0, flat.size, _CHUNK):
        part = flat[start : start + _CHUNK]
        if source == "bfloat16":
            part = _bfloat16_to_float32(part)
        with np.errstate(over="ignore"):
            if target == "bfloat16":
                out[start : start + _CHUNK] = _float32_to_bfloat16(part.astype(np.float32))
            else:
                out[start : start + _CHUNK] = part
    return out.reshape(array.shape)


def count_nonfinite(array: np.ndarray, dtype: str) -> int:
    """Number of NaN and infinite values in an array of the named floating type."""
    flat = array.reshape(-1)
    if dtype in ("float32", "float64"):
        # A finite sum proves that every term is finite, at the speed of reading memory.
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(np.add.reduce(flat)):
                return 0
    count = 0
    for start in range(0, flat.size, _CHUNK):
        part = flat[start : start + _CHUNK]
        if dtype == "bfloat16":
            count += int(np.count_nonzero((part & 0x7F80) == 0x7F80))
        else:
            count += int(np.count_nonzero(~np.isfinite(part)))
    return count
