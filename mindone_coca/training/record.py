"""A run's record: the settings stored beside its checkpoints, which later starts in the same folder must keep to."""

import dataclasses
import fnmatch
import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast, get_args

import yaml

from mindone_coca import device
from mindone_coca.config import Precision
from mindone_coca.data.settings import SourceConfig
from mindone_coca.errors import InputError
from mindone_coca.files import atomic_path
from mindone_coca.training.settings import TrainConfig, as_number
from mindone_coca.typed_mapping import read_mapping

NAME = "config.yaml"
# What may be another value when a run goes on: nothing that decides what the updates before and after are made of.
MAY_CHANGE = (
    "output.*",  # what is written, how often and where
    "device.*",
    "data.num_workers",
    "data.cache",
    "data.max_bad_share",
    "train.max_steps",  # these two end the run later or earlier; a cosine schedule then ends there too
    "train.epochs",
    "train.recompute",  # less memory for more time, the same numbers
    "head.cache",
)
SHOWN = 3  # differences in a message
LONGEST_VALUE = 80  # letters of a value in a message
_ABSENT = object()


def check_record(folder: Path, config: TrainConfig) -> None:
    """Compare the settings with those that a run in `folder` was begun with.

    A setting that the record does not have counts as its default there: it came with a later version.

    Raises InputError naming what differs, unless `MAY_CHANGE` lists it.
    """
    path = folder / NAME
    if not path.exists():
        warnings.warn(f"{path}: is gone, so nothing tells whether these settings are those of the run", stacklevel=2)
        return
    before, now = _comparable(read_mapping(path)), _comparable(config.to_dict())
    if "head" not in now:  # earlier versions stored the defaults of a head that task coca does not have
        before.pop("head", None)
    before = _with_defaults(before, _defaults(type(config), config))
    if now["train"]["precision"] == "auto":  # then it is as before, see `with_precision`
        now["train"]["precision"] = before["train"]["precision"]
    found = [change for change in differences(before, now) if not may_change(change[0])]
    if _pairs(before) == _pairs(now):  # micro-batches of another size may make up the same batch
        found = [change for change in found if change[0] not in ("train.batch_size", "train.accumulate_steps")]
    if found:
        shown = "; ".join(f"{key} was {_show(old)}, now {_show(new)}" for key, old, new in found[:SHOWN])
        more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise InputError(
            f"{folder}: holds a run with other settings: {shown}{more}; set them as before, choose another output.dir, "
            f"or, to go on with them all the same, change them in {path} too"
        )
    if config.optim.schedule == "cosine":
        for key in ("max_steps", "epochs"):
            old, new = before["train"][key], now["train"][key]
            if old != new:
                warnings.warn(
                    f"train.{key} was {_show(old)}, now {_show(new)}: the cosine of the learning rate now ends with "
                    "the new last step; the steps so far followed the old one",
                    stacklevel=2,
                )


def with_precision(config: TrainConfig, folder: Path) -> TrainConfig:
    """The same settings with `train.precision` auto as what it stands for: that of the run in the folder, or the best
    of this device."""
    if config.train.precision != "auto":
        return config
    path = folder / NAME
    before = read_mapping(path).get("train", {}).get("precision") if path.exists() else None
    # another word in a record, "auto" among them, is none that a run has had
    chosen = cast(Precision, before) if before in get_args(Precision) else device.training_precision()
    return dataclasses.replace(config, train=dataclasses.replace(config.train, precision=chosen))


def write_record(folder: Path, config: TrainConfig) -> None:
    """Store the settings of the run that starts or goes on now."""
    with atomic_path(folder / NAME) as partial:
        plain = json.loads(json.dumps(config.to_dict()))  # tuples as lists
        partial.write_text(yaml.safe_dump(plain, sort_keys=False), encoding="utf-8")


def may_change(key: str) -> bool:
    """Whether a setting, by its dotted key, may be another one when a run goes on."""
    return any(fnmatch.fnmatchcase(key, pattern) for pattern in MAY_CHANGE)


def differences(before: Any, now: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted key, value before and value now of all that differs."""
    if key in ("data.train", "data.val"):
        yield from _source_differences(before, now, key)
    elif isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in dict.fromkeys([*now, *before]):
            inner = f"{key}.{name}" if key else str(name)
            yield from differences(before.get(name, _ABSENT), now.get(name, _ABSENT), inner)
    elif before != now:
        yield key, before, now


def _source_differences(before: Any, now: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    """The same of `data.train` or `data.val`, source by source where there are as many as before."""
    old_sources, new_sources = _sources(before), _sources(now)
    if len(old_sources) != len(new_sources):
        yield key, before, now
        return
    for number, (old, new) in enumerate(zip(old_sources, new_sources)):
        place = key if len(new_sources) == 1 else f"{key}[{number}]"
        for name in dict.fromkeys([*new, *old]):
            if old.get(name) != new.get(name):
                yield place if name == "path" else f"{place}.{name}", old.get(name), new.get(name)


def _sources(value: Any) -> list[dict[str, Any]]:
    """`data.train` or `data.val` in its long form: a list of mappings that say what is default, too."""
    sources = value if isinstance(value, list) else [value]
    defaults = {
        spec.name: _comparable(_default_of(spec)) for spec in dataclasses.fields(SourceConfig) if spec.name != "path"
    }
    return [{**defaults, **(source if isinstance(source, Mapping) else {"path": source})} for source in sources]


def _pairs(settings: Mapping[str, Any]) -> Any:
    """Pairs in an update on one device; of a record that somebody edited, both settings if they are no numbers."""
    size, parts = settings["train"]["batch_size"], settings["train"]["accumulate_steps"]
    return size * parts if isinstance(size, int) and isinstance(parts, int) else (size, parts)


def _comparable(value: Any) -> Any:
    """A setting in the one form in which it is compared: tuples as lists, 1e-5 as a number."""
    if isinstance(value, Mapping):
        return {key: _comparable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_comparable(item) for item in value]
    return as_number(value)


def _default_of(spec: dataclasses.Field) -> Any:
    return spec.default if spec.default_factory is dataclasses.MISSING else spec.default_factory()


def _defaults(cls: type, instance: Any) -> dict[str, Any]:
    """The defaults of a config's dataclass, section by section; what has none is left out."""
    found: dict[str, Any] = {}
    for spec in dataclasses.fields(cls):
        value = getattr(instance, spec.name)
        if dataclasses.is_dataclass(value) and _default_of(spec) is not None:  # a section that is always there
            found[spec.name] = _defaults(type(value), value)
        elif (default := _default_of(spec)) is not dataclasses.MISSING:
            found[spec.name] = _comparable(default)
    return found


def _with_defaults(settings: Any, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with what they lack; a section that is none counts as empty."""
    filled = dict(settings) if isinstance(settings, Mapping) else {}
    for key, default in defaults.items():
        if isinstance(default, Mapping):
            filled[key] = _with_defaults(filled.get(key), default)
        else:
            filled.setdefault(key, default)
    return filled


def _show(value: Any) -> str:
    """A value as YAML would have it, cut in the middle when it is long."""
    if value is _ABSENT:
        return "not there"
    text = json.dumps(value, ensure_ascii=False)
    half = LONGEST_VALUE // 2
    return text if len(text) <= LONGEST_VALUE else f"{text[:half]} ... {text[-half:]}"
