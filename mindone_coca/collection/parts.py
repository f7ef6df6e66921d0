"""The results of a long list on disk, in parts of so many lines, each of which is written as soon as it is whole.

In `journal/`: `part-N.jsonl` for each part that is begun and not whole, as `journal.Journal` has them, with the number
of its line in each record; and `done-I-of-N.jsonl`, a line for each whole part. In memory is a bit for each line. The
outputs of a part are files of their own: `jsonl/captions_N.jsonl`, `csv/captions_N.csv`, `features/img_emb/...`.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mindone_coca.collection.journal import Journal, check_settings, scan
from mindone_coca.collection.long_list import PART_LINES, LineGroup, LongList
from mindone_coca.collection.plan import Shard
from mindone_coca.errors import InputError
from mindone_coca.outputs.features import write_features_part, write_note
from mindone_coca.outputs.schema import Provenance, Record
from mindone_coca.outputs.tables import write_csv, write_jsonl

WRITERS: dict[str, Callable[..., None]] = {"jsonl": write_jsonl, "csv": write_csv}
_COUNTS = ("files", "captions", "failed")


class Bits:
    """A bit for each of so many lines, all off."""

    def __init__(self, length: int) -> None:
        self._bytes = np.zeros((length + 7) // 8, np.uint8)

    def set(self, number: int) -> None:
        self._bytes[number >> 3] |= 1 << (number & 7)

    def set_range(self, numbers: range) -> None:
        """A range that starts at a whole byte."""
        whole = numbers.stop >> 3
        self._bytes[numbers.start >> 3 : whole] = 0xFF
        for number in range(max(numbers.start, whole << 3), numbers.stop):
            self.set(number)

    def count(self, numbers: range) -> int:
        """How many are on in a range that starts at a whole byte."""
        return int(np.unpackbits(self._bytes[numbers.start >> 3 : (numbers.stop + 7) >> 3]).sum())

    def __getitem__(self, number: int) -> bool:
        return bool(self._bytes[number >> 3] >> (number & 7) & 1)


class Parts:
    """What is done of a long list, and where it is written.

    Args:
        folder: for all outputs.
        settings: of the run; those of all that is there must be the same.
        given: the settings that the user gave.
        formats: some of `WRITERS`.
    Raises:
        InputError: results of other settings, or of another list.
    """

    def __init__(
        self,
        folder: Path,
        listed: LongList,
        shard: Shard,
        settings: Mapping[str, Any],
        given: Collection[str],
        formats: Sequence[str],
        provenance: Provenance,
    ) -> None:
        self._folder, self._list, self._shard, self._formats = folder, listed, shard, formats
        self.settings, self._provenance = {**settings, **listed.identity}, provenance
        self._digits = len(str(listed.parts - 1))
        self._open: dict[int, Journal] = {}
        self.done = Bits(len(listed))
        self.whole: dict[int, dict[str, int]] = {}  # parts, and what came of them
        self._files: dict[int, int] = {}  # in parts that are begun: lines with a file
        journals = folder / "journal"
        if others := sorted(journals.glob("[0-9]*-of-*.jsonl")):
            raise InputError(f"{others[0]}: the journal of a shorter list; give another --output_dir")
        for path in sorted(journals.glob("done-*.jsonl")):
            self._read(path, given)
        self._index = Journal(journals / f"done-{shard.file}")
        self._index.begin(self.settings)
        for path in sorted(journals.glob("part-*.jsonl")):
            self._resume(path, given)

    def _read(self, path: Path, given: Collection[str]) -> None:
        for place, _, record in scan(path):
            if place == 0:
                self.settings = check_settings(path, record, self.settings, given)
            else:
                self.whole[record["part"]] = {name: record[name] for name in _COUNTS}
                self.done.set_range(self._list.lines_of(record["part"]))

    def _resume(self, path: Path, given: Collection[str]) -> None:
        part = int(path.stem.removeprefix("part-"))
        if part % self._shard.count != self._shard.index:
            return
        if part in self.whole:  # its end came before its journal was taken away
            path.unlink()
            return
        for place, _, record in scan(path):
            if place == 0:
                self.settings = check_settings(path, record, self.settings, given)
            else:
                self.done.set(record["line"])
        self._finish_if_whole(part)

    def _journal(self, part: int) -> Path:
        return self._folder / "journal" / f"part-{part:0{self._digits}}.jsonl"

    def mine(self) -> list[int]:
        """The parts of this shard that are not whole."""
        return [
            part for part in range(self._shard.index, self._list.parts, self._shard.count) if part not in self.whole
        ]

    def left(self) -> int:
        """How many lines of this shard are not done."""
        return sum(len(lines) - self.done.count(lines) for lines in map(self._list.lines_of, self.mine()))

    def groups(self, size: int) -> Iterator[LineGroup]:
        """The groups of this shard that are not done, read from the list as they are asked for."""
        for part in self.mine():
            empty = True
            for group in self._list.groups(part, size):
                empty = False
                if not all(self.done[line] for lines in group.lines.values() for line in lines):
                    yield group
            if empty:  # nothing will make it whole
                self._finish_if_whole(part)

    def keep(self, group: Sequence[str], records: Iterable[Record]) -> None:
        """Keep the records of a group for good; where it makes its part whole, write the part's files."""
        assert isinstance(group, LineGroup)
        kept = [
            {**record, "line": line}
            for record in records
            for line in group.lines[record["path"]]
            if not self.done[line]
        ]
        if not kept:
            return
        part = kept[0]["line"] // PART_LINES
        if part not in self._open:
            self._open[part] = Journal(self._journal(part))
            self._open[part].begin(self.settings)
        self._open[part].append(kept)
        for record in kept:
            self.done.set(record["line"])
        self._finish_if_whole(part)

    def _finish_if_whole(self, part: int) -> None:
        if part not in self._files:
            self._files[part] = sum(map(bool, self._list.entries(part)))
        if self.done.count(self._list.lines_of(part)) < self._files[part]:
            return
        del self._files[part]
        path = self._journal(part)
        found = {record["line"]: record for place, _, record in scan(path) if place} if path.exists() else {}
        records = [found[line] for line in sorted(found)]
        name = f"captions_{part:0{self._digits}}"
        for kind in self._formats:
            WRITERS[kind](self._folder / kind / f"{name}.{kind}", lambda: records, (), self._provenance)
        if self.settings["features"]:
            write_features_part(self._folder / "features", records, f"{part:0{self._digits}}")
        counts = {
            "files": len(records),
            "captions": sum(len(record["segments"]) for record in records),
            "failed": sum(record["error"] is not None for record in records),
        }
        self._index.append([{"part": part, **counts}], at_once=True)  # before the part's journal goes
        self.whole[part] = counts
        if journal := self._open.pop(part, None):
            journal.close()
        path.unlink(missing_ok=True)

    def complete(self) -> bool:
        """Whether all parts of the list are whole, as far as is known here; then the features get their note."""
        if len(self.whole) < self._list.parts:
            return False
        if self.settings["features"]:
            write_note(self._folder / "features", self.totals()["captions"], self._provenance)
        return True

    def totals(self) -> dict[str, int]:
        """Numbers of files, captions and failures in all whole parts."""
        return {name: sum(counts[name] for counts in self.whole.values()) for name in _COUNTS}

    def close(self) -> None:
        for journal in (self._index, *self._open.values()):
            journal.close()
