"""Comparing a fetched file with the sha256 that its hub names: once for each file, not at each start."""

import hashlib
import warnings
from pathlib import Path

from mindone_coca.errors import InputError
from mindone_coca.files import user_cache
from mindone_coca.progress import Progress

_CHUNK = 4 << 20


def check_sum(path: Path, expected: str, given: str) -> None:
    """Compare a file with its sha256, unless that was done since it was last written.

    What was checked is remembered in the folder `checked` of the user's cache. `given` is the repository's name for
    messages.

    Raises:
        InputError: they differ; the file is removed then, so that the next start fetches it anew.
    """
    file = path.resolve()  # in the cache a name links to the content
    state = file.stat()
    mark = f"{file}\n{state.st_size}\n{state.st_mtime_ns}\n{expected}"
    checked = user_cache() / "checked" / hashlib.sha256(mark.encode()).hexdigest()
    if checked.exists():
        return
    found = _sha256(file, path.name)
    if found != expected:
        path.unlink(missing_ok=True)
        file.unlink(missing_ok=True)
        raise InputError(
            f"{given}: {path.name} was damaged on its way: its sha256 is {found}, the hub names {expected}; it was "
            "removed, start again to fetch it anew"
        )
    try:
        checked.parent.mkdir(parents=True, exist_ok=True)
        checked.touch()
    except OSError as error:
        warnings.warn(f"{checked.parent}: {error.strerror}: {path.name} is checked at each start", stacklevel=2)


def _sha256(file: Path, name: str) -> str:
    digest = hashlib.sha256()
    with open(file, "rb") as source, Progress(file.stat().st_size, f"checking {name}", "B") as shown:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            shown.update(len(chunk))
    return digest.hexdigest()
