"""The model config of a repository."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mindone_coca.errors import InputError
from mindone_coca.hub.clients import open_repository
from mindone_coca.hub.names import HubName
from mindone_coca.hub.repository import Repository
from mindone_coca.typed_mapping import read_mapping

CONFIG_SUFFIXES = (".yaml", ".yml", ".json")
_PLAIN = "config.json"
REPOSITORY_CONFIGS = ("open_clip_config.json", _PLAIN)
_INDEX_SUFFIX = ".index.json"
_KEYS = {"model_cfg", "multimodal_cfg", "family"}  # of a CoCa's config; others write `config.json` too


def config_names(weights: str) -> list[str]:
    """What the config of a weights file may be called, the likeliest first: as the file is but for its suffix, or as
    a repository calls it."""
    stem = PurePosixPath(weights.removesuffix(_INDEX_SUFFIX) if weights.endswith(_INDEX_SUFFIX) else weights).stem
    return [*(stem + suffix for suffix in CONFIG_SUFFIXES), *REPOSITORY_CONFIGS]


def folders_around(path: Path) -> list[Path]:
    """The folders of a repository that a path in its cache lies within, but for the innermost; of others none."""
    parents = list(path.parents)
    roots = (
        number
        for number, folder in enumerate(parents)
        if folder.parent.name == "snapshots" and "--" in folder.parent.parent.name
    )
    return parents[1 : next(roots, -1) + 1]


def is_model_config(path: Path) -> bool:
    """Whether a file is a model config: `config.json` can be anything's."""
    return path.name != _PLAIN or not _KEYS.isdisjoint(read_mapping(path))


def repository_configs(repository: Repository, weights: str) -> Iterator[str]:
    """The files that may be the config of a weights file, beside it or in the folders around it."""
    place = PurePosixPath(weights)
    for folder in place.parents:
        names = config_names(place.name) if folder == place.parent else REPOSITORY_CONFIGS
        yield from (path for name in names if (path := str(folder / name)) in repository.files)


def fetch_config(name: HubName) -> Path | str:
    """The model config that a name stands for: fetched from the repository, or the name of a packaged one.

    Raises:
        InputError: the repository has none or cannot be asked.
    """
    repository = open_repository(name)
    if name.file in repository.files and PurePosixPath(name.file).suffix in CONFIG_SUFFIXES:
        return repository.fetch(name.file)
    weights = name.file if name.file in repository.files else f"{name.file or '.'}/coca_model.safetensors"
    for file in repository_configs(repository, str(PurePosixPath(weights))):
        if is_model_config(path := repository.fetch(file)):
            return path
    if name.config is not None:
        return name.config
    raise InputError(
        f"{name.given}: no model config in the repository (looked for {' and '.join(REPOSITORY_CONFIGS)}); leave "
        "the config out, and it is inferred from the weights, or give another"
    )
