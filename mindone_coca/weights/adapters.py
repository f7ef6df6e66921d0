"""Folders of LoRA adapters, as the peft library writes and reads them, and merging them into weights.

`adapter_config.json` and `adapter_model.safetensors` are peft's, under the original's names of modules. What peft has
no place for lies beside them in `mindone_coca.safetensors` under our names: adapters of separate query, key and value,
and parameters that were trained beside the adapters, whole. Needs no MindSpore.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mindone_coca.errors import InputError
from mindone_coca.files import atomic_folder
from mindone_coca.model.family import ADAPTER_SIDES, Family
from mindone_coca.places import here
from mindone_coca.typed_mapping import read_mapping
from mindone_coca.weights.formats.dtypes import WEIGHT_DTYPES, cast
from mindone_coca.weights.formats.entry import Entry
from mindone_coca.weights.formats.safetensors_file import read_safetensors
from mindone_coca.weights.save import save_weights

CONFIG, PEFT_WEIGHTS, OWN_WEIGHTS = "adapter_config.json", "adapter_model.safetensors", "mindone_coca.safetensors"
_PREFIX, _SIDES = "base_model.model.", (".lora_A.weight", ".lora_B.weight")
_INNER = ".base_layer."  # what peft puts between an attention and its output projection
# peft (0.21.2, `lora.layer.MultiheadAttention.merge`) adds the change of a packed attention's output projection twice,
# in its forward pass as in merge_and_unload; an adapter means here what it means there
OUT_PROJ_TIMES = 2.0
# peft's settings that change what an adapter means, and their values here
_PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    **dict.fromkeys(("use_dora", "lora_bias", "fan_in_fan_out", "use_qalora"), (False, None)),
    **dict.fromkeys(("modules_to_save", "layer_replication", "trainable_token_indices", "use_bdlora"), (None, [])),
    **dict.fromkeys(("alora_invocation_tokens", "arrow_config", "target_parameters", "kasa_config"), (None, [])),
}


@dataclass(frozen=True)
class LowRank:
    """One adapter: scale * B A is added to a weight (out, in); A is (r, in), B is (out, r)."""

    a: Entry
    b: Entry
    scale: float

    def change(self) -> np.ndarray:
        """(out, in), float32."""
        a, b = (cast(entry.read(), entry.dtype, "float32").reshape(entry.shape) for entry in (self.a, self.b))
        return np.float32(self.scale) * (b @ a)


@dataclass(frozen=True)
class AdapterFolder:
    """What a folder holds, by our names of the model's parameters.

    Attributes:
        weight: what its changes are multiplied by.
    """

    path: Path
    pairs: dict[str, LowRank]
    whole: dict[str, Entry] = field(default_factory=dict)
    weight: float = 1.0


def split_weight(text: str) -> tuple[str, float]:
    """`DIR=WEIGHT` as folder and weight; without one it is 1. Raises InputError."""
    here(text, "adapters", "copy their folder")
    folder, equals, number = text.rpartition("=")
    if not equals or Path(text).is_dir():
        return text, 1.0
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        raise InputError(f"{text}: {number!r} is no weight of adapters; write a number, as in {folder}=0.5")
    return folder, weight


def absolute_adapters(text: str) -> str:
    """The same with the folder's whole path."""
    folder, weight = split_weight(text)
    return f"{Path(folder).absolute()}" + ("" if weight == 1 else f"={weight:g}")


def read_adapters(text: str, family: Family) -> AdapterFolder:
    """Open a folder, `DIR` or `DIR=WEIGHT`. Raises InputError: it holds none, or some that cannot be merged here."""
    name, weight = split_weight(text)
    path = Path(name)
    if not (path / CONFIG).is_file() or not (path / PEFT_WEIGHTS).is_file():
        raise InputError(f"{path}: no folder of adapters, which holds {CONFIG} and {PEFT_WEIGHTS}; name one that does")
    config = read_mapping(path / CONFIG)
    for key, allowed in _PLAIN.items():
        if key in config and config[key] not in allowed:
            raise InputError(
                f"{path / CONFIG}: {key} is {config[key]!r}; only plain LoRA can be read here: merge these with peft "
                "(merge_and_unload) and convert the result"
            )
    pairs: dict[str, dict[str, Entry]] = {}
    for key, entry in read_safetensors(path / PEFT_WEIGHTS).items():
        side = next((side for side in _SIDES if key.endswith(side)), None)
        if side is None or len(entry.shape) != 2:
            raise InputError(f"{path / PEFT_WEIGHTS}: {key[:100]!r} is no adapter of a linear layer; merge with peft")
        pairs.setdefault(key.removeprefix(_PREFIX).removesuffix(side), {})[side] = entry
    found = {}
    for module, sides in pairs.items():
        pair = _pair(module, sides, config, path)
        times = OUT_PROJ_TIMES if _INNER in module else 1.0
        found[_parameter(module, family, path)] = replace(pair, scale=times * pair.scale)
    whole: dict[str, Entry] = {}
    if (path / OWN_WEIGHTS).is_file():
        own = read_safetensors(path / OWN_WEIGHTS)
        for key, entry in own.items():
            if key.endswith(ADAPTER_SIDES[0]):
                module = key.removesuffix(ADAPTER_SIDES[0])
                other = module + ADAPTER_SIDES[1]
                sides = dict(zip(_SIDES, (entry, own[other]))) if other in own else {}
                found[module] = _pair(module, sides, config, path)
            elif not key.endswith(ADAPTER_SIDES[1]):
                whole[key] = entry
    return AdapterFolder(path, found, whole, weight)


