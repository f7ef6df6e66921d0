"""Entries of an original's state dict that are no parameters here: copies of others, and tensors without elements."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from mindone_coca.errors import InputError
from mindone_coca.model.family import Family, Shape
from mindone_coca.weights.formats.dtypes import DTYPES
from mindone_coca.weights.formats.entry import Entry


def derived_entry(name: str, shape: Shape, entries: Mapping[str, Entry], family: Family) -> Entry:
    """Make such an entry from the parameters."""
    if name in family.tied:
        return entries[family.tied[name]]
    dtype = entries[family.marker].dtype
    return Entry(shape, dtype, lambda: np.empty(shape, DTYPES[dtype].storage))


def without_derived(entries: Mapping[str, Entry], family: Family, path: Path) -> dict[str, Entry]:
    """Leave them out. Reading a parameter whose copy there differs raises InputError."""
    kept = {name: entry for name, entry in entries.items() if not family.is_derived(name, entry.shape)}
    for copy, name in family.tied.items():
        if copy in entries and name in kept:
            kept[name] = _with_equal_copy(name, kept[name], copy, entries[copy], path)
    return kept


def _with_equal_copy(name: str, entry: Entry, copy_name: str, copy: Entry, path: Path) -> Entry:
    def read() -> np.ndarray:
        array = entry.read()
        same = (copy.shape, copy.dtype) == (entry.shape, entry.dtype)
        if not same or not np.array_equal(array.view(np.uint8), copy.read().view(np.uint8)):  # bit for bit
            raise InputError(f"{path}: {copy_name} differs from {name}, with which this model shares it")
        return array

    return replace(entry, read=read)
