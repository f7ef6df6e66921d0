"""Image and text features in the folders that clip-retrieval writes and embedding-reader and autofaiss read.

    img_emb/img_emb_0.npy        (N, D) float32, unit length, a row for each caption
    text_emb/text_emb_0.npy      (N, D), of the captions
    metadata/metadata_0.parquet  image_path, caption, score, start, end, times

Numbers are padded with zeros where there are more than ten parts. `model.json`, written last, names the model, tells
where its weights are, and holds its config.
"""

import base64
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mindone_coca.files import atomic_path
from mindone_coca.outputs.schema import Provenance, Record, Records, plain

PART_ROWS = 16384
_PARTS = {"img_emb": ".npy", "text_emb": ".npy", "metadata": ".parquet"}
COLUMNS = ("image_path", "caption", "score", "start", "end", "times")


def write_features(folder: Path, records: Records, provenance: Provenance, part_rows: int = PART_ROWS) -> None:
    """Write the features of all captions, in place of those that are there; other files in the folder stay."""
    (folder / "model.json").unlink(missing_ok=True)  # first: without it the rest counts as unfinished
    for name, suffix in _PARTS.items():
        for old in (folder / name).glob(f"{name}_*{suffix}"):
            old.unlink()
    total = sum(len(record["segments"]) for record in records())
    digits = len(str(max(total - 1, 0) // part_rows))
    part, number, width = _Part(), 0, 0
    for record in records():
        for segment in record["segments"]:
            part.add(record["path"], segment)
            width = part.images[0].size
            if len(part.images) == part_rows:
                part.write(folder, f"{number:0{digits}}")
                part, number = _Part(), number + 1
    if part.images:
        part.write(folder, f"{number:0{digits}}")
    _write_note(folder, total, width, provenance)


def write_features_part(folder: Path, records: Iterable[Record], number: str) -> None:
    """Write the features of some records as the part of that number, where they have any captions."""
    part = _Part()
    for record in records:
        for segment in record["segments"]:
            part.add(record["path"], segment)
    if part.images:
        part.write(folder, number)


def write_note(folder: Path, rows: int, provenance: Provenance) -> None:
    """Write `model.json` once all parts are there."""
    first = next(iter(sorted((folder / "img_emb").glob("*.npy"))), None)
    width = 0 if first is None else np.load(first, mmap_mode="r").shape[1]
    _write_note(folder, rows, width, provenance)


def _write_note(folder: Path, rows: int, width: int, provenance: Provenance) -> None:
    about = {"rows": rows, "width": width, **provenance.as_dict(), **provenance.source}
    with atomic_path(folder / "model.json") as partial:
        partial.write_text(json.dumps(about, indent=1) + "\n")


class _Part:
    def __init__(self) -> None:
        self.images: list[np.ndarray] = []
        self.texts: list[np.ndarray] = []
        self.rows: list[dict[str, Any]] = []

    def add(self, path: str, segment: dict[str, Any]) -> None:
        self.images.append(_unpack(segment["image_feature"]))
        self.texts.append(_unpack(segment["text_feature"]))
        row = {name: segment[name] for name in COLUMNS if name in segment}
        self.rows.append({"image_path": plain(path), **row})

    def write(self, folder: Path, number: str) -> None:
        import pyarrow  # only where features are wanted: it is heavy
        from pyarrow import parquet

        for name, features in (("img_emb", self.images), ("text_emb", self.texts)):
            with atomic_path(folder / name / f"{name}_{number}.npy") as partial:
                np.save(partial, np.stack(features))
        table = pyarrow.table({name: [row[name] for row in self.rows] for name in COLUMNS})
        with atomic_path(folder / "metadata" / f"metadata_{number}.parquet") as partial:
            parquet.write_table(table, partial)


def _unpack(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4")
