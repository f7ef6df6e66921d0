"""A run's state on disk: one file per checkpoint, whole or not there at all."""

import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mindspore import Parameter, Tensor

from mindone_coca.errors import InputError
from mindone_coca.factory import save_model
from mindone_coca.model.families import HEAD_KEY, family_of
from mindone_coca.model.family import FamilyConfig
from mindone_coca.weights.formats.entry import Entry
from mindone_coca.weights.formats.safetensors_file import read_safetensors
from mindone_coca.weights.names import HEAD
from mindone_coca.weights.save import save_weights

log = logging.getLogger(__name__)
CHECKPOINTS = "checkpoints"  # their folder within the run's


@dataclass
class Position:
    """Where a run stands. Every random draw depends on the seed, the epoch and the sample alone, so this, the seed
    and the parameters are all that decides how it goes on."""

    step: int = 0  # updates tried
    epoch: int = 0
    samples: int = 0  # of this epoch, over all devices
    best: float | None = None  # lowest validation loss
    seed: int = 0


def entries_of(parameters: Iterable[Parameter], prefix: str = "") -> dict[str, Entry]:
    """float32 parameters as entries of a weights file, without `prefix` in their names."""

    def entry(parameter: Parameter) -> Entry:
        return Entry(tuple(parameter.shape), "float32", lambda: np.ascontiguousarray(parameter.asnumpy()))

    return {p.name.removeprefix(prefix): entry(p) for p in parameters}


def checkpoint_paths(folder: Path) -> list[Path]:
    """All checkpoints in a folder, oldest first."""
    found = [path for path in folder.glob("step_*.safetensors") if re.fullmatch(r"step_\d+", path.stem)]
    return sorted(found, key=lambda path: int(path.stem.split("_")[1]))


class Checkpoints:
    """The checkpoints of one run, `folder/step_00001000.safetensors`.

    Args:
        parameters: the model's and the optimiser's state, all float32.
        keep_last: how many to keep.
    """

    def __init__(self, folder: Path, parameters: Sequence[Parameter], keep_last: int) -> None:
        self.folder, self.parameters, self.keep_last = folder, parameters, keep_last

    def paths(self) -> list[Path]:
        """All checkpoints, oldest first."""
        return checkpoint_paths(self.folder)

    def save(self, position: Position) -> Path:
        path = self.folder / f"step_{position.step:08d}.safetensors"
        save_weights(path, entries_of(self.parameters), {"position": json.dumps(asdict(position))})
        for old in self.paths()[: -self.keep_last]:
            old.unlink()
        return path

    def remove_partial(self) -> None:
        """Clear away what a killed process was writing."""
        for path in self.folder.glob(".*.partial.safetensors"):
            path.unlink()

    def load(self, path: Path) -> Position:
        """Set all parameters from a checkpoint, bit for bit.

        Raises InputError when it belongs to another model, or to other settings of freezing or EMA.
        """
        weights = read_safetensors(path)
        expected = {p.name: tuple(p.shape) for p in self.parameters}
        found = {name: entry.shape for name, entry in weights.items()}
        if expected != found:
            name = next(name for name in [*expected, *found] if expected.get(name) != found.get(name))
            raise InputError(
                f"{path}: not a checkpoint of this config ({name}: {found.get(name, 'missing')} there, "
                f"{expected.get(name, 'none')} here); choose another output.dir or set output.resume=never"
            )
        for parameter in self.parameters:
            array = weights[parameter.name].read().reshape(parameter.shape)
            parameter.set_data(Tensor(np.array(array)))  # a copy: training writes in place
        return Position(**json.loads(weights.metadata["position"]))


def export(
    folder: Path,
    name: str,
    model_config: FamilyConfig,
    weights: Mapping[str, Entry],
    task_cfg: Mapping[str, Any] | None = None,
) -> Path:
    """Write `name.safetensors` and `name.yaml`, which names it, for inference.py; returns the config's path.

    Args:
        task_cfg: of a model with a head, whose weights are called `head.*`.
    """
    family = family_of(model_config)
    unknown = [key for key in weights if not family.to_original(key) and not (task_cfg and key.startswith(HEAD))]
    if unknown:
        raise ValueError(f"not a CoCa parameter: {unknown[0]}")
    more = {HEAD_KEY: dict(task_cfg)} if task_cfg else {}
    return save_model(folder / f"{name}.safetensors", model_config, weights, more)
