"""From a config and a weights file to a model ready to run, and back to files."""

import contextlib
import dataclasses
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from mindspore.nn.utils import no_init_parameters

from mindone_coca import device
from mindone_coca.argument_names import names_arguments
from mindone_coca.config import Dtype, find_config
from mindone_coca.errors import InputError
from mindone_coca.files import atomic_path
from mindone_coca.hub.configs import CONFIG_SUFFIXES
from mindone_coca.hub.names import hub_name
from mindone_coca.model.base import ImageTextModel
from mindone_coca.model.families import family_of, load_model_config
from mindone_coca.model.family import FamilyConfig
from mindone_coca.places import UrlPath, content_of
from mindone_coca.storage import is_url
from mindone_coca.waiting import Wait
from mindone_coca.weights.adapters import absolute_adapters, read_adapters
from mindone_coca.weights.formats.entry import Entry
from mindone_coca.weights.hub import local_weights
from mindone_coca.weights.infer import config_beside, inferred_config
from mindone_coca.weights.load import load_weights
from mindone_coca.weights.save import save_weights
from mindone_coca.weights.source import INDEX_SUFFIX, weights_in_folder

DEFAULT_WEIGHTS = (Path("models/coca_model.ckpt"), Path("models/coca_model.safetensors"))


@names_arguments
def create_model(
    config: str | os.PathLike | Mapping | FamilyConfig,
    checkpoint_path: str | os.PathLike | None = None,
    dtype: Dtype | None = None,
) -> ImageTextModel:
    """Build a model in eval mode; the config's `family` chooses the class.

    Args:
        config: a YAML or JSON path, the name of a packaged config (`coca_vit-l-14`), a dict, or a built config.
        checkpoint_path: weights in MindSpore's, open_clip's or coca-pytorch's names, or a folder with one such file,
            loaded strictly. None takes those that the config's `checkpoint` names, as the programs do. Where it names
            none either the weights are drawn at random, with a warning unless the config is a dict or a built one.
        dtype: `float32`, `float16` or `bfloat16` for weights and activations; norms, softmax and logits stay float32.
            None leaves the choice to the config's `cast_dtype`, which is float32 by default.
    Raises:
        InputError: a config that cannot be built, or weights that are not there or do not fit it.
    """
    loaded, weights = load_config_and_weights(config, checkpoint_path)
    if weights is None and isinstance(config, str | os.PathLike):
        warnings.warn(
            f"{config}: names no weights, so they are drawn at random and captions will mean nothing; give a "
            "checkpoint_path",
            stacklevel=3,
        )
    if weights is None and loaded.lora:
        raise InputError(f"{loaded.lora[0]}: adapters belong to trained weights; give those too")
    if dtype is not None:
        loaded = dataclasses.replace(loaded, cast_dtype=dtype)
    with Wait(f"loading {weights}" if weights else "drawing weights at random"):
        device.ensure_configured()
        # drawing weights takes seconds for a large model: not where a checkpoint follows
        with contextlib.nullcontext() if weights is None else no_init_parameters():
            model = family_of(loaded).build(loaded)
        if weights is not None:
            load_weights(model, weights, lora=loaded.lora)
    return model


