"""SubRip and WebVTT, one file for each video, in folders like those of the videos."""

import html
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mindone_coca.files import atomic_path
from mindone_coca.outputs.schema import Provenance, Record, Records, clock


def write_subtitles(suffix: str, folder: Path, records: Records, paths: Sequence[str], provenance: Provenance) -> None:
    """Write a file for each video that lasts some time.

    Args:
        suffix: `.srt` or `.vtt`.
        paths: of all records; they settle the names of the files.
    """
    write = {".srt": _srt, ".vtt": _vtt}[suffix]
    names = subtitle_names(paths)
    for record in records():
        if record["duration"]:
            target = folder / names[record["path"]]
            with atomic_path(target.with_name(target.name + suffix)) as partial:
                partial.write_text(write(record), encoding="utf-8")


def subtitle_names(paths: Sequence[str]) -> dict[str, Path]:
    """The name of each file's subtitles without suffix, relative to the folder that all files share.

    It is the file's name without its own suffix, so that players find it; with that where names would collide.
    """
    full = {path: Path(os.path.abspath(path)) for path in sorted(paths)}
    root = os.path.commonpath([path.parent for path in full.values()]) if full else ""
    stems = Counter(path.with_suffix("") for path in full.values())
    names, taken = {}, set()
    for given, path in full.items():
        target = path.with_suffix("") if stems[path.with_suffix("")] == 1 else path
        number = 1
        while target in taken:
            number += 1
            target = path.with_name(f"{path.name}-{number}")
        taken.add(target)
        names[given] = target.relative_to(root)
    return names


def _srt(record: Record) -> str:
    cues = []
    for segment in record["segments"]:
        text = segment["caption"].replace("-->", "->")
        if text:
            times = f"{clock(segment['start'], ',')} --> {clock(segment['end'], ',')}"
            cues.append(f"{len(cues) + 1}\n{times}\n{text}\n")
    return "\n".join(cues)


def _vtt(record: Record) -> str:
    cues = ["WEBVTT\n"]
    for segment in record["segments"]:
        text = html.escape(segment["caption"], quote=False)
        if text:
            cues.append(f"{clock(segment['start'])} --> {clock(segment['end'])}\n{text}\n")
    return "\n".join(cues)
