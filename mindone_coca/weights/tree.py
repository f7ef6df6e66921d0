"""Looking around in the object tree of a torch checkpoint: where its tensors are."""

from collections.abc import Iterator, Mapping
from itertools import chain, islice
from typing import Any, TypeVar

from mindone_coca.weights.formats.torch_objects import TensorRef, Unknown

T = TypeVar("T")

_MAX_DEPTH = 4
_MAX_NODES = 100_000  # containers that are looked into
_MAX_KEY = 200  # letters
_MAX_MODULES = 20  # whole models that are counted


def as_dict(value: Any) -> dict | None:
    """A dict, or what a file puts into an object that is some other kind of dict; None for anything else."""
    if isinstance(value, Unknown):
        return value.items
    return value if isinstance(value, dict) else None


def _is_plain_key(key: Any) -> bool:
    return isinstance(key, int | None) or (isinstance(key, str) and len(key) <= _MAX_KEY)


def _children(value: Any) -> Iterator[tuple[Any, Any]]:
    items = as_dict(value)
    if items is not None:
        yield from ((key, item) for key, item in items.items() if _is_plain_key(key))
    elif isinstance(value, list | tuple):
        yield from enumerate(value)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, TensorRef) or (isinstance(value, Unknown) and value.is_tensor)


def is_state(value: Any) -> bool:
    """Whether a value is a dict with tensors in it (readable or not)."""
    return any(map(_is_tensor, (as_dict(value) or {}).values()))


def tensor_count(value: Any) -> int:
    """The number of tensors that a dict holds directly, under names."""
    return sum(isinstance(key, str) and _is_tensor(item) for key, item in (as_dict(value) or {}).items())


def _walk(tree: Any) -> Iterator[tuple[tuple, Any]]:
    """The containers and objects of a tree with the keys that lead there, outer ones first, to a depth people use."""
    seen = {id(tree)}
    level: list[tuple[tuple, Any]] = [((), tree)]
    for _ in range(_MAX_DEPTH):
        below = []
        for keys, value in level:
            for key, item in _children(value):
                if isinstance(item, dict | list | tuple | Unknown) and id(item) not in seen and len(seen) < _MAX_NODES:
                    seen.add(id(item))
                    below.append(((*keys, key), item))
        yield from below
        level = below


def tensors_under(tree: Any) -> dict[str, int]:
    """The dotted keys of the dicts in a tree that hold tensors by name, and how many."""
    return {".".join(map(str, keys)): count for keys, item in _walk(tree) if (count := tensor_count(item))}


def held_tensors(tree: Any) -> list[tuple[str, int]]:
    """The places of `tensors_under` for a message, the largest first; those that cannot be typed are left out."""
    found = [(key, count) for key, count in tensors_under(tree).items() if len(key) <= 100 and key.isprintable()]
    return sorted(found, key=lambda item: -item[1])


def module_size(module: Unknown) -> int:
    """The number of parameters and buffers of a whole torch.nn.Module."""
    count, pending, seen = 0, [module.state], {id(module.state)}
    while pending:
        state = as_dict(pending.pop()) or {}
        inner = [item.state for item in (as_dict(state.get("_modules")) or {}).values() if isinstance(item, Unknown)]
        for value in (state.get("_parameters"), state.get("_buffers"), *inner):
            if id(value) not in seen:  # shared modules count once, and no file can make this long
                seen.add(id(value))
                count += tensor_count(value)
                pending.append(value)
    return count


def largest_module(tree: Any) -> tuple[tuple, Unknown] | None:
    """The largest whole torch.nn.Module in a tree and the keys that lead there; None if there is none."""
    found = chain([((), tree)], _walk(tree))
    modules = ((keys, item) for keys, item in found if isinstance(item, Unknown) and item.is_module)
    return max(islice(modules, _MAX_MODULES), key=lambda pair: module_size(pair[1]), default=None)


def below(entries: Mapping[Any, T], key: str) -> dict[str, T]:
    """The entries whose names begin with `key` and a dot, without these."""
    start = f"{key}."
    return {
        name[len(start) :]: item for name, item in entries.items() if isinstance(name, str) and name.startswith(start)
    }


def at_key(tree: Any, key: str) -> Any:
    """The value under a dotted key, None if there is none.

    A part of the key may itself have dots, and be a list's index. Within a state dict it is what the names begin with.
    """
    for own, value in _children(tree):
        name = str(own)
        if name == key:
            return value
        if key.startswith(f"{name}.") and (found := at_key(value, key[len(name) + 1 :])) is not None:
            return found
    return below(as_dict(tree) or {}, key) or None if is_state(tree) else None
