"""An output folder behind a URL: the run works in a folder of this machine, and what it writes goes there whole.

Object storage knows no appending, so the journal lies here and is sent now and then, and at the end. What is there
counts at the start: a run that was begun on another machine goes on, and one whose folder was removed begins anew.
"""

import hashlib
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mindone_coca import storage
from mindone_coca.account import number_of
from mindone_coca.files import user_cache
from mindone_coca.progress import say

SECONDS = 60.0  # between two sendings while the run goes on
_JOURNAL = "journal"


class Mirror:
    """The folder of this machine that stands for one behind a URL.

    Attributes:
        folder: here.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.folder = user_cache() / "outputs" / hashlib.sha256(self.url.encode()).hexdigest()[:16]
        self._sent: dict[str, tuple[int, int]] = {}  # files, as they were when they were sent
        self._last = time.monotonic()

    @contextmanager
    def open(self) -> Iterator["Mirror"]:
        """Within, a run can work in the folder; leaving sends what is new, also after a stop."""
        if not self.pull(_JOURNAL):
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.rglob("*"):  # what earlier runs left here is older than what is there, if it differs
            if path.is_file() and _JOURNAL not in path.relative_to(self.folder).parts:
                self._sent[path.relative_to(self.folder).as_posix()] = _state(path)
        try:
            yield self
        finally:
            self._last = 0.0
            if count := self.sync():
                say(f"sent {number_of(count, 'file')} to {storage.shown(self.url)}")

    def sync(self) -> int:
        """Send what is new, if the last time is long ago. Returns the number of files."""
        if self._last and time.monotonic() - self._last < SECONDS:
            return 0
        files = [path for path in self.folder.rglob("*") if path.is_file() and ".partial" not in path.name]
        # the journal last: what it says is done is there by then
        count = 0
        for path in sorted(files, key=lambda path: (_JOURNAL in path.relative_to(self.folder).parts, path)):
            name = path.relative_to(self.folder).as_posix()
            state = _state(path)
            if self._sent.get(name) != state:
                storage.upload(path, f"{self.url}/{name}")
                self._sent[name] = state
                count += 1
        self._last = time.monotonic()
        return count

    def pull(self, part: str) -> int:
        """Fetch a part of the folder. Returns the number of files that it has there."""
        here, there = self.folder / part, f"{self.url}/{part}"
        found = storage.listing(there) if storage.is_folder(there) else []
        for url in found:
            path = here / url.rpartition(f"/{part}/")[2]
            content = storage.read(url)
            # after a kill the journal here may be ahead
            if not (path.is_file() and path.read_bytes().startswith(content)):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                self._sent[path.relative_to(self.folder).as_posix()] = _state(path)
        return len(found)


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
