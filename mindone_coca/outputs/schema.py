"""The one schema behind all output files.

A record is what is known of one input file: `path`, `size` (bytes), `error` (None, or why it could not be read),
`duration` (seconds; 0 for a still image, None with an error) and `segments`. A segment is one caption: `start` and
`end` (seconds), `times` (of the frames used), `caption`, `score` (mean log-probability of its tokens), `rank_score`
(what beam search prefers captions by; a sampled one has none), `alternatives` if asked for (captions with both scores,
best first by `rank_score`), and what was kept for other files: `thumbnails` (a JPEG in base64 of each frame),
`image_feature` and `text_feature` (float32 in base64).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mindone_coca.files import atomic_path

Record = dict[str, Any]
Records = Callable[[], Iterable[Record]]  # each call reads them again, so that they need not fit into memory
COLUMNS = ("path", "duration", "start", "end", "times", "caption", "score", "rank_score", "alternatives", "error")


@dataclass(frozen=True)
class Provenance:
    """What made the captions: the weights, the options and the version of this package.

    Attributes:
        source: where the model lies, for what is to find it again: `weights`, a path, and `config`, plain data.
    """

    model: str
    options: dict[str, Any]
    version: str
    source: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {"model": self.model, "options": self.options, "version": self.version}


@dataclass
class Outcome:
    """What became of output files.

    Attributes:
        written: files or folders.
        notes: lines about what the user should know.
        problems: a line for each file that could not be written; the others were.
    """

    written: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, other: "Outcome") -> None:
        self.written += other.written
        self.notes += other.notes
        self.problems += other.problems

    def write_text(self, path: Path, text: str) -> bool:
        """Write a file of its own, and tell whether that went well; if not, it is a problem."""
        try:
            with atomic_path(path) as partial:
                partial.write_text(text, encoding="utf-8")
        except OSError as error:
            self.failed(path, error)
            return False
        return True

    def failed(self, path: Path, error: OSError) -> None:
        self.problems.append(f"{plain(str(path))}: cannot be written ({error.strerror or error})")


def rows(record: Record) -> Iterator[dict[str, Any]]:
    """The rows of one file: one for each caption, or one that tells the error. All have all `COLUMNS`."""
    common = dict.fromkeys(COLUMNS) | {name: record[name] for name in ("path", "duration", "error")}
    if record["error"] is not None:
        yield common
    for segment in record["segments"]:
        yield common | {"alternatives": []} | {name: segment[name] for name in COLUMNS if name in segment}


def plain(path: str) -> str:
    """A path as valid text: bytes that are no UTF-8 (surrogates in Python) and control characters become escapes."""
    text = path.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def stretch(start: float, end: float) -> str:
    """The times of a stretch of video; nothing for a still image, which has none."""
    return f"{clock(start)} --> {clock(end)}" if end else ""


def clock(seconds: float, point: str = ".") -> str:
    """HH:MM:SS.mmm"""
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"
