"""Results on disk while they come: one JSON line for each file, in `journal/I-of-N.jsonl` under the output folder.

The first line of a journal is its header: the settings that the results depend on. Lines are given to the system before
work goes on, so that a killed process loses none, and flushed to disk each second, so that a power cut loses no more
than the work of that; a line that a crash cut off is taken away when the journal is opened again. A file counts as
done if any journal of the folder has it; where several have, any of them will do, since they are equal. The final files
are written from the journals.
"""

import json
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mindone_coca.errors import InputError
from mindone_coca.files import check_output, reported_writes, try_lock
from mindone_coca.outputs.schema import Record
from mindone_coca.storage import is_url

FORMAT = 2
SYNC_SECONDS = 1.0  # from one flush to disk to the next, which may take longer than the work on a group
# settings that say what records hold beside their results, and the options for them
KEPT = {"thumbnails": "--output_format html", "features": "--save_features"}


def encode_line(record: Mapping) -> bytes:
    """One JSON line. Bytes of a file name that are no UTF-8 (lone surrogates in Python) become JSON escapes."""
    return json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def scan(path: Path) -> Iterator[tuple[int, int, Record]]:
    """The lines of a journal, header first, up to the first one that is not whole: start, end, record."""
    start = 0
    with open(path, "rb") as file:
        for line in file:
            try:
                record = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                record = None
            if not isinstance(record, dict):
                return
            yield start, start + len(line), record
            start += len(line)


class Journal:
    """One process's journal, opened for appending and locked against others on this machine.

    Raises InputError when another process has it open, OutputError when it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        check_output(path.parent, "give another --output_dir")
        with reported_writes(self.path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "ab")  # noqa: SIM115 open as long as the journal
        if not try_lock(self._file):
            self._file.close()
            raise InputError(f"{self.path}: another process is writing it; wait, or give another --shard") from None
        end = max((end for _, end, _ in scan(self.path)), default=0)
        if end < self._file.tell():
            self._file.truncate(end)
        self._is_new = end == 0
        self._flushed, self._synced = True, 0.0

    def begin(self, settings: Mapping) -> None:
        """Write the header, if there is none yet."""
        if self._is_new:
            self.append([{"journal": FORMAT, "settings": dict(settings)}], at_once=True)
            self._is_new = False

    def append(self, records: Iterable[Mapping], at_once: bool = False) -> None:
        """Add lines, and wait until they are on the disk where the last time is long ago, or `at_once`."""
        with reported_writes(self.path):
            self._file.write(b"".join(map(encode_line, records)))
            self._file.flush()
            self._flushed = False
            if at_once or time.monotonic() - self._synced >= SYNC_SECONDS:
                self.sync()

    def sync(self) -> None:
        """Wait until all lines are on the disk."""
        if not self._flushed:
            os.fsync(self._file.fileno())
            self._flushed, self._synced = True, time.monotonic()

    def close(self) -> None:
        with reported_writes(self.path):
            self.sync()
        self._file.close()


def check_settings(
    path: Path, header: Record, settings: Mapping[str, Any], given: Collection[str] = ()
) -> dict[str, Any]:
    """Compare this run's settings with those of a journal. Returns them with what that journal keeps.

    Args:
        given: settings that the user gave; others may follow from these.
    Raises:
        InputError: they differ, naming one that does.
    """
    if header.get("journal") != FORMAT:
        raise InputError(
            f"{path}: a journal of another version of this program (format {header.get('journal')}, now {FORMAT}); "
            "give another --output_dir, or finish it with that version"
        )
    found, agreed = header.get("settings", {}), dict(settings)
    names = {**agreed, **found}  # in the order of the options: what follows from one stands behind it
    for name in sorted(names, key=lambda name: name not in given):
        before, now = found.get(name), settings.get(name)
        if name in KEPT and (before or not now):
            agreed[name] = before
        elif name in KEPT:
            raise InputError(f"{path}: was begun without {KEPT[name]}; give another --output_dir, or remove this one")
        elif before != now:
            raise InputError(
                f"{path}: was begun with {name} {json.dumps(before)}, now it is {json.dumps(now)}; give another "
                "--output_dir, or remove this one"
            )
    return agreed


class Results:
    """What all journals of a folder hold; records stay on disk until they are asked for.

    Args:
        settings: this run's; they must be those of every journal, `KEPT` ones excepted: what an earlier run keeps in
            its records, later ones keep too, and cannot add.
        given: those among them that the user gave; others may follow from these.
    Raises:
        InputError: journals of other settings, naming one that differs.
    """

    def __init__(self, folder: Path, settings: Mapping, given: Collection[str] = ()) -> None:
        self.folder = folder
        self.settings, self._given = dict(settings), given
        self._places: dict[str, tuple[Path, int]] = {}
        self._sizes: dict[str, tuple[int, bool]] = {}
        self._captions: dict[str, int] = {}
        # where a file has changed and was done again, the newest record counts
        for path in sorted(folder.glob("*-of-*.jsonl"), key=lambda path: path.stat().st_mtime_ns):
            for place, _, record in scan(path):
                if place == 0:
                    self.settings = check_settings(path, record, self.settings, self._given)
                else:
                    self._places[record["path"]] = path, place
                    self._sizes[record["path"]] = record["size"], record["error"] is not None
                    self._captions[record["path"]] = len(record["segments"])

    def is_done(self, path: str, retry_failed: bool = False) -> bool:
        """Whether a file needs no work: it was captioned, or failed, and has the same size still."""
        if path not in self._sizes:
            return False
        size, failed = self._sizes[path]
        return size == file_size(path) and not (failed and retry_failed)

    def __contains__(self, path: str) -> bool:
        return path in self._places

    def failed(self, path: str) -> bool:
        return self._sizes[path][1]

    def beside(self, paths: Iterable[str]) -> list[str]:
        """Further paths that there are records of, but for these files under other names."""
        own = {os.path.abspath(path) for path in paths}
        return [path for path in self._places if os.path.abspath(path) not in own]

    def totals(self, paths: Sequence[str]) -> dict[str, int]:
        """Numbers of files, captions and failures of these paths."""
        captions = sum(self._captions[path] for path in paths)
        return {"files": len(paths), "captions": captions, "failed": sum(map(self.failed, paths))}

    def records(self, paths: Iterable[str]) -> Iterator[Record]:
        """The records of these paths, in their order."""
        files: dict[Path, Any] = {}
        try:
            for path in paths:
                journal, place = self._places[path]
                if journal not in files:
                    files[journal] = open(journal, "rb")  # noqa: SIM115 closed below
                files[journal].seek(place)
                yield json.loads(files[journal].readline())
        finally:
            for file in files.values():
                file.close()


def new_record(path: str, error: str | None = None) -> Record:
    """The record of a file of which nothing is known yet, or of one that failed."""
    return {"path": path, "size": file_size(path), "error": error, "duration": None, "segments": []}


def file_size(path: str) -> int:
    """Bytes of a file; -1 when there is none. Also of a URL, which it would cost a request to ask: what is there counts
    as unchanged."""
    if is_url(path):
        return -1
    try:
        return os.stat(path).st_size
    except OSError:
        return -1
