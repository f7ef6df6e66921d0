"""Caption a collection: plan, read ahead, caption, keep a journal, and write the files once all is done."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mindone_coca.account import number_of, some_of
from mindone_coca.captioning.options import CaptionOptions
from mindone_coca.collection.journal import Journal, Record, Results
from mindone_coca.collection.loop import work_off
from mindone_coca.collection.plan import Shard, work_groups
from mindone_coca.collection.printer import Printer
from mindone_coca.collection.tally import counted, print_plan
from mindone_coca.collection.work import Engine, Work, provenance_of
from mindone_coca.config import Dtype
from mindone_coca.errors import InputError
from mindone_coca.generation.settings import fitting
from mindone_coca.model.family import FamilyConfig
from mindone_coca.outputs.formats import go_beside_inputs, present_outputs, write_outputs
from mindone_coca.outputs.schema import Outcome
from mindone_coca.outputs.sidecar import Sidecars
from mindone_coca.progress import say
from mindone_coca.weights.fingerprint import model_name


@dataclass(frozen=True)
class Output:
    """What becomes of the captions: files in `folder`, where that is None files beside the inputs or lines on standard
    output.

    Attributes:
        single: there is one file, whose captions are also printed where files are written, and without its path.
        force, taken: as in `outputs.formats.write_outputs`.
        sync: called after each group, where the folder stands for one elsewhere.
    """

    folder: Path | None = None
    formats: Sequence[str] = ()
    features: bool = False
    single: bool = False
    force: bool = False
    taken: Sequence[str] = ()
    sync: Callable[[], object] | None = None

    def kept(self) -> None:
        """Say that results were kept."""
        if self.sync is not None:
            self.sync()


def work_of(config: FamilyConfig, weights: Path, dtype: Dtype | None, options: CaptionOptions, output: Output) -> Work:
    """What is to be done to each file."""
    # what the captions depend on, not what was asked for: a default is less where the model has less room
    generation = fitting(options.generation, config.context_length)
    options = replace(options, generation=generation, batch_size=options.batch)
    name = model_name(config, weights)
    return Work(config, weights, name, dtype, options, output.features, "html" in output.formats)


class CollectionRun:
    """One process's run over a collection.

    Args:
        paths: all files, of all shards.
        engine: does the work, if there is any to do.
        retry_failed: read files again that failed in an earlier run.
        given: names of the options that the user gave, for messages.
    Raises:
        InputError: an output folder of another run.
    """

    def __init__(
        self,
        paths: Sequence[str],
        work: Work,
        output: Output,
        engine: Engine,
        shard: Shard = Shard(),  # noqa: B008 immutable
        retry_failed: bool = False,
        given: Collection[str] = (),
    ) -> None:
        self._paths, self._work, self._output, self._shard = paths, work, output, shard
        self._engine, self._retry_failed, self._given = engine, retry_failed, given
        self._options, self._settings, self._source = work.options, work.settings(), work.source()
        self._groups = work_groups(paths, work.options.batch, shard)

    def run(self) -> int:
        """Do what is not done yet.

        Returns:
            the exit code: 2 if the only file failed, 1 if some of several failed, now or before, or if an output file
            could not be written, else 0.
        """
        if self._output.folder is not None:
            failed, outcome = self._run_into_folder(self._output.folder)
        elif go_beside_inputs(self._output.formats):
            failed, outcome = self._run_beside_inputs()
        else:
            failed, outcome = self._caption(self._groups, self._printer().add), Outcome()
        return self._finish(failed, outcome)

    def _finish(self, failed: int, outcome: Outcome) -> int:
        """Say what was written. Returns the exit code."""
        if outcome.written:
            say(f"wrote {', '.join(map(str, outcome.written))}")
        for note in outcome.notes:
            say(note)
        for problem in outcome.problems:
            say(f"error: {problem}")
        if failed:
            return 2 if self._output.single else 1
        return 1 if outcome.problems else 0

    def dry_run(self) -> None:
        """Print what `run` would do: numbers of files, of those done before, of groups, workers."""
        mine = [path for group in self._groups for path in group]
        todo = set(mine)
        if self._output.folder is not None:
            results = Results(self._output.folder / "journal", self._settings, self._given)
            todo = {path for path in mine if not results.is_done(path, self._retry_failed)}
        elif go_beside_inputs(self._output.formats):
            sidecars = Sidecars(self._paths, None, self._output.force, self._output.taken)
            todo = {path for path in mine if not sidecars.is_kept(path)}
        print_plan(len(mine), len(mine) - len(todo), len(self._groups_with(todo)), self._engine.workers())

    def merge(self) -> int:
        """Write the output files from the journals of all shards, and caption nothing.

        Returns:
            the exit code, as `run`.
        Raises:
            InputError: files without a result.
        """
        assert self._output.folder is not None
        folder = self._output.folder / "journal"
        results = Results(folder, self._settings, self._given)
        self._settings = results.settings
        if missing := [path for path in self._paths if path not in results]:
            raise InputError(
                f"{folder}: no results yet of {some_of(missing, 3)}; run the shards that have them, then --merge again"
            )
        failed = [path for path in self._paths if results.failed(path)]
        for record in results.records(failed):
            say(f"error: {record['error']}")
        return self._finish(len(failed), self._write(self._output.folder, results))

    def _printer(self) -> Printer:
        return Printer(self._paths, self._options.in_segments, self._output.single)

    def _run_beside_inputs(self) -> tuple[int, Outcome]:
        """Caption the files that have no caption file beside them yet, each of which is the journal of its input.

        Returns the number of files that failed, and what was written.
        """
        sidecars = Sidecars(self._paths, None, self._output.force, self._output.taken)
        mine = [path for group in self._groups for path in group]
        kept = {path for path in mine if sidecars.is_kept(path)}
        sidecars.skip(kept)
        todo = set(mine) - kept
        todo -= sidecars.without_room(todo)  # rather than caption in vain
        printer = self._printer()

        def keep(records: list[Record]) -> None:
            for record in records:
                if record["path"] in todo:
                    sidecars.write(record)
            if self._output.single:
                printer.add(records)

        failed = self._caption(groups, keep, todo, len(kept)) if (groups := self._groups_with(todo)) else 0
        return failed, sidecars.outcome()

    def _groups_with(self, todo: set[str]) -> list[list[str]]:
        return [group for group in self._groups if not todo.isdisjoint(group)]

    def _run_into_folder(self, target: Path) -> tuple[int, Outcome]:
        """The same by the journal in the output folder."""
        folder = target / "journal"
        journal = Journal(folder / self._shard.file)
        try:
            results = Results(folder, self._settings, self._given)
            self._settings = results.settings
            mine = [path for group in self._groups for path in group]
            todo = {path for path in mine if not results.is_done(path, self._retry_failed)}
            earlier = [path for path in mine if path not in todo and results.failed(path)]
            for record in results.records(earlier):
                say(f"error: {record['error']} (found in an earlier run)")
            if before := len(mine) - len(todo):
                say(f"{before} of {number_of(len(mine), 'file')} {'was' if before == 1 else 'were'} done before")
            failed = len(earlier)
            if groups := self._groups_with(todo):
                journal.begin(self._settings)

                def keep(records: list[Record]) -> None:
                    journal.append(record for record in records if record["path"] in todo)
                    self._output.kept()

                failed += self._caption(groups, keep, todo, before)
        finally:
            journal.close()
        results = Results(folder, self._settings)
        outcome = self._write(target, results)
        if self._output.single:
            self._printer().add(list(results.records(self._paths)))
        return failed, outcome

    def _caption(
        self,
        groups: list[list[str]],
        keep: Callable[[list[Record]], None],
        todo: set[str] | None = None,
        before: int = 0,
    ) -> int:
        """Caption groups of files, as `work_off`.

        Args:
            keep: takes the records of a group, for good if there is `todo`.
        """
        settings = self._settings
        return work_off(
            self._engine,
            replace(self._work, features=settings["features"], thumbnails=settings["thumbnails"]),
            groups,
            len(todo) if todo is not None else sum(map(len, groups)),
            lambda done: keep(done.records),
            todo=todo,
            before=before,
            goes_on=todo is not None and not self._output.single,
            prefix="this run: " if self._output.folder is not None else "",
        )

    def _write(self, target: Path, results: Results) -> Outcome:
        """From what the journals hold write the output files, if no shard has work left.

        Nothing keeps two shards that end together from both doing so: they write the same, each file at once.
        """
        missing = sum(path not in results for path in self._paths)
        if missing:
            be = "is" if missing == 1 else "are"
            say(
                f"{number_of(missing, 'file')} of other shards {be} not done, as far as is seen from here; once they "
                "are, this command run again writes the output files, or --merge"
            )
            return Outcome()
        others = results.beside(self._paths)
        # all in one order then, whichever run had which files
        paths = sorted([*self._paths, *others]) if others else self._paths
        say(f"in all: {counted(**results.totals(paths))}" + self._kept_line(len(others)))
        provenance = provenance_of(self._settings, self._source)
        formats, features = present_outputs(target)  # those of earlier runs are written again, too
        return write_outputs(
            target,
            {*self._output.formats, *formats},
            self._output.features or features,
            lambda: results.records(paths),
            paths,
            provenance,
            self._output.force,
            self._output.taken,
        )

    def _kept_line(self, others: int) -> str:
        if not others:
            return ""
        which = (
            "1 of the files is none of this run's inputs and is"
            if others == 1
            else (f"{others:,} of the files are none of this run's inputs and are")
        )
        return f"; {which} kept from earlier runs into {self._output.folder}"