def save_model(
    path: Path,
    config: FamilyConfig,
    weights: Mapping[str, Entry],
    more: Mapping[str, Any] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write weights and, beside them, the config that names them, so that every program takes the pair.

    Args:
        path: of the weights, `.safetensors` or `.ckpt`; the config has the same name and `.yaml`.
        weights: under their MindSpore names, such as `weights.load.parameter_entries(model)`.
        more: sections of the config that are no model's, as a task's head.
        metadata: text kept in a .safetensors header.

    Returns:
        The config's path.
    """
    save_weights(path, weights, metadata)
    written = path.with_suffix(".yaml")
    with atomic_path(written) as partial:
        data = {**config.to_dict(), "checkpoint": path.name, **(more or {})}
        partial.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return written


def find_weights(path: str | os.PathLike) -> Path:
    """The weights file that `path` names, itself or as the one in a folder."""
    path = local_weights(path)
    if path.is_dir():
        return weights_in_folder(path)
    if path.suffix in CONFIG_SUFFIXES and not path.name.endswith(INDEX_SUFFIX):
        raise InputError(f"{path}: a config, no weights; give it with -c, or the weights beside it")
    if not path.is_file():
        raise InputError(f"{path}: no such weights file; convert one with tools/model_conversion/coca_convert.py")
    return path


def named_weights(config: str | os.PathLike | Mapping | FamilyConfig, loaded: FamilyConfig) -> Path | None:
    """The weights that a config's `checkpoint` names, looked for beside its file, then from the working directory.

    Args:
        config: as it was given. loaded: the same, built.

    Returns:
        None where it names none.
    Raises:
        InputError: they are in neither place.
    """
    if not loaded.checkpoint:
        return None
    if is_url(loaded.checkpoint) or hub_name(loaded.checkpoint):
        return find_weights(loaded.checkpoint)
    if isinstance(config, str) and is_url(config):
        return find_weights(content_of(UrlPath(config).parent / loaded.checkpoint))
    places = [Path(loaded.checkpoint)]
    where = "model config"
    if isinstance(config, str | os.PathLike):
        where = str(find_config(config))
        places.insert(0, Path(where).parent / loaded.checkpoint)
    for place in places:
        if place.exists():
            return find_weights(place)
    raise InputError(
        f"{where}: checkpoint: {loaded.checkpoint} is not there, neither beside the config nor from the working "
        "directory; name other weights"
    )


def load_config_and_weights(
    config: str | os.PathLike | Mapping | FamilyConfig, weights: str | os.PathLike | None
) -> tuple[FamilyConfig, Path | None]:
    """What a config and weights mean where a library's user names them: weights are those given, else the config's
    own, None where it names none; a repository that is the config has both. Raises InputError."""
    if weights is None and isinstance(config, str | os.PathLike) and hub_name(config):
        return find_config_and_weights(config, None)
    loaded = load_model_config(config)
    return loaded, named_weights(config, loaded) if weights is None else find_weights(weights)


def _check_default(weights: Path, name: str, config: FamilyConfig) -> None:
    """Refuse weights that nobody named for a config of another model, by the config beside them."""
    if (beside := config_beside(weights)) is None:
        return
    own = load_model_config(beside)
    if family_of(own).shapes(own) != family_of(config).shapes(config):
        raise InputError(
            f"{name}: names no weights, and {weights}, which would be taken then, is another model ({beside}); name "
            "weights with --model_path"
        )


def find_config_and_weights(
    config: str | os.PathLike | None, model_path: str | os.PathLike | None, lora: Sequence[str] = ()
) -> tuple[FamilyConfig, Path]:
    """What `-c` and `--model_path` mean when either is left out.

    The weights are model_path, else the config's `checkpoint` (looked for beside the config, then from the working
    directory), else `models/coca_model.ckpt` or `.safetensors`. The config is the given one, else that beside the
    weights, else inferred from their shapes; a repository that is the config has the weights, too. Adapters, DIR or
    DIR=WEIGHT, are added to those that the config names. Raises InputError.
    """
    if model_path is None and hub_name(config):
        config, model_path = None, config
    given = None if model_path is None else find_weights(model_path)
    default = next((path for path in DEFAULT_WEIGHTS if path.is_file()), None)
    loaded = None if config is None else load_model_config(config)
    weights = given or (None if config is None or loaded is None else named_weights(config, loaded))
    if weights is None and default is not None:
        weights = default
        if loaded is not None:
            _check_default(default, str(config), loaded)
    if weights is None:
        raise InputError(
            f"{DEFAULT_WEIGHTS[0]}: no weights there; convert some with tools/model_conversion/coca_convert.py, or "
            "name others with --model_path"
        )
    if loaded is None:
        loaded = load_model_config(config_beside(weights) or inferred_config(weights))
    if lora:
        loaded = dataclasses.replace(loaded, lora=[*loaded.lora, *map(absolute_adapters, lora)])
        for text in lora:
            read_adapters(text, family_of(loaded))  # a wrong name should not cost the time to load a model
    return loaded, weights
