"""Opening weights of any supported kind: a file, a sharded Hugging Face folder, a folder with one set of weights."""

import json
import warnings
from functools import partial
from pathlib import Path

from mindone_coca.errors import InputError
from mindone_coca.weights.entry_names import plain_names
from mindone_coca.weights.formats.entry import Entry, MappedFile, Weights
from mindone_coca.weights.formats.kinds import SAFETENSORS, TORCH, file_format, refuse_folder
from mindone_coca.weights.formats.mindspore_file import read_mindspore
from mindone_coca.weights.formats.safetensors_file import read_safetensors
from mindone_coca.weights.formats.torch_file import read_torch
from mindone_coca.weights.names import HEAD
from mindone_coca.weights.state_dict import pick_state_dict
from mindone_coca.weights.tree import below

TORCH_SUFFIXES = (".bin", ".pt", ".pth")
SUFFIXES = (*TORCH_SUFFIXES, ".safetensors", ".ckpt")
INDEX_SUFFIX = ".index.json"
_MAX_INDEX = 16 << 20
_MAX_SHARDS = 1000

# A Hugging Face folder may hold the same weights several times; open_clip prefers in this order.
PREFERRED = (
    *(
        "coca_model.safetensors",
        "coca_model.ckpt",
        "open_clip_model.safetensors",
        "open_clip_pytorch_model.safetensors",
    ),
    *("open_clip_pytorch_model.bin", "model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
)


def weights_in_folder(folder: Path) -> Path:
    """The weights file (or shard index) of a folder; of a training run's the final weights, while there are none the
    best so far, with a warning.

    Raises:
        InputError: there is none; there are several and none has a usual name; or one checkpoint in pieces.
    """
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror or error}") from error
    refuse_folder(folder)
    names = [path.name for path in files]
    for name in PREFERRED:
        if name in names:
            return folder / name
    for stem in ("final", "best"):
        if {f"{stem}.safetensors", f"{stem}.yaml"} <= {*names}:
            if stem == "best":
                warnings.warn(
                    f"{folder}: the training has no final.safetensors yet; taking best.safetensors", stacklevel=2
                )
            return folder / f"{stem}.safetensors"
    indexes = [path for path in files if path.name.endswith(INDEX_SUFFIX)]
    candidates = indexes or [path for path in files if path.suffix in SUFFIXES]
    if len(candidates) == 1:
        return candidates[0]
    if not candidates and any(folder.glob("checkpoints/step_*.safetensors")):
        raise InputError(
            f"{folder}: a training that has not ended, without weights to use yet; the same train.py command goes on "
            "with it and writes final.safetensors"
        )
    if not candidates:
        raise InputError(f"{folder}: no weights in this folder (looked for {', '.join(SUFFIXES)}, *{INDEX_SUFFIX})")
    shown = ", ".join(path.name for path in candidates[:4])
    raise InputError(f"{folder}: {len(candidates)} weights files in this folder ({shown}); name one of them")


def _read_file(path: Path, ema: bool, key: str | None) -> Weights:
    kind = file_format(path)
    if kind == TORCH:
        return read_torch(path, partial(pick_state_dict, ema=ema, key=key))
    if ema:
        raise InputError(
            f"{path}: --ema is for torch training checkpoints, and this is a {kind} file; leave it out, or take what "
            "some names begin with by --key"
        )
    found = read_safetensors(path) if kind == SAFETENSORS else read_mindspore(path)
    return _below(found, key)


def _below(found: Weights, key: str | None) -> Weights:
    """Only the entries whose names begin with the key, if there is one."""
    if key is not None:
        found.entries = below(found.entries, key)
        found.notes.append(f"took {key}")
        if not found.entries:
            raise InputError(f"{found.path}: no entry's name begins with {key + '.'!r}; leave --key out, or see --list")
    return found


def _weight_map(index: Path) -> dict[str, str]:
    file = MappedFile(index)
    if file.size > _MAX_INDEX:
        raise InputError(f"{index}: too large for a shard index")
    try:
        weight_map = json.loads(file.bytes(0, file.size).decode("utf-8"))["weight_map"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{index}: not a shard index (a JSON object with weight_map)") from error
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{index}: its weight_map is not a list of tensors")
    for shard in weight_map.values():
        if not isinstance(shard, str) or Path(shard).name != shard or Path(shard).suffix not in SUFFIXES:
            raise InputError(f"{index}: {str(shard)[:100]!r} is not the name of a weights file in the same folder")
    return weight_map


def shard_names(index: Path) -> list[str]:
    """The files beside a shard index that hold its tensors. Raises InputError."""
    shards = sorted(set(_weight_map(index).values()))
    if len(shards) > _MAX_SHARDS:
        raise InputError(f"{index}: refused: {len(shards)} shards")
    return shards


def _read_shards(index: Path, ema: bool, key: str | None) -> Weights:
    weight_map = _weight_map(index)
    shards = shard_names(index)
    parts = {shard: _read_file(index.parent / shard, ema, None) for shard in shards}
    entries: dict[str, Entry] = {}
    for name, shard in weight_map.items():
        if name not in parts[shard]:
            raise InputError(f"{index}: {name[:100]!r} is not in {shard}")
        entries[name] = parts[shard][name]
    for shard, part in parts.items():
        extra = [name for name in part if weight_map.get(name) != shard]
        if extra:
            raise InputError(
                f"{index.parent / shard}: {len(extra)} entries are not in the index, first {extra[0][:100]!r}"
            )
    first = parts[shards[0]]
    notes = [f"{len(shards)} shards", *(note for part in parts.values() for note in part.notes)]
    files = [file for part in parts.values() for file in part.files]
    return _below(Weights(index, first.format, entries, dict(first.metadata), notes, files), key)


def open_weights(path: str | Path, ema: bool = False, head: bool = False, key: str | None = None) -> Weights:
    """Open weights without reading any tensor: names, shapes, types, and how to read each.

    Args:
        path: a file of torch 1.6 or later (a bare state dict or a training checkpoint), safetensors or MindSpore,
            told by its content under whatever name; a Hugging Face `*.index.json`; or a folder with one of them.
        ema: take a torch training checkpoint's averaged weights instead of the plain ones.
        head: of a model trained for a task, take the head's weights instead of CoCa's.
        key: where in a torch checkpoint the state dict is, with dots between the keys of nested dicts; or in any file
            what the names of the wanted tensors begin with.

    Returns:
        The tensors under the names of the file, without the prefixes of wrappers (`module.`, `network.`
        or any word that all begin with) and without known extra entries; `notes` says what was left out.

    Raises:
        InputError: the path is missing, damaged, hostile or of an unknown kind, in one line.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.is_dir():
        path = weights_in_folder(path)
    read = _read_shards if path.name.endswith(INDEX_SUFFIX) else _read_file
    found = read(path, ema, key)
    found.entries, notes = plain_names(found.entries, path)
    found.notes += notes
    of_head = {name: entry for name, entry in found.entries.items() if name.startswith(HEAD)}
    if of_head and not head:
        found.notes.append(f"{len(of_head)} entries of a task's head left out")
    found.entries = of_head if head else {k: entry for k, entry in found.entries.items() if k not in of_head}
    if not found.entries and not head:
        raise InputError(f"{path}: no tensors in it")
    return found
