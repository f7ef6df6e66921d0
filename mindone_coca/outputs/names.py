"""The names of files that are written for each input, in folders like those of the inputs."""

import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from mindone_coca.files import fitting_name, longest_name
from mindone_coca.outputs.schema import plain


@dataclass(frozen=True)
class Names:
    """Where the file for each input goes, by the input's path, and a note if names had to be shortened."""

    targets: dict[str, Path]
    notes: list[str]


def shared_folder(paths: Sequence[str]) -> Path:
    """The folder that all files lie in, at some depth."""
    return Path(os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths]) if paths else "")


def mirrored_names(paths: Sequence[str], suffix: str, folder: Path, taken: Collection[str | os.PathLike] = ()) -> Names:
    """A file with this suffix for each input, laid out in `folder` as the inputs are in the folder that they share.

    Its name is the input's without the input's own suffix, so that players and readers find it; with that where names
    would collide. Names too long for the file system are cut and get a hash.

    Args:
        taken: paths that must not be used.
    """
    full = {path: Path(os.path.abspath(path)) for path in sorted(paths)}
    root, limit = shared_folder(paths), longest_name(folder)
    stems = Counter(path.with_suffix("") for path in full.values())
    used = {os.path.abspath(path) for path in taken}
    targets: dict[str, Path] = {}
    shortened: list[str] = []
    for given, path in full.items():
        for name in _candidates(path, stems[path.with_suffix("")] == 1):
            *folders, last = name.relative_to(root).parts
            parts = [*(fitting_name(part, "", limit) for part in folders), fitting_name(last, suffix, limit)]
            target = folder.joinpath(*parts)
            if os.path.abspath(target) not in used:
                break
        used.add(os.path.abspath(target))
        targets[given] = target
        if parts != [*folders, last + suffix]:
            shortened.append(f"{plain(path.name)} became {plain(target.name)}")
    notes = []
    if shortened:
        subject = "a name is" if len(shortened) == 1 else f"{len(shortened)} names are"
        notes = [f"{folder}: {subject} too long for the file system; {shortened[0]}"]
    return Names(targets, notes)


def _candidates(path: Path, alone: bool) -> Iterator[Path]:
    """Names for the file of an input, best first; without the input's suffix if it is alone with the rest."""
    if alone:
        yield path.with_suffix("")
    yield path
    yield from (path.with_name(f"{path.name}-{number}") for number in count(2))
