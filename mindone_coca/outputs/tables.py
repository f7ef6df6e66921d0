"""Text, JSON, JSON Lines and CSV."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypedDict

from mindone_coca.files import atomic_path
from mindone_coca.outputs.schema import COLUMNS, Provenance, Record, Records, plain, rows, stretch


class _TextOptions(TypedDict, total=False):
    """Arguments of `open`."""

    encoding: str
    errors: str
    newline: str


_UTF8: _TextOptions = {"encoding": "utf-8", "errors": "backslashreplace"}  # the latter for paths that are no UTF-8
# of CSV files: without the mark at their start Excel takes them for another encoding
CSV_TEXT: _TextOptions = {"encoding": "utf-8-sig", "errors": "backslashreplace", "newline": ""}


def lines(
    record: Record, with_path: bool = True, with_times: bool = False, with_alternatives: bool = False
) -> Iterator[str]:
    """The captions of a file as lines, tab-separated: path, start and end, caption; then its alternatives alike.

    Where a still image would have times it has nothing, and without a path no such column either.
    """
    for segment in record["segments"]:
        parts = [plain(record["path"])] if with_path else []
        times = stretch(segment["start"], segment["end"])
        if with_times and (times or with_path):
            parts.append(times)
        captions = [segment, *(segment.get("alternatives", ()) if with_alternatives else ())]
        yield from ("\t".join([*parts, caption["caption"]]) for caption in captions)


def write_txt(path: Path, records: Records, paths: Sequence[str], provenance: Provenance) -> None:
    """A line for each caption, with times where videos are divided into segments; failures are left out."""
    with_times = provenance.options["frame_type"] == "segments"
    with atomic_path(path) as partial, open(partial, "w", **_UTF8) as file:
        for record in records():
            file.writelines(line + "\n" for line in lines(record, with_times=with_times))


def write_jsonl(path: Path, records: Records, paths: Sequence[str], provenance: Provenance) -> None:
    """A row for each line, with its provenance."""
    with atomic_path(path) as partial, open(partial, "w", **_UTF8) as file:
        for record in records():
            for row in rows(record):
                file.write(json.dumps(row | provenance.as_dict(), ensure_ascii=False) + "\n")


def write_json(path: Path, records: Records, paths: Sequence[str], provenance: Provenance) -> None:
    """One object: the provenance, and all rows under `results`."""
    head = json.dumps(provenance.as_dict(), ensure_ascii=False, indent=1)
    with atomic_path(path) as partial, open(partial, "w", **_UTF8) as file:
        file.write(head.removesuffix("\n}") + ',\n "results": [')
        separator = "\n"
        for record in records():
            for row in rows(record):
                file.write(f"{separator}  {json.dumps(row, ensure_ascii=False)}")
                separator = ",\n"
        file.write("\n ]\n}\n")


def write_csv(path: Path, records: Records, paths: Sequence[str], provenance: Provenance) -> None:
    """A row for each line, with its provenance; lists and options are JSON within their cell."""
    common = {key: _cell(value) for key, value in provenance.as_dict().items()}
    with atomic_path(path) as partial, open(partial, "w", **CSV_TEXT) as file:
        table = csv.DictWriter(file, [*COLUMNS, *common])
        table.writeheader()
        for record in records():
            table.writerows({key: _cell(value) for key, value in row.items()} | common for row in rows(record))


def _cell(value: object) -> object:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value