def _parameter(module: str, family: Family, path: Path) -> str:
    """Our name of the weight that peft's adapter of a module belongs to."""
    module = module.replace(_INNER, ".")
    for weight in (f"{module}.weight", f"{module}.in_proj_weight"):
        if name := family.to_mindspore(weight):
            return name
    raise InputError(f"{path / PEFT_WEIGHTS}: {module[:100]!r} is no linear layer of {family.original}'s CoCa")


def _pair(module: str, sides: Mapping[str, Entry], config: Mapping[str, Any], path: Path) -> LowRank:
    if set(sides) != {*_SIDES}:
        raise InputError(f"{path}: {module[:100]!r} has one of the two matrices of an adapter; save it again")
    a, b = (sides[side] for side in _SIDES)
    if a.shape[0] != b.shape[1] or any(entry.dtype not in WEIGHT_DTYPES for entry in (a, b)):
        raise InputError(f"{path}: {module[:100]!r}: {a.shape} and {b.shape} are not the two matrices of an adapter")
    alpha = config.get("lora_alpha")
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):  # as peft does
            alpha = value
            break
    if not isinstance(alpha, (int, float)):
        raise InputError(f"{path / CONFIG}: lora_alpha is missing or no number")
    return LowRank(a, b, scale_of(alpha, a.shape[0], bool(config.get("use_rslora"))))


def scale_of(alpha: float, rank: int, use_rslora: bool) -> float:
    """What an adapter's product is multiplied by."""
    return alpha / (math.sqrt(rank) if use_rslora else rank)


def merged(
    entries: Mapping[str, Entry], folders: Sequence[AdapterFolder], ours: Callable[[str], str | None], dtype: str | None
) -> dict[str, Entry]:
    """The entries with all changes added, each as it is read; sums are made in float32.

    Args:
        ours: our name of an entry's.
        dtype: of entries that change; None keeps theirs.
    Raises:
        InputError: adapters that do not belong to these weights.
    """
    names = {ours(name) or name: name for name in entries}
    result = dict(entries)
    for folder in folders:
        changes: dict[str, LowRank | Entry] = {**folder.pairs, **folder.whole}
        for key, change in changes.items():
            if isinstance(change, LowRank):
                shape: tuple[int, ...] = (change.b.shape[0], change.a.shape[1])
            else:
                shape = change.shape
            if key not in names or result[names[key]].shape != shape:
                there = f"{entries[names[key]].shape} there" if key in names else "not there"
                raise InputError(f"{folder.path}: {key} {shape} belongs to other weights ({there}); name those it fits")
            name = names[key]
            result[name] = _changed(result[name], entries[name], change, folder.weight, dtype)
    return result


def _changed(before: Entry, base: Entry, change: LowRank | Entry, weight: float, dtype: str | None) -> Entry:
    wanted = dtype or base.dtype

    def read() -> np.ndarray:
        array = cast(before.read(), before.dtype, "float32").reshape(base.shape)
        if isinstance(change, LowRank):
            added = change.change()
        else:
            trained = cast(change.read(), change.dtype, "float32").reshape(base.shape)
            if weight == 1 and before is base:
                return cast(np.ascontiguousarray(trained), "float32", wanted)  # to the bit
            added = trained - cast(base.read(), base.dtype, "float32").reshape(base.shape)
        return cast(np.ascontiguousarray(array + np.float32(weight) * added), "float32", wanted)

    return replace(base, dtype=wanted, read=read, check=before.check)


def write_adapters(
    folder: Path, family: Family, trained: Mapping[str, Entry], settings: Mapping[str, Any], base: str | None
) -> list[str]:
    """Write a folder of adapters.

    Args:
        trained: by our names: adapters' matrices (`WEIGHT.lora_a`, `WEIGHT.lora_b`) and whole parameters.
        settings: r, lora_alpha, lora_dropout, use_rslora.
        base: the weights that they were trained on.
    Returns:
        What peft will not find, by our names.
    """
    exported: dict[str, Entry] = {}
    own: dict[str, Entry] = {}
    modules: list[str] = []
    for name, entry in trained.items():
        number = next((number for number, side in enumerate(ADAPTER_SIDES) if name.endswith(side)), None)
        module = None if number is None else _module(name.removesuffix(ADAPTER_SIDES[number]), family, trained)
        if module is None or number is None:
            own[name] = entry
            continue
        exported[_PREFIX + module + _SIDES[number]] = entry
        if _INNER not in module and module not in modules:
            modules.append(module)
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "target_modules": modules,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "modules_to_save": None,
        "task_type": None,
        **settings,
    }
    with atomic_folder(folder) as partial:
        (partial / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        save_weights(partial / PEFT_WEIGHTS, exported, {"format": "pt"})
        save_weights(partial / OWN_WEIGHTS, own)
    return list(own)


def _module(weight: str, family: Family, trained: Mapping[str, Entry]) -> str | None:
    """The name of the module that peft adapts for one of our weights; None where it has none."""
    attention, inner, _ = weight.rpartition(".out_proj.")
    if inner and attention + ".in_proj_weight" + ADAPTER_SIDES[0] not in trained:
        return None  # of an attention with separate matrices
    module, _, last = (family.to_original(weight) or "").rpartition(".")
    if last not in ("weight", "in_proj_weight"):
        return None
    return module.replace(".out_proj", _INNER + "out_proj") if inner else module
