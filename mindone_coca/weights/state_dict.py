"""Which of a torch checkpoint's tensors are the model's: the state dict in the tree of a training checkpoint.

Only the picked state dict is judged; what lies beside it may be anything.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from shlex import quote
from typing import Any, NoReturn

from mindone_coca.errors import InputError
from mindone_coca.weights.entry_names import converter_command
from mindone_coca.weights.formats.kinds import ZERO_PARTS
from mindone_coca.weights.formats.torch_objects import GlobalName, TensorRef, Unknown
from mindone_coca.weights.tree import (
    as_dict,
    at_key,
    held_tensors,
    is_state,
    largest_module,
    module_size,
    tensor_count,
    tensors_under,
)

_STATE_KEYS = ("state_dict", "model_state_dict", "model", "module")
_EMA_KEYS = ("state_dict_ema", "ema_state_dict", "model_ema", "ema")
_PLAIN = str | bytes | int | float | None | list | tuple | dict

# What is said to do about an object inside the weights, by a word of its description.
_FIXES = (
    ("numpy", "load it in Python, make its arrays tensors with torch.as_tensor and torch.save the result"),
    ("a tensor stored as a NumPy array", "save it from the CPU: torch.save({k: v.cpu() for k, v in state.items()})"),
    ("quantized", "save the weights as they were before quantization"),
    ("Sharded", "gather the shards before saving (torch.distributed.checkpoint.state_dict, full_state_dict=True)"),
    ("DTensor", "gather the shards before saving (torch.distributed.checkpoint.state_dict, full_state_dict=True)"),
    ("meta device", "load the weights into the model before saving it"),
    ("a tensor of type", "cast it to a floating type before saving: tensor.float()"),
    ("negation", "save plain tensors: tensor.resolve_conj().resolve_neg()"),
    ("sparse", "save plain tensors: tensor.to_dense()"),
    ("tensor", "save plain tensors: torch.save({k: v.detach().clone() for k, v in state.items()})"),
)
_SAVE = "save the model's state_dict() instead"
_OTHER_FIX = "load it in Python, keep the tensors alone and torch.save them"


def _under(tree: dict, keys: tuple[str, ...]) -> tuple[str, dict] | None:
    """The first of `keys` that holds a state dict, directly or one of `_STATE_KEYS` deeper."""
    for key in keys:
        value = as_dict(tree.get(key)) or {}
        if is_state(value):
            return key, value
        for inner in _STATE_KEYS:
            if is_state(value.get(inner)):
                return f"{key}.{inner}", as_dict(value[inner]) or {}
    return None


def _is_bare(tree: dict) -> bool:
    """Whether the tree itself is the state dict, and not a tensor or two beside one under another key."""
    own = tensor_count(tree)
    return own > 0 and all(count <= own for count in tensors_under(tree).values())


def _refuse_module(module: Unknown, keys: Iterable[Any], path: Path) -> NoReturn:
    """Raise InputError for a whole model; `keys` lead to it in what the file holds."""
    access = "".join(f"[{repr(key)[:40]}]" for key in keys)
    place = f" under {access}" if access else ""
    of_class = module.what.removeprefix("made with ")
    raise InputError(
        f"{path}: holds a whole pickled model{place} (of class {of_class}), which was not run; where you trust it and "
        "have its classes, save its weights alone: "
        f"torch.save(torch.load(FILE, weights_only=False){access}.state_dict(), 'coca.pt')"
    )


def _refuse_found(tree: Any, path: Path) -> NoReturn:
    """Raise InputError that says what there is in a tree without a state dict under a usual name."""
    items = as_dict(tree)
    found = held_tensors(tree)
    module = largest_module(tree)
    if module is not None and (not found or module_size(module[1]) >= found[0][1]):
        _refuse_module(module[1], module[0], path)
    for key in (*_STATE_KEYS, *_EMA_KEYS):
        for name, item in (as_dict((items or {}).get(key)) or {}).items():
            if isinstance(item, Unknown) and not found:
                _refuse_object(item, name, key, path)
    if items is not None and ("ds_version" in items or "ds_config" in items):
        raise InputError(f"{path}: {ZERO_PARTS}")
    if found:
        raise InputError(
            f"{path}: no state dict under a usual name; tensors are under {_listed(found)}; convert the right one: "
            f"{converter_command(path, f'--key {quote(found[0][0])}')}"
        )
    if isinstance(tree, Unknown):
        raise InputError(f"{path}: holds an object ({tree.what}), not a state dict; {_SAVE}")
    if items is None:
        kind = "one tensor" if isinstance(tree, TensorRef) else f"a {type(tree).__name__}"
        raise InputError(f"{path}: holds {kind}, not a state dict; {_SAVE}")
    names = ", ".join(repr(name)[:40] if isinstance(name, str) else "..." for name in list(items)[:5]) or "nothing"
    raise InputError(f"{path}: no state dict found in it, only {names}; {_SAVE}")


def _listed(found: list[tuple[str, int]]) -> str:
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return (", ".join(f"{key!r} ({count})" for key, count in found[:5]) or "no key") + more


def _pick(tree: Any, path: Path, ema: bool, key: str | None) -> tuple[str, dict, list[str]]:
    """The state dict, its key ("" for the tree itself), and notes."""
    if key is not None:
        if ema:
            raise InputError(f"{path}: give --key or --ema, not both")
        return _pick_at(tree, path, key)
    items = as_dict(tree) or {}
    averaged, plain = _under(items, _EMA_KEYS), _under(items, _STATE_KEYS)
    if ema:
        if averaged is None:
            for key in _EMA_KEYS:
                if isinstance(value := items.get(key), Unknown) and value.is_module:
                    _refuse_module(value, [key], path)
            raise InputError(f"{path}: has no averaged (EMA) weights; convert without --ema")
        return *averaged, [f"took {averaged[0]}"]
    if plain is not None:
        beside = "" if averaged is None else f", not the averaged weights under {averaged[0]}"
        return *plain, [f"took {plain[0]}{beside}"]
    if averaged is not None and not _is_bare(items):
        raise InputError(
            f"{path}: has averaged (EMA) weights only; convert them with --ema: {converter_command(path, '--ema')}"
        )
    if not _is_bare(items):
        _refuse_found(tree, path)
    return "", items, []


def _pick_at(tree: Any, path: Path, key: str) -> tuple[str, dict, list[str]]:
    value = at_key(tree, key)
    usual = _under(as_dict(tree) or {}, _STATE_KEYS)
    if value is None and usual is not None:  # a prefix of names in the state dict that is taken without a key
        key, value = f"{usual[0]}.{key}", at_key(usual[1], key)
    if not is_state(value):
        inner = _under(as_dict(value) or {}, _STATE_KEYS)
        if inner is None:
            if isinstance(value, Unknown) and value.is_module:
                _refuse_module(value, key.split("."), path)
            raise InputError(
                f"{path}: no state dict under the key {key!r}; tensors are under {_listed(held_tensors(tree))}"
            )
        key, value = f"{key}.{inner[0]}", inner[1]
    return key, as_dict(value) or {}, [f"took {key}"]


def _refuse_object(value: Any, name: Any, place: str, path: Path) -> NoReturn:
    what = value.what if isinstance(value, Unknown) else "an object without a name"
    if isinstance(value, GlobalName):
        what = f"the Python name {value.shown}"
    fix = next((fix for word, fix in _FIXES if word in what), _OTHER_FIX)
    within = f"{place!r}" if place else "the state dict"
    shown = repr(name[:100]) if isinstance(name, str) else "an entry without a name"
    raise InputError(f"{path}: refused: {shown} in {within} is {what}, which was not run or read; {fix}")


def _is_zero3(tree: Any, tensors: dict[str, TensorRef], path: Path) -> bool:
    """Whether the tensors are the hollow ones that a rank of DeepSpeed's ZeRO stage 3 saves."""
    hollow = sum(tensor.shape == (0,) for tensor in tensors.values())
    named = re.match(r"(bf16_)?zero_pp_rank_\d+", path.name) is not None
    return hollow * 2 > len(tensors) and (named or ("param_shapes" in (as_dict(tree) or {})))


