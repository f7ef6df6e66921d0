"""What a reader made of everything it saw, so that no row or file is lost without a word."""

import logging
import re
from collections import Counter
from collections.abc import Collection, Iterable
from itertools import islice
from pathlib import PurePath

from mindone_coca.errors import InputError

log = logging.getLogger(__name__)
_EXAMPLES = 3
_LONGEST_REASON = 600  # characters; names of files may have thousands
_CONTROL = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029]")


def some(items: Iterable[str], count: int, shown: int = _EXAMPLES) -> str:
    """The first few of `count` items, and how many more there are: `a, b, c and 2,997 more`."""
    first = [shorten(item) for item in islice(items, shown)]
    return ", ".join(first) + (f" and {count - len(first):,} more" if count > len(first) else "")


def some_of(items: Collection[str], shown: int = 10) -> str:
    """The first few of the items, and how many more there are."""
    return some(items, len(items), shown)


def shorten(text: str, length: int = 300) -> str:
    """The text on one line, or its beginning where it is longer. Line ends and the like are written as escapes."""
    text = _CONTROL.sub(lambda sign: repr(sign.group())[1:-1], text)
    return text if len(text) <= length else text[: length - 3] + "..."


def number_of(number: int, unit: str) -> str:
    """`1 row`, `2,997 rows`."""
    return f"{number:,} {unit}{'' if number == 1 else 's'}"


class Account:
    """Counts what came of the rows or files of one source.

    Attributes:
        place: the file or folder, for messages.
        unit: what is read, in the singular: "row", "sample", "file".
        read: how many could be used.
        refused: how many could not, of which `reasons` are the first few, each naming its place.
        without_caption: how many of those that were read have no caption.
        passed_over: files of other kinds by suffix, hidden ones and the like by what they are.
        notes: anything else that the user should know.
    """

    def __init__(self, place: object, unit: str = "row") -> None:
        self.place, self.unit = str(place), unit
        self.read = self.refused = self.without_caption = 0
        self.reasons: list[str] = []
        self.passed_over: Counter[str] = Counter()
        self.notes: list[str] = []

    def refuse(self, reason: str) -> None:
        """Count one row that cannot be used. `reason` names the file and line, and how to fix it."""
        self.refused += 1
        if len(self.reasons) < _EXAMPLES:
            self.reasons.append(shorten(reason, _LONGEST_REASON))

    def pass_over(self, what: str, count: int = 1) -> None:
        """Count files that are not meant to be read: `what` they are, as "hidden" or a suffix."""
        self.passed_over[what] += count

    def pass_over_file(self, name: str) -> None:
        """Count a file of another kind, by its suffix."""
        self.passed_over[shorten(PurePath(name).suffix.lower(), 12) or "without suffix"] += 1

    def summary(self) -> str:
        """One line: what was read, refused and passed over."""
        parts = [number_of(self.read, self.unit) + " read"]
        if self.without_caption:
            parts.append(f"{self.without_caption:,} of them without a caption")
        if self.refused:
            parts.append(f"{number_of(self.refused, self.unit)} refused ({self._reasons()})")
        if self.passed_over:
            parts.append(self.passed_over_line())
        parts += self.notes[:_EXAMPLES]
        if len(self.notes) > _EXAMPLES:
            parts.append(f"and {number_of(len(self.notes) - _EXAMPLES, 'more such note')}")
        return f"{self.place}: {'; '.join(parts)}"

    def passed_over_line(self) -> str:
        """`passed over 3 files: 2 .txt, 1 .pdf`."""
        kinds = sorted(self.passed_over.items(), key=lambda kind: (-kind[1], kind[0]))
        listed = some((f"{count:,} {what}" for what, count in kinds), len(kinds), shown=8)
        return f"passed over {number_of(self.passed_over.total(), 'file')}: {listed}"

    def report(self, max_bad_share: float) -> None:
        """Log the summary: a warning when anything was left out. Raises InputError when too many rows were refused.

        Args:
            max_bad_share: of the rows, up to which a run goes on without those that were refused.
        """
        total = self.read + self.refused
        if self.refused > max_bad_share * total or (self.refused and not self.read):
            allowed = f", more than data.max_bad_share {max_bad_share:g} allows" if max_bad_share else ""
            share = f"; {self.refused:,} of {number_of(total, self.unit)} cannot be used{allowed}" if total > 1 else ""
            raise InputError(f"{self._reasons()}{share}")
        left_out = self.refused or self.without_caption or self.notes or set(self.passed_over) - {"hidden"}
        log.log(logging.WARNING if left_out else logging.INFO, "%s", self.summary())

    def _reasons(self) -> str:
        more = self.refused - len(self.reasons)
        return "; ".join(self.reasons) + (f"; and {more:,} more" if more else "")
