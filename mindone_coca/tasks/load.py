"""A model that train.py trained for a task, ready to predict."""

import os
from collections.abc import Sequence

from mindone_coca.config import Dtype, find_config
from mindone_coca.errors import InputError
from mindone_coca.factory import create_model, find_config_and_weights
from mindone_coca.model.families import HEAD_KEY
from mindone_coca.model.family import FamilyConfig
from mindone_coca.tasks.heads import Classifier
from mindone_coca.tasks.settings import TaskCfg
from mindone_coca.typed_mapping import from_dict, read_mapping
from mindone_coca.weights.load import to_tensor
from mindone_coca.weights.shapes import check_shapes
from mindone_coca.weights.source import open_weights


def read_task_cfg(config: str | os.PathLike) -> TaskCfg:
    """The `task_cfg` of a config. Raises InputError when it has none, as a model without a head has."""
    path = find_config(config)
    data = read_mapping(path)
    if HEAD_KEY not in data:
        raise InputError(
            f"{path}: no model trained for a task (it has no task_cfg); give the final.yaml of a training run with "
            "task: classification or another"
        )
    return from_dict(TaskCfg, data[HEAD_KEY], f"{path}: {HEAD_KEY}")


def load_task_model(
    config: str | os.PathLike,
    model_path: str | os.PathLike | None = None,
    dtype: Dtype | None = None,
    lora: Sequence[str] = (),
) -> tuple[FamilyConfig, Classifier]:
    """Build the model of a run's `final.yaml` and load it strictly, head and all.

    Args:
        config: a path. model_path: weights; by default those that the config names.
        dtype: `float32`, `float16` or `bfloat16` for CoCa, None as the config says; the head is float32.
        lora: folders of adapters to merge into CoCa's weights, DIR or DIR=WEIGHT.
    Raises:
        InputError: no model of a task, or config and weights do not go together.
    """
    cfg = read_task_cfg(config)
    model_config, weights = find_config_and_weights(config, model_path, lora)
    classifier = Classifier(create_model(model_config, weights, dtype), cfg)
    entries = open_weights(weights, head=True)
    parameters = {p.name: p for p in classifier.head.get_parameters()}
    shapes = {name: tuple(p.shape) for name, p in parameters.items()}
    check_shapes(shapes, {name: entry.shape for name, entry in entries.items()}, weights)
    for name, entry in entries.items():
        if entry.dtype != "float32":
            raise InputError(f"{weights}: {name} holds {entry.dtype}; a head is float32")
        parameters[name].set_data(to_tensor(entry.read().reshape(shapes[name]), "float32"))
    return model_config, classifier
