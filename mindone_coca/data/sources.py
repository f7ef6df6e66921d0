"""From settings to sources: which reader takes which format."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import from_dict, nearest
from ..errors import InputError
from .labels import ClassFolders, Labelled, read_label_names
from .lists import read_coco, read_jsonl, read_table
from .mindrecord import MindRecord
from .samples import Source, existing_file
from .settings import DataConfig, SourceConfig
from .webdataset import TarShards, find_files

FORMATS = ("csv", "tsv", "jsonl", "coco", "webdataset", "mindrecord", "folder")
_BY_SUFFIX = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".json": "coco",
    ".tar": "webdataset",
    ".mindrecord": "mindrecord",
}


def source_configs(value: Any, where: str) -> list[SourceConfig]:
    """`data.train` or `data.val` as a list: it may be a path, a mapping, or a list of these."""
    values = value if isinstance(value, list) else [value]
    if not values:
        raise InputError(f"{where}: the list is empty; give at least one source")
    return [
        from_dict(SourceConfig, {"path": item} if isinstance(item, str) else item, f"{where}[{number}]" if len(values) > 1 else where)
        for number, item in enumerate(values)
    ]


def open_source(config: SourceConfig, data: DataConfig) -> Source:
    """Open one source, with what it leaves open from `data`. Raises InputError naming the file and the mend."""
