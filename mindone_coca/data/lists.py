"""Lists of image files with captions: CSV, TSV, JSONL and COCO."""

import csv
import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from ..errors import InputError
from .samples import Sample, as_captions, require_key


class FileList:
    """Samples whose images are files: rows of (path relative to `root` or absolute, captions)."""

    def __init__(self, rows: Sequence[tuple[str, Sequence[str]]], root: Path, list_file: Path):
        if not rows:
            raise InputError(f"{list_file}: no samples in it")
        self._rows, self._root = rows, root
        first = [root / path for path, _ in islice(rows, 10)]
        if not any(path.is_file() for path in first):
            raise InputError(
                f"{list_file}: {first[0]} does not exist (nor do the files after it); "
                f"relative paths start at {root}, set image_root to start elsewhere"
            )

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        path, captions = self._rows[index]
        return Sample(str(self._root / path), captions, self._root / path)


def read_table(path: Path, image_key: str, caption_key: str, separator: str | None, root: Path, setting: str):
    """CSV or TSV with a header line, as open_clip reads it: each row is a sample of its own.

    `separator` None: a tab if the header line has one, else a comma. `setting` is what to call `caption_key`.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            if separator is None:
                separator = "\t" if "\t" in file.readline() else ","
                file.seek(0)
            table = csv.DictReader(file, delimiter=separator)
            columns = table.fieldnames or []
            if not columns:
                raise InputError(f"{path}: no header line in it, the file is empty")
            require_key(image_key, columns, path, "image_key")
            require_key(caption_key, columns, path, setting)
            rows = []
            for row in table:
                if not row[image_key]:
                    raise InputError(f"{path}: line {table.line_num} has no {image_key}")
                rows.append((row[image_key], as_captions(row[caption_key])))
    except (UnicodeDecodeError, csv.Error, TypeError) as error:
        raise InputError(f"{path}: cannot be read as a table ({error})") from error
    return FileList(rows, root, path)


def read_jsonl(path: Path, image_key: str, caption_key: str, root: Path, setting: str):
    """One JSON object a line; the caption field holds a text or a list of texts."""
    rows = []
    with open(path, "rb") as file:
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
            rows.append((str(row[image_key]), as_captions(row[caption_key])))
    return FileList(rows, root, path)


def read_coco(path: Path, root: Path):
    """COCO captions: `images` with id and file_name, `annotations` with image_id and caption, several an image."""
    try:
        content = json.loads(path.read_bytes())
        captions: dict[object, list[str]] = {}
        for note in content["annotations"]:
            captions.setdefault(note["image_id"], []).extend(as_captions(note["caption"]))
        # An image without captions (the test lists have such) is no sample.
        rows = [(image["file_name"], captions[image["id"]]) for image in content["images"] if image["id"] in captions]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a COCO captions file ({type(error).__name__}: {error})") from error
    return FileList(rows, root, path)