def pick_state_dict(
    tree: Any, path: Path, ema: bool = False, key: str | None = None
) -> tuple[dict[str, TensorRef], list[str]]:
    """Find the model's tensors in the object tree of a torch checkpoint.

    Bare, under `state_dict` (or `model_state_dict`, `model`, `module`), or with `ema` the averaged weights
    under `state_dict_ema` (or `ema_state_dict`, `model_ema`, `ema`). Without `ema` the plain weights are taken.
    `key` names another place, with dots between the keys of nested dicts, or what the names of the wanted tensors
    begin with.

    Returns:
        The tensors by name, and notes on what was chosen or left out.

    Raises:
        InputError: no state dict, not the kind asked for, or something in it that is neither a tensor nor plain data.
    """
    place, state, notes = _pick(tree, path, ema, key)
    tensors: dict[str, TensorRef] = {}
    others = []
    for name, value in state.items():
        if isinstance(value, TensorRef):
            if not isinstance(name, str):
                raise InputError(f"{path}: a tensor's name is no text")
            tensors[name] = value
        elif isinstance(value, _PLAIN):
            others.append(name)
        else:
            _refuse_object(value, name, place, path)
    if _is_zero3(tree, tensors, path):
        raise InputError(f"{path}: {ZERO_PARTS}")
    if others:
        shown = ", ".join(name[:40] if isinstance(name, str) and name.isprintable() else "..." for name in others[:3])
        notes.append(f"{len(others)} entries that are no tensors left out ({shown})")
    return tensors, notes
