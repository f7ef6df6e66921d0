"""What the package must know of a family of models: one record, from which everything else follows.

A family is a folder beside this file. Nothing of it is imported before it is used, and of its config, names, shapes and
inference nothing needs MindSpore, so that the converter starts at once.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from mindone_coca.config import Dtype, PreprocessCfg, plain_part
from mindone_coca.typed_mapping import from_dict, value_differs

if TYPE_CHECKING:
    from mindone_coca.model.base import ImageTextModel

Shape = tuple[int, ...]
Shapes = dict[str, Shape]  # of a state dict's entries, by name
Names = Sequence[tuple[str, str]]  # the original's name of a parameter and ours; {i} stands for the number of a layer

ConfigType = TypeVar("ConfigType", bound="FamilyConfig")
ADAPTER_SIDES = (".lora_a", ".lora_b")  # of an adapter's matrices, after our name of the weight that it adapts

_LAYER = re.compile(r"\.(0|[1-9][0-9]{0,3})\.")


class FamilyConfig:
    """What every family's model config, a dataclass, has besides its own fields."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]
    family: str  # its key
    cast_dtype: Dtype | None  # of weights and activations; None: float32
    checkpoint: str | None  # weights that belong to it
    lora: Sequence[str] = ()  # folders of adapters to merge into those, DIR or DIR=WEIGHT
    preprocess: PreprocessCfg
    pad_id: int
    temporal_frames: int = 0  # frames of a video that have a learned embedding each; 0: none have

    if TYPE_CHECKING:  # fields or properties of a family's own: defined here, they would be those fields' defaults

        @property
        def context_length(self) -> int:
            """The longest text that the decoder takes."""

        @property
        def vocab_size(self) -> int: ...

        @property
        def image_hw(self) -> tuple[int, int]:
            """Pixels."""

        @property
        def training_length(self) -> int:
            """Tokens of a caption in training, the one that is only predicted among them."""

    @classmethod
    def from_dict(cls: type[ConfigType], data: Mapping[str, Any], where: str = "model config") -> ConfigType:
        """Build it from plain data and check it. Raises InputError that begins with `where`."""
        config = from_dict(cls, data, where)
        config.check(where)
        return config

    def to_dict(self) -> dict:
        """It as plain data, without fields at their defaults."""
        written: dict = {"family": self.family}
        for spec in dataclasses.fields(self):
            value = getattr(self, spec.name)
            if dataclasses.is_dataclass(value):
                written[spec.name] = plain_part(value)
            elif value_differs(self, spec):
                written[spec.name] = value
        return written

    def without_weights(self: ConfigType) -> ConfigType:
        """The same model, naming neither weights nor adapters."""
        plain = dataclasses.replace(self, checkpoint=None)
        if plain.lora:
            plain.lora = []
        return plain

    def check(self, where: str = "model config") -> None:
        """Refuse by name what cannot be built. Raises InputError."""


class ResizableConfig(FamilyConfig):
    """That of a family whose position embeddings can be resized for images of another size."""

    @property
    def patch_hw(self) -> tuple[int, int]:
        """Pixels of a patch: height, width."""
        raise NotImplementedError

    @property
    def grid_hw(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        raise NotImplementedError

    def resized(self: ConfigType, image_size: int | tuple[int, int]) -> ConfigType:
        """The same model for images of another size, in pixels."""
        raise NotImplementedError


def no_config_files(config: FamilyConfig, weights: Path) -> dict[Path, str]:
    """For an original that keeps no config in files."""
    return {}


@dataclass(frozen=True)
class Family:
    """One architecture.

    Attributes:
        key: `family` in a config.
        original: the library that its checkpoints come from, for messages.
        config: its model config, a dataclass that is a `FamilyConfig`.
        build: makes the model of a checked config, its weights drawn as MindSpore is told to.
        names: the parameters' names, all of them.
        marker: the original's name of the token embeddings, by which its checkpoints are recognised.
        shapes: every entry of the original's state dict for a config, what is `tied` and empty ones included.
        infer: a config as plain data from the parameters' names and shapes. Raises KeyError for a parameter that is
            missing, and InputError for what no shape tells.
        unknowable: what `infer` has to assume, for a note.
        run_original: the original's outputs for a config, a state dict of float32 arrays, an image (1, 3, H, W) and a
            text (1, T): `image_features`, `text_features` and `logits`. Raises InputError where it is not installed.
        torch_file: what a folder calls the weights in the original's format.
        tied: entries of the original's state dict that are copies of others, and of which.
        positions: the original's name of position embeddings that can be resized for another image size, if there
            are such; its config is a `ResizableConfig` then.
        config_files: the files from which the original reads a config, beside its weights: path -> text.
    """

    key: str
    original: str
    config: type[FamilyConfig]
    build: Callable[[Any], "ImageTextModel"]
    names: Names
    marker: str
    shapes: Callable[[Any], Shapes]
    infer: Callable[[Mapping[str, Shape]], dict]
    unknowable: str
    run_original: Callable[[Any, Mapping[str, np.ndarray], np.ndarray, np.ndarray], dict[str, np.ndarray]]
    torch_file: str
    tied: Mapping[str, str] = field(default_factory=dict)
    positions: str | None = None
    config_files: Callable[[Any, Path], dict[Path, str]] = no_config_files

    def to_mindspore(self, name: str) -> str | None:
        """Our name of an original's parameter; None for a name that the family does not have."""
        return _translate(name, self._ours)

    def to_original(self, name: str) -> str | None:
        """The original's name of one of our parameters; None for one that the family does not have."""
        return _translate(name, self._theirs)

    def parameter_shapes(self, config: FamilyConfig) -> Shapes:
        """The parameters of a config under the original's names: its state dict without what is derived."""
        return {name: shape for name, shape in self.shapes(config).items() if not self.is_derived(name, shape)}

    def is_derived(self, name: str, shape: Shape) -> bool:
        """Whether an entry of the original's state dict is no parameter: a copy of another, or without elements."""
        return name in self.tied or prod(shape) == 0

    @cached_property
    def _ours(self) -> dict[str, str]:
        return dict(self.names)

    @cached_property
    def _theirs(self) -> dict[str, str]:
        return {ours: theirs for theirs, ours in self.names}


def _translate(name: str, table: Mapping[str, str]) -> str | None:
    layer = _LAYER.search(name)
    if name in table or layer is None:  # some parts that are no layers are numbered too
        return table.get(name)
    pattern = table.get(name[: layer.start()] + ".{i}." + name[layer.end() :])
    return pattern and pattern.replace("{i}", layer[1])


def count_layers(names: Iterable[str], module: str) -> int:
    """How many layers there are under a module, called 0, 1, ...; a gap is found when shapes are compared.

    Raises KeyError where there is none.
    """
    pattern = re.compile(re.escape(module) + r"\.([0-9]{1,4})\.")
    found = {match[1] for name in names if (match := pattern.match(name))}
    if not found:
        raise KeyError(f"{module}.0")
    return len(found)
