"""Find moments by text in the features of a finished collection."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mindone_coca.errors import InputError
from mindone_coca.model.families import load_model_config
from mindone_coca.model.family import FamilyConfig
from mindone_coca.outputs.schema import stretch

NOTE = "model.json"
_COLUMNS = ["image_path", "start", "end", "caption"]


@dataclass(frozen=True)
class Moment:
    """A found passage: cosine similarity of its image with the query, file, times in seconds, caption.

    The higher the similarity, up to 1, the better it fits.
    """

    similarity: float
    path: str
    start: float
    end: float
    caption: str

    def line(self) -> str:
        """Tab-separated: similarity, path, times (nothing for a still image), caption."""
        return f"{self.similarity:.4f}\t{self.path}\t{stretch(self.start, self.end)}\t{self.caption}"


def features_folder(folder: Path, model: str) -> Path:
    """The features of an output folder, or that folder itself. Raises InputError if they are not there, not finished,
    another model's, or of no caption at all."""
    candidate, about = _read_note(folder)
    if about["model"] != model:
        raise InputError(f"{candidate}: features of {about['model']}, not of {model}; give that model")
    if not any(len(features) for _, features in _parts(candidate)):
        raise InputError(
            f"{candidate}: no rows there to search: none of the files was captioned; run the captioning again, "
            "with --retry_failed once the files can be read"
        )
    return candidate


def model_of_features(folder: Path) -> tuple[FamilyConfig, Path]:
    """Config and weights of the model that made the features of an output folder. Raises InputError where its weights
    are no more, or no features are there."""
    candidate, about = _read_note(folder)
    weights = about.get("weights")
    if weights is None or not Path(weights).is_file():
        gone = f"which are not at {weights} any more" if weights else "and it does not say where these are"
        raise InputError(f"{candidate / NOTE}: needs the weights {about['model']}, {gone}; give --model_path")
    return load_model_config(about["config"]), Path(weights)


def _read_note(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The folder with the features, and what is told of them there."""
    for candidate in (folder / "features", folder):
        if (candidate / NOTE).is_file():
            return candidate, json.loads((candidate / NOTE).read_text())
    raise InputError(f"{folder}: no features there; caption with --save_features first")


def best_moments(folder: Path, query: np.ndarray, count: int) -> list[Moment]:
    """The passages whose image features are most similar to a text feature (D,), best first."""
    best: list[tuple[float, str, int]] = []
    for number, features in _parts(folder):
        # not `@`, whose last digits depend on the number of rows, so on how they are divided into parts
        similarity = np.einsum("nd,d->n", features, query)
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
