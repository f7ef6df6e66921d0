"""Find moments by text in the features of a finished collection."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mindone_coca.errors import InputError
from mindone_coca.outputs.schema import clock

_COLUMNS = ["image_path", "start", "end", "caption"]


@dataclass(frozen=True)
class Moment:
    """A found passage: cosine similarity of its image with the query, file, times in seconds, caption."""

    similarity: float
    path: str
    start: float
    end: float
    caption: str

    def line(self) -> str:
        """Tab-separated: similarity, path, times, caption."""
        return f"{self.similarity:.4f}\t{self.path}\t{clock(self.start)} --> {clock(self.end)}\t{self.caption}"


def features_folder(folder: Path, model: str) -> Path:
    """The features of an output folder, or that folder itself. Raises InputError if they are not there, not finished,
    another model's, or of no caption at all."""
    for candidate in (folder / "features", folder):
        note = candidate / "model.json"
        if note.is_file():
            found = json.loads(note.read_text())["model"]
            if found != model:
                raise InputError(f"{candidate}: features of {found}, not of {model}; give that model")
            if not any(len(features) for _, features in _parts(candidate)):
                raise InputError(
                    f"{candidate}: no rows there to search: none of the files was captioned; run the captioning again, "
                    "with --retry_failed once the files can be read"
                )
            return candidate
    raise InputError(f"{folder}: no features there; caption with --save_features first")


def best_moments(folder: Path, query: np.ndarray, count: int) -> list[Moment]:
    """The passages whose image features are most similar to a text feature (D,), best first."""
    best: list[tuple[float, str, int]] = []
    for number, features in _parts(folder):
        similarity = features @ query
        top = np.argsort(-similarity, kind="stable")[:count]
        best += [(float(similarity[row]), number, int(row)) for row in top]
        best = sorted(best, key=lambda found: -found[0])[:count]
    tables = {number: _metadata(folder, number) for number in {number for _, number, _ in best}}
    moments = []
    for similarity, number, row in best:
        path, *rest = (tables[number][name][row].as_py() for name in _COLUMNS)
        moments.append(Moment(similarity, path, *rest))
    return moments


def _parts(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    for path in sorted((folder / "img_emb").glob("img_emb_*.npy")):
        yield path.stem.removeprefix("img_emb_"), np.load(path, mmap_mode="r")


def _metadata(folder: Path, number: str) -> Any:
    from pyarrow import parquet  # heavy

    return parquet.read_table(folder / "metadata" / f"metadata_{number}.parquet", columns=_COLUMNS)
