"""The files that a collection's results are written to: one table of formats."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mindone_coca.outputs.features import write_features
from mindone_coca.outputs.html import write_html
from mindone_coca.outputs.schema import Provenance, Records
from mindone_coca.outputs.subtitles import write_subtitles
from mindone_coca.outputs.tables import write_csv, write_json, write_jsonl, write_txt


@dataclass(frozen=True)
class Format:
    """One kind of output: its name as an option, its file or folder, and what writes it."""

    name: str
    target: str
    write: Callable[[Path, Records, Sequence[str], Provenance], None]


FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        Format("txt", "captions.txt", write_txt),
        Format("json", "captions.json", write_json),
        Format("jsonl", "captions.jsonl", write_jsonl),
        Format("csv", "captions.csv", write_csv),
        Format("srt", "srt", partial(write_subtitles, ".srt")),
        Format("vtt", "vtt", partial(write_subtitles, ".vtt")),
        Format("html", "captions.html", write_html),
    )
}


def write_outputs(
    folder: Path,
    formats: Collection[str],
    features: bool,
    records: Records,
    paths: Sequence[str],
    provenance: Provenance,
) -> list[Path]:
    """Write the files of these formats, and the folder `features`.

    Args:
        records: gives the records, in the order they are to have in the files.
        paths: of all records.
    Returns:
        what was written.
    """
    written = []
    for name, kind in FORMATS.items():
        if name in formats:
            written.append(folder / kind.target)
            kind.write(written[-1], records, paths, provenance)
    if features:
        written.append(folder / "features")
        write_features(written[-1], records, provenance)
    return written
