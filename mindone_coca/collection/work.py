"""The work on groups of files: what is to be done to each, and the process that does it."""

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import tee
from pathlib import Path
from typing import Any, Protocol

from mindone_coca import __version__
from mindone_coca.captioning.batches import BatchCaptioner
from mindone_coca.captioning.captioner import VideoCaptioner
from mindone_coca.captioning.options import CaptionOptions
from mindone_coca.captioning.reading import Passage, PassageReader, ReadAhead, ReadingFailed
from mindone_coca.collection.journal import new_record
from mindone_coca.collection.records import segment
from mindone_coca.config import Dtype
from mindone_coca.model.family import FamilyConfig
from mindone_coca.outputs.schema import Provenance, Record
from mindone_coca.preprocess.transforms import make_transform

_NO_OPTIONS = ("model", "version", "thumbnails", "features")  # among a journal's settings
Files = Iterator[tuple[str, Iterator[Passage]]]


@dataclass(frozen=True)
class Work:
    """All that the records of a file depend on.

    Attributes:
        model: the name of config and weights, with their fingerprint.
        features, thumbnails: whether records keep them.
    """

    config: FamilyConfig
    weights: Path
    model: str
    dtype: Dtype | None
    options: CaptionOptions
    features: bool
    thumbnails: bool

    def settings(self) -> dict[str, Any]:
        """All of it that a journal's header has, to compare."""
        return {
            "model": self.model,
            "dtype": self.dtype or self.config.cast_dtype or "float32",
            "version": __version__,
            **self.options.as_dict(),
            "thumbnails": self.thumbnails,
            "features": self.features,
        }

    def source(self) -> dict[str, Any]:
        """Where the model lies, for `Provenance`."""
        return {"weights": os.path.abspath(self.weights), "config": self.config.to_dict()}


def provenance_of(settings: Mapping[str, Any], source: dict[str, Any]) -> Provenance:
    """What output files say of a run with these settings of a journal."""
    options = {name: value for name, value in settings.items() if name not in _NO_OPTIONS}
    return Provenance(settings["model"], options, __version__, source)


@dataclass(frozen=True)
class Done:
    """What came of a group of files.

    Attributes:
        records: one for each file, in the order of the group.
        group: as it was handed in.
        node: the machine that did it; "" is this one.
        busy: seconds that the device worked. waited: seconds that it had to wait for frames.
    """

    records: list[Record]
    group: Sequence[str] = ()
    node: str = ""
    busy: float = 0.0
    waited: float = 0.0


class Session(Protocol):
    """Workers that are ready, or about to be."""

    def run(self, groups: Iterable[Sequence[str]]) -> Generator[Done, None, None]:
        """Each group's records, as they come; also `Done`s without any, where it takes long."""

    def worker_seconds(self) -> float:
        """How long devices have been there for work, added up."""


class Engine(Protocol):
    """Where the work is done."""

    def open(self, work: Work) -> AbstractContextManager[Session]:
        """Start workers; leaving the context ends them."""

    def workers(self) -> int:
        """How many there would be."""


class GroupCaptioner:
    """Captions groups of files in this process. A context manager: leaving it ends the threads that read.

    Args:
        threads: that read.
    """

    def __init__(self, captioner: VideoCaptioner, work: Work, threads: int) -> None:
        options = work.options
        self._captioner: BatchCaptioner = captioner.batches(options, work.features)
        read = PassageReader(options, make_transform(work.config.image_hw, work.config.preprocess), work.thumbnails)
        self._reader = ReadAhead[str, Passage](read, threads, options.frames_each)

    def __enter__(self) -> "GroupCaptioner":
        self._reader.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._reader.__exit__(*error)

    def read(self, paths: Iterable[str]) -> Files:
        """Start to read files."""
        return self._reader.files(paths)

    def caption(self, group: Sequence[str], files: Files, without: Mapping[str, str] | None = None) -> Done:
        """Caption a group of files. Its batches depend on the group alone.

        Args:
            files: that are being read, of which the group's come next.
            without: files of the group that are not to be read, and the error that is recorded of each.
        """
        without = without or {}
        busy, waited = self._captioner.seconds_busy, self._reader.seconds_waited
        records = {path: new_record(path, without.get(path)) for path in group}

        def passages() -> Iterator[Passage]:
            for _ in range(len(group) - len(without)):
                path, items = next(files)
                try:
                    yield from items
                except ReadingFailed as error:
                    records[path]["error"] = str(error)

        for passage, caption in self._captioner(passages()):
            records[passage.path]["segments"].append(segment(passage, caption))
        for record in records.values():
            if record["error"] is not None:
                record["segments"] = []  # of what came before the damage
            else:
                record["duration"] = round(record["segments"][-1]["end"] - record["segments"][0]["start"], 6)
        return Done(
            list(records.values()),
            group,
            busy=self._captioner.seconds_busy - busy,
            waited=self._reader.seconds_waited - waited,
        )


class LocalEngine:
    """Does the work in this process.

    Args:
        make_captioner: builds the model, once there is work to do.
        threads: that read.
    """

    def __init__(self, make_captioner: Callable[[], VideoCaptioner], threads: int) -> None:
        self._make_captioner, self._threads = make_captioner, threads

    @contextmanager
    def open(self, work: Work) -> Iterator["_Local"]:
        with GroupCaptioner(self._make_captioner(), work, self._threads) as captioner:
            yield _Local(captioner)

    def workers(self) -> int:
        return 1


class _Local:
    def __init__(self, captioner: GroupCaptioner) -> None:
        self._captioner, self._begun = captioner, time.perf_counter()

    def run(self, groups: Iterable[Sequence[str]]) -> Generator[Done, None, None]:
        # all groups are one stream, so that reading goes on while the last of a group are captioned
        ahead, groups = tee(groups)
        files = self._captioner.read(path for group in ahead for path in group)
        for group in groups:
            yield self._captioner.caption(group, files)

    def worker_seconds(self) -> float:
        return time.perf_counter() - self._begun
