"""Repositories at huggingface.co or a mirror, and in the cache.

All goes through huggingface_hub, which keeps its cache, shows progress on a terminal and heeds HF_ENDPOINT, HF_TOKEN,
HF_HOME and HF_HUB_OFFLINE. Only what its versions from 0.30 to 2 have in common is used.
"""

import re
import sys
import warnings
from functools import partial
from pathlib import Path, PurePosixPath

from mindone_coca.errors import InputError
from mindone_coca.hub.names import HubName
from mindone_coca.hub.repository import RemoteFile, Repository, by_other_means, reason

_ATTEMPTS = 3  # each goes on where the one before broke off, as far as huggingface_hub can
_SHA256 = re.compile("[0-9a-f]{64}")


def open_repository(name: HubName) -> Repository:
    """Ask the hub what is in a repository; where it cannot be asked, the cache.

    Raises:
        InputError: one line that says why not, and what to do.
    """
    from huggingface_hub import HfApi, constants

    try:
        info = HfApi().model_info(
            name.repository, revision=name.revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
        )
    except _errors() as error:
        cached = _cached(name)
        if cached is None:
            raise InputError(_refusal(name, error)) from error
        if not constants.HF_HUB_OFFLINE:
            warnings.warn(
                f"{name.given}: {constants.ENDPOINT} cannot be asked ({reason(error)}); taking what the cache has",
                stacklevel=2,
            )
        return cached
    files = {s.rfilename: RemoteFile(s.size, s.lfs.sha256 if s.lfs else None) for s in info.siblings or ()}
    return Repository(name, files, partial(_download, name, str(info.sha), files))


def _cached(name: HubName) -> Repository | None:
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return None
    wanted = name.revision or "main"
    found = (own for own in repositories if (own.repo_type, own.repo_id) == ("model", name.repository))
    for revision in (revision for own in found for revision in own.revisions):
        if wanted == revision.commit_hash or wanted in revision.refs:
            snapshot = revision.snapshot_path
            files = {
                file.file_path.relative_to(snapshot).as_posix(): RemoteFile(sha256=_sum_of(file.blob_path))
                for file in revision.files
            }
            return Repository(name, files, snapshot.joinpath, asked=False)
    return None


def _sum_of(content: Path) -> str | None:
    """The sha256 that the hub named, by which the cache calls the contents of large files."""
    return content.name if _SHA256.fullmatch(content.name) else None


def _download(name: HubName, commit: str, files: dict[str, RemoteFile], file: str) -> Path:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    remote = files[file]
    here = try_to_load_from_cache(name.repository, file, revision=commit)
    if remote.sha256 and not isinstance(here, str):  # small files take no time
        size = "" if remote.size is None else f" ({remote.size / 1e6:,.1f} MB)"
        print(f"fetching {file}{size} of {name.given}", file=sys.stderr)
    for attempt in range(_ATTEMPTS):
        try:
            path = Path(hf_hub_download(name.repository, file, revision=name.revision))
        except _errors() as error:
            if attempt + 1 == _ATTEMPTS or _is_answer(error):
                raise InputError(_refusal(name, error, file)) from error
            print(f"{file}: broke off ({reason(error)}); going on", file=sys.stderr)
        else:
            if path.parents[len(PurePosixPath(file).parts) - 1].name != commit:
                raise InputError(f"{name.given}: the repository changed while it was fetched; start again")
            return path
    raise AssertionError("the last attempt returns or raises")


def _errors() -> tuple[type[Exception], ...]:
    """What huggingface_hub raises when something cannot be had.

    From 1.0 on its transport is httpx, whose errors are no OSErrors; the base of its own errors is theirs too. Its
    Rust parts raise RuntimeError, a name that no repository can have a ValueError.
    """
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    return (OSError, RuntimeError, ValueError, EntryNotFoundError, *HfHubHTTPError.__bases__)


def _is_answer(error: Exception) -> bool:
    """Whether the hub said no, so that asking again is no use."""
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    if isinstance(error, LocalEntryNotFoundError):  # the hub could not be asked
        return False
    if isinstance(error, EntryNotFoundError):
        return True
    response = getattr(error, "response", None) if isinstance(error, HfHubHTTPError) else None
    return response is not None and 400 <= response.status_code < 500


def _refusal(name: HubName, error: Exception, file: str | None = None) -> str:
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{name.repository}"
    if isinstance(error, errors.GatedRepoError):
        return f"{name.given}: accept the terms on {page}, and set HF_TOKEN to a token of the account that did"
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"{name.given}: no such repository at {constants.ENDPOINT}, or a private one: check the name, or set "
            "HF_TOKEN to a token that may read it"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{name.given}: the repository has no revision {name.revision!r}; see {page}"
    if _is_answer(error):
        return f"{name.given}: {constants.ENDPOINT} refused it: {str(error).strip().splitlines()[0]}"
    why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"cannot be fetched ({reason(error)})"
    page = f"{page}/tree/{name.revision or 'main'}"
    return by_other_means(name, why, constants.HF_HUB_CACHE, page, file) + ", or set HF_ENDPOINT to a mirror"
