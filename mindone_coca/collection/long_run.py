"""A run over a long list: the groups in the order of its lines, the outputs in parts while it goes on."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from mindone_coca.account import number_of
from mindone_coca.collection.long_list import LongList
from mindone_coca.collection.loop import work_off
from mindone_coca.collection.parts import WRITERS, Parts
from mindone_coca.collection.plan import Shard
from mindone_coca.collection.run import Output
from mindone_coca.collection.tally import counted, print_plan
from mindone_coca.collection.work import Done, Engine, Work, provenance_of
from mindone_coca.errors import InputError
from mindone_coca.progress import say


class LongRun:
    """One process's run over a long list.

    Args:
        output: has a folder.
        given: names of the options that the user gave, for messages.
    Raises:
        InputError: formats that a long list has not, or an output folder of another run.
    """

    def __init__(
        self,
        listed: LongList,
        work: Work,
        output: Output,
        engine: Engine,
        shard: Shard,
        given: Collection[str] = (),
    ) -> None:
        if output.folder is None:
            raise InputError(f"{listed.path}: so long a list needs a folder for results; give one with --output_dir")
        if others := [name for name in output.formats if name not in WRITERS]:
            raise InputError(
                f"--output_format {others[0]}: not for {number_of(len(listed), 'file')}, of which results are written "
                f"in parts; choose from {', '.join(WRITERS)}"
            )
        self._list, self._work, self._engine, self._folder = listed, work, engine, output.folder
        self._shard, self._given, self._formats, self._output = shard, given, output.formats, output

    def run(self, captions: bool = True) -> int:
        """Do what is not done yet; without `captions` nothing but see whether all is.

        Returns:
            the exit code: 1 if files failed, now or before, else 0.
        """
        parts = self._parts()
        try:
            left = parts.left()
            before = len(self._list) - left if self._shard.count == 1 else 0
            if before:
                say(f"{before:,} of {number_of(len(self._list), 'line')} were done before")

            def keep(done: Done) -> None:
                parts.keep(done.group, done.records)
                self._output.kept()

            if captions and left:
                work = replace(self._work, features=parts.settings["features"], thumbnails=False)
                work_off(
                    self._engine,
                    work,
                    parts.groups(self._work.options.batch),
                    left,
                    keep,
                    before=before,
                    goes_on=True,
                    prefix="this run: ",
                )
            complete = parts.complete()
            totals = parts.totals()
            missing = self._list.parts - len(parts.whole)
        finally:
            parts.close()
        if complete:
            say(f"in all: {counted(**totals)}")
            say(f"wrote {', '.join(str(self._folder / name) for name in self._written(parts))}")
        elif not captions:
            raise InputError(
                f"{self._folder}: {number_of(missing, 'part')} of the list not done; run the shards that have "
                "them, then --merge again"
            )
        else:
            say(f"{number_of(missing, 'part')} of other shards not done, as far as is seen from here")
        return 1 if totals["failed"] else 0

    def merge(self) -> int:
        """See that all parts of all shards are there."""
        return self.run(captions=False)

    def dry_run(self) -> None:
        """Print what `run` would do."""
        left = len(self._list)
        if (self._folder / "journal").exists():
            parts = self._parts()
            left = parts.left()
            parts.close()
        groups = -(-left // self._work.options.batch)
        print_plan(len(self._list), len(self._list) - left, groups, self._engine.workers())

    def _parts(self) -> Parts:
        settings = self._work.settings()
        provenance = provenance_of(settings, self._work.source())
        return Parts(self._folder, self._list, self._shard, settings, self._given, self._formats, provenance)

    def _written(self, parts: Parts) -> Sequence[str]:
        return [*self._formats, *(["features"] if parts.settings["features"] else [])]
