"""The families of models. This is the only list of them."""

import os
from collections.abc import Mapping
from dataclasses import fields

from mindone_coca.config import find_config
from mindone_coca.errors import InputError
from mindone_coca.model.coca_pytorch.family import COCA_PYTORCH
from mindone_coca.model.family import Family, FamilyConfig
from mindone_coca.model.open_clip.family import OPEN_CLIP
from mindone_coca.typed_mapping import nearest, read_mapping, show

FAMILIES: list[Family] = [OPEN_CLIP, COCA_PYTORCH]  # a config that names none is of the first
HEAD_KEY = "task_cfg"  # in the config of a model trained for a task; without its head that is a model as any other


def family_named(key: str, where: str = "model config") -> Family:
    """The family of that key. Raises InputError that begins with `where`."""
    for family in FAMILIES:
        if family.key == key:
            return family
    keys = [family.key for family in FAMILIES]
    raise InputError(f"{where}: family: must be one of {', '.join(keys)}, got {show(key)}{nearest(str(key), keys)}")


def family_of(config: FamilyConfig) -> Family:
    """The family whose config this is."""
    return next(family for family in FAMILIES if type(config) is family.config)


def load_model_config(config: str | os.PathLike | Mapping | FamilyConfig) -> FamilyConfig:
    """Read and check a model config from a YAML or JSON path, a packaged name, a dict or a built one.

    The key `family` chooses the architecture: `coca`, open_clip's and the default, or `parallel_coca`, coca-pytorch's.

    Raises:
        InputError: a config that cannot be built, naming the file and the key.
    """
    if not isinstance(config, str | os.PathLike | Mapping | FamilyConfig):
        raise InputError(f"config: must be a path, a packaged name, a dict or a built config, got {show(config)}")
    if isinstance(config, FamilyConfig):
        config.check()
        return config
    where = "model config"
    if not isinstance(config, Mapping):
        path = find_config(config)
        config, where = read_mapping(path), str(path)
    if {"model", "data"} <= config.keys():
        raise InputError(f"{where}: is a config for train.py, not a model's{_instead(config)}")
    data = {key: value for key, value in config.items() if key not in ("family", HEAD_KEY)}
    return family_named(config.get("family", FAMILIES[0].key), where).config.from_dict(data, where)


def is_model_config(data: Mapping) -> bool:
    """Whether plain data is a model config and no training's, by its keys."""
    keys = {"family", "model_cfg", HEAD_KEY, *(spec.name for family in FAMILIES for spec in fields(family.config))}
    return "model" not in data and not keys.isdisjoint(data)


def _instead(training: Mapping) -> str:
    """The model configs that a training config leads to, for a message."""
    model, output = (training[key] if isinstance(training.get(key), Mapping) else {} for key in ("model", "output"))
    places = []
    if isinstance(model.get("config"), str):
        places.append(f"{model['config']}, which it trains")
    if isinstance(output.get("dir"), str):
        places.append(f"{output['dir']}/final.yaml, which it writes")
    return f"; give {', or '.join(places)}" if places else "; give a model config"
