"""From settings to sources: which reader takes which format."""

import dataclasses
from collections.abc import Container
from pathlib import Path
from typing import Any

from mindone_coca.data.folders import CaptionedFolder, ClassFolders
from mindone_coca.data.json_lists import first_json
from mindone_coca.data.labels import Labelled, folder_names, read_label_names
from mindone_coca.data.lists import read_coco, read_json, read_jsonl, read_table
from mindone_coca.data.mindrecord import MindRecord
from mindone_coca.data.samples import Source, existing_file, existing_folder
from mindone_coca.data.settings import DataConfig, SourceConfig
from mindone_coca.data.webdataset import TarShards, find_files
from mindone_coca.errors import InputError
from mindone_coca.places import Place, UrlPath, here, place
from mindone_coca.typed_mapping import from_dict, value_differs

_BY_SUFFIX = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".tar": "webdataset", ".tgz": "webdataset"}
# The settings of SourceConfig that a format has beside path, format, weight and those for labels.
_SETTINGS = {
    "csv": {"image_root", "image_key", "caption_key", "separator", "label_key"},
    "tsv": {"image_root", "image_key", "caption_key", "separator", "label_key"},
    "jsonl": {"image_root", "image_key", "caption_key", "label_key"},
    "json": {"image_root", "image_key", "caption_key", "label_key"},
    "coco": {"image_root"},
    "webdataset": {"caption_key", "label_key", "index_dir"},
    "mindrecord": {"image_key", "caption_key", "label_key"},
    "folder": {"caption_extension", "caption_lines"},
}
_LABEL_SETTINGS = {"label_names", "label_template", "label_prefix"}


def open_sources(value: Any, data: DataConfig, where: str) -> tuple[list[Source], list[float | None]]:
    """The sources of `data.train` or `data.val` and their weights; `where` names the setting in messages.

    Raises InputError naming the file or the setting, and the mend.
    """
    configs = source_configs(value, where)
    for setting, config in configs.items():
        _check_settings(config, setting)
    return [open_source(config, data) for config in configs.values()], [config.weight for config in configs.values()]


def source_configs(value: Any, where: str) -> dict[str, SourceConfig]:
    """The sources in the setting `where`, each under its own place in it. Raises InputError for what is no source."""
    values = value if isinstance(value, list) else [value]
    if not values:
        raise InputError(f"{where}: the list is empty; give at least one source")
    places = [f"{where}[{number}]" for number in range(len(values))] if isinstance(value, list) else [where]
    return {place: _read_settings(item, place) for place, item in zip(places, values, strict=True)}


def source_config(value: Any, where: str) -> SourceConfig:
    """One source's settings from a path or a mapping. Raises InputError naming the setting."""
    config = _read_settings(value, where)
    _check_settings(config, where)
    return config


def _read_settings(value: Any, where: str) -> SourceConfig:
    return from_dict(SourceConfig, {"path": value} if isinstance(value, str) else value, where)


def open_source(config: SourceConfig, data: DataConfig) -> Source:
    """Open one source; keys that it leaves open are those of `data` for lists, and the format's own for others."""
    source = open_unlabelled(config, data)
    if not _is_labelled(config):
        return source
    names = folder_names(source.classes) if isinstance(source, ClassFolders) else {}
    if config.label_names:
        names |= read_label_names(config.label_names)
    return Labelled(source, config.label_template, config.label_prefix, names)


def open_unlabelled(config: SourceConfig, data: DataConfig) -> Source:
    """As `open_source`, but labels stay what they are in the file, or the folders' names.

    Logs one line of what was read and left out. Raises InputError when that is more than `data.max_bad_share`.
    """
    source = _open(config, data)
    source.account.report(data.max_bad_share)
    return source


