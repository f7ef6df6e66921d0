"""The model config of a checkpoint: found beside it, or inferred from its shapes."""

import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from mindone_coca.config import CONFIG_DIR
from mindone_coca.errors import InputError
from mindone_coca.hub.configs import REPOSITORY_CONFIGS, config_names, folders_around, is_model_config
from mindone_coca.model.families import family_of, load_model_config
from mindone_coca.model.family import Family, FamilyConfig, Shape, Shapes
from mindone_coca.weights.entry_names import refuse_parts
from mindone_coca.weights.names import recognise
from mindone_coca.weights.shapes import check_shapes, same_shape
from mindone_coca.weights.source import open_weights
from mindone_coca.weights.tied import without_derived


def config_beside(weights: Path) -> Path | None:
    """The config file that belongs to a weights file: of the same name (.yaml, .yml, .json), or the folder's
    `open_clip_config.json` or `config.json`; of weights in a folder of a repository that of the repository, too. None
    if there is none."""
    candidates = [weights.with_name(name) for name in config_names(weights.name)]
    candidates += [folder / name for folder in folders_around(weights) for name in REPOSITORY_CONFIGS]
    return next((path for path in candidates if path.is_file() and is_model_config(path)), None)


def inferred_config(weights: Path) -> FamilyConfig:
    """The config of a weights file beside which there is none, by its shapes; warns of what they do not tell.

    Raises:
        InputError: they are no CoCa's, or leave a choice open.
    """
    found = open_weights(weights)
    refuse_parts(found, found.path)
    family, ours = recognise(found, str(found.path))
    entries = without_derived(found.entries, family, found.path)
    config, note = infer_config(
        {(family.to_original(name) or name) if ours else name: entry.shape for name, entry in entries.items()},
        family,
        found.path,
    )
    if _matching_published(family.parameter_shapes(config), family) is None:
        warnings.warn(f"{weights}: no config beside it, so it is {note}; give another with -c", stacklevel=2)
    return config


@cache
def _published() -> list[tuple[str, FamilyConfig, Shapes]]:
    configs = [(path.stem, load_model_config(path)) for path in sorted(CONFIG_DIR.glob("coca_*.yaml"))]
    return [(name, config, family_of(config).parameter_shapes(config)) for name, config in configs]


def _matching_published(shapes: Mapping[str, Shape], family: Family) -> tuple[str, FamilyConfig] | None:
    """A packaged config of that family whose parameters have exactly these names and shapes."""
    for name, config, expected in _published():
        fits = family_of(config) is family and expected.keys() == shapes.keys()
        if fits and all(same_shape(n, shapes[n], expected[n]) for n in expected):
            return name, config
    return None


def infer_config(shapes: Mapping[str, Shape], family: Family, path: Path) -> tuple[FamilyConfig, str]:
    """Infer a model config from parameter shapes (the original's names, without what is derived).

    Published configs are tried first, since they also say what no shape tells. The result's parameters have
    exactly the given names and shapes.

    Returns:
        The config, and one sentence on where it comes from and what had to be assumed.

    Raises:
        InputError: the shapes are no CoCa's, or a choice cannot be told from them; names `path`.
    """
    if published := _matching_published(shapes, family):
        name, config = published
        return config, f"the shapes are those of {name}"
    try:
        data = family.infer(shapes)
    except KeyError as error:
        raise InputError(f"{path}: not a whole CoCa checkpoint: {error.args[0]} is missing") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (ValueError, IndexError, ZeroDivisionError):
        raise InputError(f"{path}: a parameter has the wrong number of dimensions for a CoCa model") from None
    config = family.config.from_dict(data, f"{path}: inferred config")
    check_shapes(family.parameter_shapes(config), shapes, path)
    return config, f"config inferred from shapes; assumed, because no shape tells: {family.unknowable}"
