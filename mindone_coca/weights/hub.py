"""Weights of a repository, or behind a URL: which of its files they are, and a path of this machine for them."""

import os
from pathlib import Path, PurePosixPath

from mindone_coca.errors import InputError
from mindone_coca.hub.clients import open_repository
from mindone_coca.hub.configs import config_names, repository_configs
from mindone_coca.hub.names import HubName, hub_name
from mindone_coca.hub.repository import RemoteFile, Repository
from mindone_coca.places import UrlPath, local_copy
from mindone_coca.storage import is_url
from mindone_coca.weights.source import INDEX_SUFFIX, PREFERRED, SUFFIXES, shard_names


def local_weights(path: str | os.PathLike) -> Path:
    """The weights that a path, a URL or the name of a repository stands for.

    Of a repository or URL the weights are fetched with all their shards and the files that may be their config, and of
    a repository they are checked; a cache keeps them. A path of this machine is returned as it is.

    Raises:
        InputError: they cannot be had, or it is not clear which of a repository's files they are.
    """
    if isinstance(path, str) and is_url(path):
        repository = _behind(path)
    elif name := hub_name(path):
        repository = open_repository(name)
    else:
        return Path(path)
    file = _weights_file(repository)
    for config in repository_configs(repository, file):
        repository.fetch(config)
    weights = repository.fetch(file)
    if file.endswith(INDEX_SUFFIX):
        for shard in shard_names(weights):
            repository.fetch(str(PurePosixPath(file).parent / shard))
    return weights


def _behind(url: str) -> Repository:
    """The folder of a URL as a repository: all files in it, or of weights that are named themselves those that may go
    with them. Raises InputError."""
    file = UrlPath(url)
    if not file.is_file():
        names = [found.name for found in file.files("*")] if file.is_dir() else []
        if not names:
            raise InputError(f"{file}: no such weights file")
        folder, named = file, None
    else:
        folder, named = file.parent, file.name
        if named.endswith(INDEX_SUFFIX):
            names = [found.name for found in folder.files("*")]
        else:
            names = [named, *(name for name in config_names(named) if UrlPath(f"{folder.url}/{name}").is_file())]

    def get(name: str) -> Path:
        return local_copy(url if name == named else f"{folder.url.rstrip('/')}/{name}")

    return Repository(HubName(str(file), "", file=named), dict.fromkeys(names, RemoteFile()), get)


def _weights_file(repository: Repository) -> str:
    """The weights among the files of the repository, or of its folder that was named: as in a folder on disk."""
    name = repository.name
    if name.file in repository.files:
        return name.file
    files = repository.folder_of(f"{name.file or '.'}/*")
    usual = [file for file in PREFERRED if file in files]
    found = usual or [file for file in files if file.endswith(INDEX_SUFFIX)]
    found = found or [file for file in files if file.endswith(SUFFIXES)]
    if usual or len(found) == 1:
        return files[found[0]]
    where = "there are" if repository.asked else "the cache has"
    if not found and name.file is not None and not files:
        return name.file  # which fetch refuses
    if not found:
        raise InputError(f"{name.given}: {where} no weights in it (looked for {', '.join(SUFFIXES)})")
    shown = ", ".join(sorted(found)[:4])
    raise InputError(
        f"{name.given}: {where} {len(found)} weights files ({shown}); name one, as {name.given}/{min(found)}"
    )
