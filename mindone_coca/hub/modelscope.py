"""Repositories at modelscope.cn, and in the cache, through modelscope-hub.

It keeps its cache, resumes broken downloads, shows progress and heeds MODELSCOPE_ENDPOINT, MODELSCOPE_API_TOKEN and
MODELSCOPE_CACHE.
"""

import warnings
from functools import partial
from pathlib import Path

from mindone_coca.errors import InputError
from mindone_coca.hub.names import HubName
from mindone_coca.hub.repository import RemoteFile, Repository, by_other_means, reason

_MAIN = "master"


def open_repository(name: HubName) -> Repository:
    """Ask the hub what is in a repository; where it cannot be asked, the cache.

    Raises:
        InputError: one line that says why not, and what to do.
    """
    try:
        from modelscope_hub import HubApi, HubError
    except ModuleNotFoundError as error:
        raise InputError(f"{name.given}: pip install 'mindone-coca[modelscope]' to fetch from ModelScope") from error
    api = HubApi()
    try:
        listed = api.list_repo_files(name.repository, "model", revision=name.revision or _MAIN)
    except (HubError, OSError, ValueError) as error:
        snapshot = _snapshot(name)
        if not snapshot.is_dir():
            raise InputError(_refusal(name, error)) from error
        warnings.warn(f"{name.given}: cannot be asked for ({reason(error)}); taking what the cache has", stacklevel=2)
        paths = (path for path in snapshot.rglob("*") if path.is_file())
        cached = {path.relative_to(snapshot).as_posix(): RemoteFile() for path in paths}
        return Repository(name, cached, snapshot.joinpath, asked=False)
    files = {file.path: RemoteFile(file.size, file.sha256 or None) for file in listed if file.type != "tree"}
    return Repository(name, files, partial(_download, name, files))


def _snapshot(name: HubName) -> Path:
    from modelscope_hub import get_default_config

    folder = get_default_config().cache_dir / "models" / name.repository.replace("/", "--")
    return folder / "snapshots" / (name.revision or _MAIN)


def _download(name: HubName, files: dict[str, RemoteFile], file: str) -> Path:
    from modelscope_hub import HubApi, HubError

    revision, size = name.revision or _MAIN, files[file].size
    try:
        return Path(HubApi().download_file(name.repository, "model", file, revision=revision, file_size=size))
    except (HubError, OSError, ValueError) as error:
        raise InputError(_refusal(name, error, file)) from error


def _refusal(name: HubName, error: Exception, file: str | None = None) -> str:
    from modelscope_hub import AuthenticationError, NotExistError, PermissionDeniedError, get_default_config

    config = get_default_config()
    if isinstance(error, AuthenticationError | NotExistError | PermissionDeniedError):
        return (
            f"{name.given}: no such repository or revision at {config.endpoint}, or a private one: check the name, or "
            "set MODELSCOPE_API_TOKEN to a token that may read it"
        )
    page = f"{config.endpoint}/models/{name.repository}/files"
    return by_other_means(name, f"cannot be fetched ({reason(error)})", config.cache_dir, page, file)
