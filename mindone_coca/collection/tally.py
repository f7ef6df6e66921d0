"""What a run has done so far: files, captions, failures, by machine, and how busy the devices are."""

from collections.abc import Collection

from mindone_coca.account import number_of
from mindone_coca.collection.work import Done
from mindone_coca.outputs.schema import Record


class Tally:
    """Counts the files that were to be done.

    Args:
        todo: these; None: all.
    """

    def __init__(self, todo: Collection[str] | None = None) -> None:
        self._todo = todo
        self.files = self.captions = self.failed = 0
        self._busy = self._waited = 0.0
        self._nodes: dict[str, list[int]] = {}  # files, captions

    def add(self, done: Done) -> list[Record]:
        """Count a group's results. Returns the records that were to be done."""
        records = [record for record in done.records if self._todo is None or record["path"] in self._todo]
        captions = sum(len(record["segments"]) for record in records)
        self.files += len(records)
        self.captions += captions
        self.failed += sum(record["error"] is not None for record in records)
        self._busy += done.busy
        self._waited += done.waited
        if done.records:
            node = self._nodes.setdefault(done.node, [0, 0])
            node[0] += len(records)
            node[1] += captions
        return records

    def brief(self, seconds: float, worker_seconds: float) -> str:
        """For a bar: `3.1 files/s, idle 12 %, 2 failed`."""
        parts = [f"{self.files / seconds:.1f} files/s", f"idle {_share(self._busy, worker_seconds)} %"]
        return ", ".join([*parts, *([f"{self.failed:,} failed"] if self.failed else [])])

    def line(self, seconds: float, worker_seconds: float) -> str:
        """For a line of its own: the same, with each machine's part."""
        return "; ".join([self.brief(seconds, worker_seconds), *self._by_node(seconds)])

    def summary(self, seconds: float, worker_seconds: float) -> str:
        """What came of the run."""
        return "; ".join(
            [
                counted(self.files, self.captions, self.failed),
                f"{seconds:.1f} s, {self.files / seconds:.2f} files/s",
                f"device idle {_share(self._busy, worker_seconds)} %, "
                f"waiting for frames {100 * self._waited / max(worker_seconds, 1e-9):.0f} %",
                *self._by_node(seconds),
            ]
        )

    def _by_node(self, seconds: float) -> list[str]:
        return [
            f"{name}: {files / seconds:.2f} files/s, {captions / seconds:.2f} captions/s"
            for name, (files, captions) in sorted(self._nodes.items())
            if name
        ]


def _share(busy: float, whole: float) -> int:
    """The idle share, in percent."""
    return round(100 * max(0.0, 1 - busy / max(whole, 1e-9)))


def print_plan(files: int, before: int, groups: int, workers: int) -> None:
    """Print what a run would do, on standard output."""
    print(f"files\t{files}\ndone before\t{before}\ngroups\t{groups}\nworkers\t{workers}")


def counted(files: int, captions: int, failed: int) -> str:
    return f"{number_of(files, 'file')}, {number_of(captions, 'caption')}, {failed:,} failed"
