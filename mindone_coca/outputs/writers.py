"""All output files of a finished collection."""

from collections.abc import Collection, Sequence
from pathlib import Path

from mindone_coca.outputs.features import write_features
from mindone_coca.outputs.html import write_html
from mindone_coca.outputs.schema import FORMATS, Provenance, Records
from mindone_coca.outputs.subtitles import write_subtitles
from mindone_coca.outputs.tables import write_csv, write_json, write_jsonl, write_txt

_FILES = {"txt": write_txt, "json": write_json, "jsonl": write_jsonl, "csv": write_csv, "html": write_html}


def write_outputs(
    folder: Path, formats: Collection[str], features: bool, records: Records, paths: Sequence[str],
    provenance: Provenance,
) -> list[Path]:  # fmt: skip
    """Write `captions.FORMAT`, the folders `srt` and `vtt` of subtitles, and the folder `features`.

    Args:
        records: gives the records, in the order they are to have in the files.
        paths: of all records.
    Returns:
        what was written.
    """
    written = []
    for name in FORMATS:
        if name not in formats:
            continue
        if name in _FILES:
            written.append(folder / f"captions.{name}")
            _FILES[name](written[-1], records, provenance)
        else:
            written.append(folder / name)
            write_subtitles(written[-1], f".{name}", records, paths)
    if features:
        written.append(folder / "features")
        write_features(written[-1], records, provenance)
    return written
