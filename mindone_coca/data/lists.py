"""Lists of image files with captions: CSV, TSV, JSONL and COCO."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mindone_coca.data.samples import PackedRows, Sample, as_captions, require_key
from mindone_coca.errors import InputError

ListRow = tuple[str, dict[str, Any]]  # where it stands, for messages, and its columns


class FileList:
    """Samples whose images are files: rows of (path relative to `root` or absolute, captions[, image id])."""

    def __init__(self, rows: Iterable[tuple], root: Path, list_file: Path):
        self._rows, self._root = PackedRows(rows), root
        require_files((row[0] for row in self._rows.head(10)), root, list_file)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        path, captions, *image_id = self._rows[index]
        return file_sample(self._root, path, captions, *image_id)


def file_sample(root: Path, path: str, captions: list[str], image_id: int | str | None = None) -> Sample:
    """The sample in a file, of which the path is absolute or starts at `root`."""
    return Sample(str(root / path), captions, root / path, image_id)


def require_files(first_paths: Iterable[str], root: Path, list_file: Path) -> None:
    """InputError when there are no paths, or none of them is a file."""
    paths = [root / path for path in first_paths]
    if not paths:
        raise InputError(f"{list_file}: no samples in it")
    if not any(path.is_file() for path in paths):
        raise InputError(
            f"{list_file}: {paths[0]} does not exist (nor do the files after it); "
            f"relative paths start at {root}, set image_root to start elsewhere"
        )


def read_table(
    path: Path, image_key: str, caption_key: str, separator: str | None, root: Path, setting: str
) -> FileList:
    """CSV or TSV with a header line, as open_clip reads it: each row is a sample of its own.

    `separator` None: a tab if the header line has one, else a comma. `setting` is what messages call `caption_key`.
    """
    rows = table_rows(path, {image_key: "image_key", caption_key: setting}, separator)
    return FileList(_captioned(rows, image_key, caption_key), root, path)


def read_jsonl(path: Path, image_key: str, caption_key: str, root: Path, setting: str) -> FileList:
    """One JSON object a line; the caption field holds a text or a list of texts."""
    rows = jsonl_rows(path, {image_key: "image_key", caption_key: setting})
    return FileList(_captioned(rows, image_key, caption_key), root, path)


def _captioned(rows: Iterable[ListRow], image_key: str, caption_key: str) -> Iterator[tuple[str, list[str]]]:
    for where, row in rows:
        if not row[image_key]:
            raise InputError(f"{where} has no {image_key}")
        yield str(row[image_key]), as_captions(row[caption_key])


def table_rows(path: Path, columns: Mapping[str, str], separator: str | None) -> Iterator[ListRow]:
    """The rows of a CSV or TSV file; `columns` maps each needed one to the setting that asks for it."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            if separator is None:
                separator = "\t" if "\t" in file.readline() else ","
                file.seek(0)
            table = csv.DictReader(file, delimiter=separator)
            if not table.fieldnames:
                raise InputError(f"{path}: no header line in it, the file is empty")
            for column, setting in columns.items():
                require_key(column, table.fieldnames, path, setting)
            for row in table:
                yield f"{path}: line {table.line_num}", row
    except (UnicodeDecodeError, csv.Error, TypeError) as error:
        raise InputError(f"{path}: cannot be read as a table ({error})") from error


def jsonl_rows(path: Path, fields: Mapping[str, str]) -> Iterator[ListRow]:
    """The objects of a file with one JSON object a line; `fields` as the `columns` of table_rows."""
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
            for field, setting in fields.items():
                require_key(field, row, where, setting)
            yield where, row


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
