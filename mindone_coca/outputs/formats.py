"""The files that a collection's results are written to: one table of formats."""

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mindone_coca.outputs.features import write_features
from mindone_coca.outputs.html import write_html
from mindone_coca.outputs.schema import Outcome, Provenance, Records
from mindone_coca.outputs.sidecar import write_sidecars
from mindone_coca.outputs.subtitles import write_subtitles
from mindone_coca.outputs.tables import write_csv, write_json, write_jsonl, write_txt


@dataclass(frozen=True)
class Format:
    """One kind of output.

    Attributes:
        name: as an option.
        target: its file or folder in the output folder; "" is that folder itself.
        write: (target, records, paths of all records, provenance) -> what became of it, None for one whole file.
        beside_inputs: without an output folder it goes beside the inputs. It is not part of `all`, and leaves files
            that exist alone unless its further arguments, `force` and `taken`, say otherwise.
    """

    name: str
    target: str
    write: Callable[..., Outcome | None]
    beside_inputs: bool = False


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
        Format("sidecar", "", write_sidecars, beside_inputs=True),
    )
}
ALL = "all"
FEATURES = "features"  # their folder
MANY = 100_000  # files; from here on there are no `PAGES`, which are for people
PAGES = ("html", "srt", "vtt")


def expand_formats(names: Collection[str]) -> tuple[str, ...]:
    """The formats that names stand for, in the order of the table."""
    return tuple(name for name, kind in FORMATS.items() if name in names or (ALL in names and not kind.beside_inputs))


def go_beside_inputs(names: Collection[str]) -> bool:
    """Whether these formats can do without an output folder."""
    return bool(names) and all(name in FORMATS and FORMATS[name].beside_inputs for name in names)


def present_outputs(folder: Path) -> tuple[list[str], bool]:
    """The formats of which a folder has files already, and whether it has features."""
    formats = [name for name, kind in FORMATS.items() if kind.target and (folder / kind.target).exists()]
    return formats, (folder / FEATURES / "model.json").exists()


def write_outputs(
    folder: Path,
    formats: Collection[str],
    features: bool,
    records: Records,
    paths: Sequence[str],
    provenance: Provenance,
    force: bool = False,
    taken: Collection[str | os.PathLike] = (),
) -> Outcome:
    """Write the files of these formats, and the folder `features`. What cannot be written does not keep the rest back.

    Args:
        records: gives the records, in the order they are to have in the files.
        paths: of all records.
        force: overwrite what a format would leave alone.
        taken: files of the user's that no format may overwrite, even so.
    """
    chosen = [(kind, folder / kind.target) for name, kind in FORMATS.items() if name in formats]
    own = [folder / kind.target for kind in FORMATS.values() if kind.target]
    outcome = Outcome()
    for kind, target in chosen:
        more = {"force": force, "taken": [*own, *taken]} if kind.beside_inputs else {}
        _write(outcome, target, partial(kind.write, target, records, paths, provenance, **more))
    if features:
        target = folder / FEATURES
        _write(outcome, target, partial(write_features, target, records, provenance))
    return outcome


def _write(outcome: Outcome, target: Path, write: Callable[[], Outcome | None]) -> None:
    try:
        outcome.add(write() or Outcome([target]))
    except OSError as error:
        outcome.failed(target, error)
