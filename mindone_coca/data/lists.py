"""Lists of image files with captions: CSV, TSV, JSONL and COCO."""

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TextIO

from ..errors import InputError
from .samples import PackedRows, Sample, as_captions, require_key


class FileList:
    """Samples whose images are files: rows of (path relative to `root` or absolute, captions[, image id])."""

    def __init__(self, rows: Iterable[tuple], root: Path, list_file: Path):
        self._rows, self._root = PackedRows(rows), root
        if not len(self._rows):
            raise InputError(f"{list_file}: no samples in it")
        first = [root / self._rows[index][0] for index in range(min(10, len(self._rows)))]
        if not any(path.is_file() for path in first):
            raise InputError(
                f"{list_file}: {first[0]} does not exist (nor do the files after it); "
                f"relative paths start at {root}, set image_root to start elsewhere"
            )

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        path, captions, *image_id = self._rows[index]
        return Sample(str(self._root / path), captions, self._root / path, *image_id)


def read_table(
    path: Path, image_key: str, caption_key: str, separator: str | None, root: Path, setting: str
) -> FileList:
    """CSV or TSV with a header line, as open_clip reads it: each row is a sample of its own.

    `separator` None: a tab if the header line has one, else a comma. `setting` is what messages call `caption_key`.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            return FileList(_table_rows(file, path, image_key, caption_key, separator, setting), root, path)
    except (UnicodeDecodeError, csv.Error, TypeError) as error:
        raise InputError(f"{path}: cannot be read as a table ({error})") from error


def _table_rows(
    file: TextIO, path: Path, image_key: str, caption_key: str, separator: str | None, setting: str
) -> Iterator[tuple[str, list[str]]]:
    if separator is None:
        separator = "\t" if "\t" in file.readline() else ","
        file.seek(0)
    table = csv.DictReader(file, delimiter=separator)
    if not table.fieldnames:
        raise InputError(f"{path}: no header line in it, the file is empty")
    require_key(image_key, table.fieldnames, path, "image_key")
    require_key(caption_key, table.fieldnames, path, setting)
    for row in table:
        if not row[image_key]:
            raise InputError(f"{path}: line {table.line_num} has no {image_key}")
        yield row[image_key], as_captions(row[caption_key])


def read_jsonl(path: Path, image_key: str, caption_key: str, root: Path, setting: str) -> FileList:
    """One JSON object a line; the caption field holds a text or a list of texts."""
    with open(path, "rb") as file:
        return FileList(_jsonl_rows(file, path, image_key, caption_key, setting), root, path)


def _jsonl_rows(
    file: BinaryIO, path: Path, image_key: str, caption_key: str, setting: str
) -> Iterator[tuple[str, list[str]]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{where} is not JSON ({error})") from error
        if not isinstance(row, dict):
            raise InputError(f"{where} is not a JSON object")
        require_key(image_key, row, where, "image_key")
        require_key(caption_key, row, where, setting)
        yield str(row[image_key]), as_captions(row[caption_key])


def read_coco(path: Path, root: Path) -> FileList:
    """COCO captions: `images` with id and file_name, `annotations` with image_id and caption, several an image."""
    try:
        content = json.loads(path.read_bytes())
        captions: dict[object, list[str]] = {}
        for note in content["annotations"]:
            captions.setdefault(note["image_id"], []).extend(as_captions(note["caption"]))
        # An image without captions (the test lists have such) is no sample.
        images = [(image["file_name"], image["id"]) for image in content["images"]]
        rows = [(name, captions[number], number) for name, number in images if number in captions]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a COCO captions file ({type(error).__name__}: {error})") from error
    return FileList(rows, root, path)
