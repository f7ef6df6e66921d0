"""How far long work is: a bar on a terminal, a plain line now and then elsewhere, both on standard error."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
SECONDS = 30  # between plain lines
_DELAY = 0.5  # seconds before a bar appears: what is done by then needs none
# of a fixed width: tqdm's own shrinks to nothing where much stands behind it
_BAR = "{n_fmt}/{total_fmt}{unit}  {percentage:.0f}%|{bar:12}| left {remaining}{postfix}"


def say(line: str) -> None:
    """Print a line where messages go, above a bar if there is one."""
    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()


class Progress:
    """Counts what is done of `total`. A context manager: leaving it takes the bar away.

    Args:
        description: what is done.
        unit: what is counted, in the plural, such as `files`; "B" is written as kB, MB and so on.
        done: where it starts.
    """

    def __init__(self, total: int, description: str, unit: str = "", done: int = 0) -> None:
        self._total, self._description, self._unit = total, description, unit
        self._first = self._done = done
        self._begun = self._said = time.monotonic()
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=total,
                initial=done,
                unit="B" if unit == "B" else f" {unit}".rstrip(),
                unit_scale=unit == "B",
                dynamic_ncols=True,
                bar_format=f"{description} {_BAR}",
                delay=_DELAY,
                leave=False,
            )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, count: int = 1, values: str = "", brief: str | None = None) -> None:
        """Count further ones; where there is no bar, a line says so now and then.

        Args:
            values, brief: beside the count, as `show` has them.
        """
        self._done += count
        if self._bar is not None:
            if values:
                self._bar.set_postfix_str(values if brief is None else brief, refresh=False)
            self._bar.update(count)
        elif time.monotonic() - self._said >= SECONDS and self._done < self._total:
            self.show(values)

    def show(self, values: str = "", brief: str | None = None) -> None:
        """Show values beside the count: in a line at once, or behind the bar, where `brief` ones have room."""
        if self._bar is not None:
            self._bar.set_postfix_str(values if brief is None else brief)
            return
        self._said = time.monotonic()
        parts = [f"{self._description} {self._count()}", *([values] if values else []), f"left {self._left()}"]
        say("  ".join(parts))

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _count(self) -> str:
        if self._unit == "B":
            return "/".join(tqdm.format_sizeof(count, "B") for count in (self._done, self._total))
        return f"{self._done}/{self._total} {self._unit}".rstrip()

    def _left(self) -> str:
        seconds = (time.monotonic() - self._begun) / max(1, self._done - self._first) * (self._total - self._done)
        return tqdm.format_interval(seconds)


def progress(items: Iterable[Item], total: int, description: str, unit: str) -> Iterator[Item]:
    """The items, counted as they are taken."""
    with Progress(total, description, unit) as shown:
        for item in items:
            yield item
            shown.update()
