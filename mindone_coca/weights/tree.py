"""Looking around in the object tree of a torch checkpoint: where its tensors are."""

from collections.abc import Iterator
from typing import Any

from mindone_coca.weights.formats.torch_objects import TensorRef, Unknown

_MAX_DEPTH = 4
_MAX_NODES = 100_000  # containers that are looked into


def as_dict(value: Any) -> dict | None:
    """A dict, or what a file puts into an object that is some other kind of dict; None for anything else."""
    if isinstance(value, Unknown):
        return value.items
    return value if isinstance(value, dict) else None


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    items = as_dict(value)
    if items is not None:
        yield from ((str(key), item) for key, item in items.items() if isinstance(key, str | int | None))
    elif isinstance(value, list | tuple):
        yield from ((str(index), item) for index, item in enumerate(value))


def _is_tensor(value: Any) -> bool:
    return isinstance(value, TensorRef) or (isinstance(value, Unknown) and value.is_tensor)


def is_state(value: Any) -> bool:
    """Whether a value is a dict with tensors in it (readable or not)."""
    return any(map(_is_tensor, (as_dict(value) or {}).values()))


def tensor_count(value: Any) -> int:
    """The number of tensors that a dict holds directly, under names."""
    return sum(isinstance(key, str) and _is_tensor(item) for key, item in (as_dict(value) or {}).items())


def tensors_under(tree: Any) -> dict[str, int]:
    """The dotted keys of the dicts in a tree that hold tensors by name, and how many, to a depth that people use."""
    counts: dict[str, int] = {}
    seen = {id(tree)}
    level = [("", tree)]
    for _ in range(_MAX_DEPTH):
        below = []
        for place, value in level:
            for key, item in _children(value):
                if not isinstance(item, dict | list | tuple | Unknown) or id(item) in seen or len(seen) > _MAX_NODES:
                    continue
                seen.add(id(item))
                path = f"{place}.{key}" if place else key
                if count := tensor_count(item):
                    counts[path] = count
                below.append((path, item))
        level = below
    return counts


def held_tensors(tree: Any) -> list[tuple[str, int]]:
    """The places of `tensors_under` for a message, the largest first; very long keys are no help and left out."""
    found = [(key, count) for key, count in tensors_under(tree).items() if len(key) <= 100 and key.isprintable()]
    return sorted(found, key=lambda item: -item[1])


def at_key(tree: Any, key: str) -> Any:
    """The value under a dotted key, None if there is none. A part may itself have dots, and be a list's index."""
    for name, value in _children(tree):
        if name == key:
            return value
        if key.startswith(f"{name}.") and (found := at_key(value, key[len(name) + 1 :])) is not None:
            return found
    return None
