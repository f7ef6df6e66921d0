"""Weights to a file, in any of the formats."""

from collections.abc import Mapping
from pathlib import Path

from mindone_coca.errors import InputError
from mindone_coca.files import atomic_path
from mindone_coca.weights.formats.entry import Entry
from mindone_coca.weights.formats.mindspore_file import write_mindspore
from mindone_coca.weights.formats.safetensors_file import write_safetensors
from mindone_coca.weights.formats.torch_file import write_torch
from mindone_coca.weights.source import TORCH_SUFFIXES


def save_weights(path: str | Path, entries: Mapping[str, Entry], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors to a file atomically, one at a time; the suffix chooses the format.

    Args:
        path: .safetensors, MindSpore's .ckpt, or torch's .bin, .pt, .pth.
        entries: name -> tensor, such as `parameter_entries(model)`; names are written as they are.
        metadata: text kept in a .safetensors header; the other formats have no place for it.

    Raises:
        InputError: the suffix is none of these. OutputError: the disk is full or not writable.
    """
    path = Path(path)
    if path.suffix not in (".safetensors", ".ckpt", *TORCH_SUFFIXES):
        raise InputError(f"{path}: weights are written as .safetensors, .ckpt or {', '.join(TORCH_SUFFIXES)}")
    with atomic_path(path) as partial, open(partial, "wb") as out:
        if path.suffix == ".safetensors":
            write_safetensors(out, entries, metadata or {})
        elif path.suffix == ".ckpt":
            write_mindspore(out, entries)
        else:
            write_torch(out, entries)
