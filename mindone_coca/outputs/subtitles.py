"""SubRip and WebVTT, one file for each video, in folders like those of the videos."""

import html
from collections.abc import Sequence
from pathlib import Path

from mindone_coca.outputs.names import mirrored_names
from mindone_coca.outputs.schema import Outcome, Provenance, Record, Records, clock


def write_subtitles(
    suffix: str, folder: Path, records: Records, paths: Sequence[str], provenance: Provenance
) -> Outcome:
    """Write a file for each video that lasts some time. One that cannot be written does not keep the others back.

    Args:
        suffix: `.srt` or `.vtt`.
        paths: of all records; they settle the names of the files.
    """
    write = {".srt": _srt, ".vtt": _vtt}[suffix]
    names = mirrored_names(paths, suffix, folder)
    outcome = Outcome([folder], names.notes)
    for record in records():
        if record["duration"]:
            outcome.write_text(names.targets[record["path"]], write(record))
    return outcome


def _srt(record: Record) -> str:
    cues: list[str] = []
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