def _open(config: SourceConfig, data: DataConfig) -> Source:
    kind = source_format(config)
    setting = "label_key" if config.label_key else "caption_key"
    text_key = config.label_key or config.caption_key
    if kind == "folder":
        root = existing_folder(config.path)
        if config.caption_extension is None:
            return ClassFolders(root)
        return CaptionedFolder(root, config.caption_extension, config.caption_lines)
    if kind == "webdataset":
        return TarShards(
            find_files(config.path, "*.tar"),
            text_key or "txt",
            here(config.index_dir, "index_dir", "give a folder here") if config.index_dir else None,
        )
    if kind == "mindrecord":
        here(config.path, "a MindRecord file", "MindSpore reads it by itself: copy it and its .db file")
        files = [file for file in find_files(config.path, "*.mindrecord*") if file.suffix != ".db"]
        return MindRecord(files, config.image_key or "image", text_key or "captions")
    path = existing_file(config.path)
    root = place(config.image_root) if config.image_root else path.parent
    image_key, text_key = config.image_key or data.image_key, text_key or data.caption_key
    if kind == "coco":
        return read_coco(path, root)
    if kind == "json":
        given = config.image_key, config.label_key or config.caption_key
        return read_json(path, *given, (image_key, text_key), root, setting)
    if kind == "jsonl":
        return read_jsonl(path, image_key, text_key, root, setting)
    return read_table(path, image_key, text_key, config.separator or data.separator, root, setting)


def source_format(config: SourceConfig) -> str:
    """The format that a source's settings name, or else its path. Raises InputError."""
    path = place(config.path)
    if config.format:
        return config.format
    named = _format_of_name(path)
    # a folder may have any name; behind a URL, where asking costs a request, a name that tells a format is believed
    if (named is None or isinstance(path, Path)) and path.is_dir():
        shards = path.files("*.tar") if isinstance(path, UrlPath) else path.glob("*.tar")
        return "webdataset" if config.caption_extension is None and any(shards) else "folder"
    if named is None:
        mend = f"set format to one of {', '.join(_SETTINGS)}" if path.exists() else "there is no such file or folder"
        raise InputError(f"{path}: the name tells no format; {mend}")
    return named


def _format_of_name(path: Place) -> str | None:
    if ".mindrecord" in path.name:  # shards are named x.mindrecord0, x.mindrecord1
        return "mindrecord"
    if ".tar." in path.name:  # a compressed one, of which the reader says how to unpack it
        return "webdataset"
    if path.suffix.lower() == ".json":
        return _json_format(path)
    return _BY_SUFFIX.get(path.suffix.lower())


def _json_format(path: Place) -> str:
    if not path.is_file():
        return "coco"
    first, line_by_line = first_json(path)
    return "json" if first == "[" else "jsonl" if line_by_line else "coco"


def _is_labelled(config: SourceConfig) -> bool:
    return config.label_key is not None or (source_format(config) == "folder" and config.caption_extension is None)


def _check_settings(config: SourceConfig, where: str) -> None:
    kind, labelled = source_format(config), _is_labelled(config)
    known = _SETTINGS[kind] | (_LABEL_SETTINGS if labelled else set())
    refuse_settings(config, known, where, f"this {kind} source", {} if labelled else _LABEL_SETTINGS)
    if config.caption_lines and config.caption_extension is None:
        raise InputError(f"{where}: caption_lines says how caption files are read; set caption_extension too")
    if config.label_key and config.caption_key:
        raise InputError(f"{where}: a source has a caption_key or a label_key, not both")


def refuse_settings(
    config: SourceConfig, known: Container[str], where: str, what: str, need_label: Container[str] = ()
) -> None:
    """Refuse settings beside `known` that the reader of `what` passes over, for `need_label` with another mend."""
    for field in dataclasses.fields(SourceConfig):
        if field.name not in known and field.name not in ("path", "format", "weight") and value_differs(config, field):
            mend = "set label_key too" if field.name in need_label else "remove it"
            raise InputError(f"{where}: {field.name} says nothing about {what}; {mend}")
