"""Caption files beside the inputs, as people keep them who prepare training data: `img.txt` for `img.jpg`."""

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from mindone_coca.account import number_of
from mindone_coca.outputs.names import mirrored_names, shared_folder
from mindone_coca.outputs.schema import Outcome, Provenance, Record, Records, plain

SUFFIX = ".txt"


class Sidecars:
    """Writes the caption files of a collection, and leaves alone those that exist.

    Args:
        paths: all inputs; they settle the names.
        folder: where to lay the files out as the inputs are; None: beside the inputs.
        force: overwrite files that exist.
        taken: further files that must never be overwritten; the inputs themselves never are.
    """

    def __init__(
        self,
        paths: Sequence[str],
        folder: Path | None = None,
        force: bool = False,
        taken: Collection[str | os.PathLike] = (),
    ) -> None:
        where = shared_folder(paths) if folder is None else folder
        names = mirrored_names(paths, SUFFIX, where, [*paths, *taken])
        self._targets, self._force = names.targets, force
        self._written = self._existing = 0
        self._outcome = Outcome([], names.notes)

    def is_kept(self, path: str) -> bool:
        """Whether the caption file of an input exists and is to stay as it is."""
        return not self._force and os.path.lexists(self._targets[path])

    def without_room(self, paths: Collection[str]) -> set[str]:
        """The inputs whose caption files lie in folders that take no files, of which each is a problem."""
        folders: dict[Path, list[str]] = {}
        for path in sorted(paths):
            folders.setdefault(self._targets[path].parent, []).append(path)
        closed = {where: found for where, found in folders.items() if where.is_dir() and not os.access(where, os.W_OK)}
        self._outcome.problems += [
            f"{plain(str(where))}: no caption files can be written there; give a folder for them with --output_dir"
            for where in closed
        ]
        return {path for found in closed.values() for path in found}

    def skip(self, paths: Collection[str]) -> None:
        """Count files that exist, and whose inputs therefore were not captioned."""
        self._existing += len(paths)

    def write(self, record: Record) -> None:
        """Write the caption file of an input: a line for each caption, which a video in segments has several of."""
        if record["error"] is not None:
            return
        if self.is_kept(record["path"]):
            self._existing += 1
            return
        target = self._targets[record["path"]]
        captions = [segment["caption"] for segment in record["segments"]]
        self._written += self._outcome.write_text(target, "".join(f"{caption}\n" for caption in captions if caption))

    def outcome(self) -> Outcome:
        counts = f"{number_of(self._written, 'caption file')} written"
        if self._existing:
            counts += f", {self._existing:,} skipped because they exist (--force overwrites them)"
        return Outcome([], [*self._outcome.notes, counts], self._outcome.problems)


def write_sidecars(
    folder: Path,
    records: Records,
    paths: Sequence[str],
    provenance: Provenance,
    force: bool = False,
    taken: Collection[str | os.PathLike] = (),
) -> Outcome:
    """Write the caption files of all records into a folder."""
    sidecars = Sidecars(paths, folder, force, taken)
    for record in records():
        sidecars.write(record)
    return sidecars.outcome()
