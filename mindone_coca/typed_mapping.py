"""Settings files to dataclasses: every key known, every value of the type that its field says."""

import dataclasses
import difflib
import json
import math
import os
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from mindone_coca.errors import InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ConfigType = TypeVar("ConfigType", bound="DataclassInstance")


def option(default: Any, help_text: str, **more: Any) -> Any:
    """A dataclass field that programs offer as an option, with its line in the help."""
    return dataclasses.field(default=default, metadata={"help": help_text, **more})


class Default(int):
    """A number that nobody gave: `at_most` lowers it. One that was given stays, to be refused if it is too much."""


def at_most(number: int, limit: int) -> int:
    """The number, or where it is a `Default` the limit if that is less."""
    return min(int(number), limit) if isinstance(number, Default) else number


# what people type for names that are spelled quite otherwise
SYNONYMS = {
    "learning_rate": "lr",
    "base_lr": "lr",
    "wd": "weight_decay",
    "bs": "batch_size",
    "num_epochs": "epochs",
    "iterations": "max_steps",
    "gradient_accumulation": "accumulate_steps",
    "max_grad_norm": "grad_clip_norm",
    "gradient_checkpointing": "recompute",
    "amp": "precision",
    "dtype": "precision",
    "output_dir": "dir",
    "folder": "dir",
    "workers": "num_workers",
    "root": "image_root",
}


def nearest_name(name: str, known: typing.Iterable[str]) -> str | None:
    """The known name that is meant by one that is not known, if any is close."""
    known = list(known)
    if SYNONYMS.get(name) in known:
        return SYNONYMS[name]
    begun = [other for other in known if other.startswith(f"{name}_")]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.9)
    near = near or (begun if len(begun) == 1 else difflib.get_close_matches(name, known, n=1))
    return near[0] if near else None


def nearest(name: str, known: typing.Iterable[str], section: str = "") -> str:
    """`; did you mean 'x'?` when a known name is close, else nothing.

    Args:
        section: of a config that the name stands in, which is told with it.
    """
    close = nearest_name(name, known)
    place = f" ({section}.{close})" if section else ""
    return f"; did you mean {close!r}{place}?" if close else ""


def read_mapping(path: str | os.PathLike) -> dict:
    """Read a YAML or JSON file that holds a mapping. Raises InputError naming the file."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such config file; give the path of a YAML or JSON file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a config ({error}); give a YAML or JSON text file") from None
    try:
        data = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (yaml.YAMLError, json.JSONDecodeError) as error:
        where = " ".join(str(error).split())
        raise InputError(f"{path}: not valid {'JSON' if path.suffix == '.json' else 'YAML'}: {where}") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: holds no key: value pairs; a config is a mapping")
    return data


def from_dict(cls: type[ConfigType], data: object, where: str) -> ConfigType:
    """Build the dataclass `cls` from a mapping, refusing unknown keys, missing keys and wrong types by name.

    Args:
        where: named at the head of every message: a file, then a dotted key (`train.yaml: optim`).
    """
    if not isinstance(data, Mapping):
        raise InputError(f"{where}: must be a mapping of keys to values, got {show(data)}")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    for key in data:
        if key not in fields:
            section = where.rpartition(": ")[2] if ": " in where else ""
            raise InputError(f"{where}: unknown key {key!r}{nearest(str(key), fields, section) or '; remove it'}")
    for name, spec in fields.items():
        required = spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING
        if required and name not in data:
            raise InputError(f"{where}: the key {name!r} is missing; add it")
    values = {key: _convert(hints[key], value, f"{where}: {key}") for key, value in data.items()}
    return cls(**values)


def show(value: Any) -> str:
    """A value and its type, for messages."""
    return f"{type(value).__name__} {value!r}"


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Check `value` against a type hint; nested dataclasses are built, ints are taken for floats."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        errors = []
        for option in typing.get_args(hint):
            try:
                return _convert(option, value, where)
            except InputError as error:
                errors.append((dataclasses.is_dataclass(option) and isinstance(value, Mapping), error))
        nested = [error for is_nested, error in errors if is_nested]
        raise nested[0] if nested else InputError(f"{where}: must be {_hint_name(hint)}, got {show(value)}")
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else from_dict(hint, value, where)
    if origin is typing.Literal:
        options = typing.get_args(hint)
        if value in options and not (isinstance(value, bool) and True not in options and False not in options):
            return value
        hinted = nearest(value, [o for o in options if isinstance(o, str)]) if isinstance(value, str) else ""
        raise InputError(f"{where}: must be one of {', '.join(map(str, options))}, got {show(value)}{hinted}")
    if origin in (list, tuple) and isinstance(value, (list, tuple)):
        args = typing.get_args(hint)
        if origin is list or (len(args) == 2 and args[1] is ...):
            args = (args[0],) * len(value)
        if len(args) == len(value):
            return origin(_convert(arg, item, f"{where}[{i}]") for i, (arg, item) in enumerate(zip(args, value)))
    if origin is dict and isinstance(value, Mapping):
        return dict(value)
    if hint is Any or (hint is types.NoneType and value is None):
        return value
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if hint in (int, str, bool, dict) and type(value) is hint:
        return value
    raise InputError(f"{where}: must be {_hint_name(hint)}, got {show(value)}")


def _hint_name(hint: Any) -> str:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_hint_name(option) for option in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(map(str, typing.get_args(hint)))
    if hint is types.NoneType:
        return "null"
    return getattr(hint, "__name__", str(hint)) if typing.get_origin(hint) is None else str(hint)


def value_differs(instance: Any, spec: dataclasses.Field) -> bool:
    """Whether a dataclass field was set to something else than its default."""
    default = spec.default if spec.default_factory is dataclasses.MISSING else spec.default_factory()
    return getattr(instance, spec.name) != default
