"""Caption a collection: plan, read ahead, caption, keep a journal, and write the files once all is done."""

import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from mindone_coca import __version__
from mindone_coca.account import number_of
from mindone_coca.captioning.batches import BatchCaptioner
from mindone_coca.captioning.captioner import VideoCaptioner
from mindone_coca.captioning.options import CaptionOptions
from mindone_coca.captioning.reading import Passage, PassageReader, ReadAhead, ReadingFailed
from mindone_coca.collection.journal import Journal, Record, Results, exclusive, file_size
from mindone_coca.collection.plan import GROUP_SIZE, Shard, work_groups
from mindone_coca.collection.printer import Printer
from mindone_coca.collection.records import segment
from mindone_coca.config import Dtype
from mindone_coca.generation.settings import fitting
from mindone_coca.interrupts import Stopped, StopRequest, stop_on_signals
from mindone_coca.model.family import FamilyConfig
from mindone_coca.outputs.formats import go_beside_inputs, present_outputs, write_outputs
from mindone_coca.outputs.schema import Outcome, Provenance
from mindone_coca.outputs.sidecar import Sidecars
from mindone_coca.preprocess.transforms import make_transform
from mindone_coca.progress import Progress, say
from mindone_coca.weights.fingerprint import model_name


@dataclass(frozen=True)
class Output:
    """What becomes of the captions: files in `folder`, where that is None files beside the inputs or lines on standard
    output.

    Attributes:
        single: there is one file, whose captions are also printed where files are written, and without its path.
        force, taken: as in `outputs.formats.write_outputs`.
    """

    folder: Path | None = None
    formats: Sequence[str] = ()
    features: bool = False
    single: bool = False
    force: bool = False
    taken: Sequence[str] = ()


class CollectionRun:
    """One process's run over a collection.

    Args:
        paths: all files, of all shards.
        config, weights: of the model that `make_captioner` builds, which happens only if there is work to do.
        workers: reading threads.
        retry_failed: read files again that failed in an earlier run.
        given: names of the options that the user gave, for messages.
    Raises:
        InputError: an output folder of another run.
    """

    def __init__(
        self,
        paths: Sequence[str],
        options: CaptionOptions,
        output: Output,
        config: FamilyConfig,
        weights: Path,
        make_captioner: Callable[[], VideoCaptioner],
        dtype: Dtype | None = None,
        shard: Shard = Shard(),  # noqa: B008 immutable
        workers: int = 2,
        retry_failed: bool = False,
        given: Collection[str] = (),
    ) -> None:
        # what the captions depend on, not what was asked for: a default is less where the model has less room
        options = replace(options, generation=fitting(options.generation, config.context_length))
        self._paths, self._options, self._output, self._shard = paths, options, output, shard
        self._make_captioner, self._workers, self._retry_failed = make_captioner, workers, retry_failed
        self._given = given
        self._source = {"weights": os.path.abspath(weights), "config": config.to_dict()}
        self._transform = make_transform(config.image_hw, config.preprocess)
        self._settings = {
            "model": model_name(config, weights),
            "dtype": dtype or config.cast_dtype or "float32",
            "version": __version__,
            **options.as_dict(),
            "thumbnails": "html" in output.formats,
            "features": output.features,
        }
        self._groups = work_groups(paths, 1 if options.in_segments else GROUP_SIZE, shard)

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
        if outcome.written:
            say(f"wrote {', '.join(map(str, outcome.written))}")
        for note in outcome.notes:
            say(note)
        for problem in outcome.problems:
            say(f"error: {problem}")
        if failed:
            return 2 if self._output.single else 1
        return 1 if outcome.problems else 0

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
        journal = Journal(folder, self._shard)
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
                failed += self._caption(
                    groups, lambda records: journal.append(r for r in records if r["path"] in todo), todo, before
                )
        finally:
            journal.close()
        outcome = self._write(target, folder)
        if self._output.single:
            self._printer().add(list(Results(folder, self._settings).records(self._paths)))
        return failed, outcome

    def _caption(
        self,
        groups: list[list[str]],
        keep: Callable[[list[Record]], None],
        todo: set[str] | None = None,
        before: int = 0,
    ) -> int:
        """Caption groups of files. A group is done again as a whole, so that its batches are those of any other run.

        Args:
            keep: takes the records of a group, for good if there is `todo`: then a signal stops the run after a group.
            todo: the files to do; None: all.
            before: files that are done already, for messages.
        Returns:
            the number of files in `todo` that failed.
        Raises:
            Stopped: by a signal.
        """
        captioner = self._make_captioner().batches(self._options, self._settings["features"])
        read = PassageReader(self._options, self._transform, self._settings["thumbnails"])
        total = len(todo) if todo is not None else sum(map(len, groups))
        counts = {"files": 0, "captions": 0, "failed": 0}
        begin = time.perf_counter()
        goes_on = todo is not None and not self._output.single
        with (
            ReadAhead[str, Passage](read, self._workers, self._options.frames_each) as reader,
            Progress(total, "captioning", "files") as shown,
            stop_on_signals() if goes_on else nullcontext(StopRequest()) as stop,
        ):
            files = reader.files(path for group in groups for path in group)
            for group in groups:
                records = self._caption_group(group, files, captioner)
                keep(records)
                for record in records:
                    if todo is not None and record["path"] not in todo:
                        continue
                    counts["files"] += 1
                    counts["captions"] += len(record["segments"])
                    counts["failed"] += record["error"] is not None
                    if record["error"] is not None:
                        say(f"error: {record['error']}")
                    shown.update()
                if stop.requested:
                    done = f"{before + counts['files']:,} of {number_of(before + total, 'file')}"
                    raise Stopped(f"stopped: {done} done; the same command goes on", stop.requested)
        seconds = time.perf_counter() - begin
        idle = 1 - captioner.seconds_busy / seconds
        say(
            ("this run: " if self._output.folder is not None else "") + f"{_counted(**counts)}; {seconds:.1f} s, "
            f"{counts['files'] / seconds:.2f} files/s; device idle {100 * idle:.0f} %, "
            f"waiting for frames {100 * reader.seconds_waited / seconds:.0f} %"
        )
        return counts["failed"]

    def _caption_group(
        self, group: list[str], files: Iterator[tuple[str, Iterator[Passage]]], captioner: BatchCaptioner
    ) -> list[Record]:
        records: dict[str, Record] = {}

        def passages() -> Iterator[Passage]:
            for _ in group:
                path, items = next(files)
                record = {"path": path, "size": file_size(path), "error": None, "duration": None, "segments": []}
                records[path] = record
                try:
                    yield from items
                except ReadingFailed as error:
                    record["error"] = str(error)

        for passage, caption in captioner(passages()):
            records[passage.path]["segments"].append(segment(passage, caption))
        for record in records.values():
            if record["error"] is not None:
                record["segments"] = []  # of what came before the damage
            else:
                record["duration"] = round(record["segments"][-1]["end"] - record["segments"][0]["start"], 6)
        return list(records.values())

    def _write(self, target: Path, folder: Path) -> Outcome:
        """From the journal in `folder` write the output files, if no shard has work left. Whoever is last does it."""
        with exclusive(folder):
            results = Results(folder, self._settings)
            missing = sum(path not in results for path in self._paths)
            if missing:
                be = "is" if missing == 1 else "are"
                say(f"{number_of(missing, 'file')} of other shards {be} not done; the last one writes the output files")
                return Outcome()
            others = results.beside(self._paths)
            # all in one order then, whichever run had which files
            paths = sorted([*self._paths, *others]) if others else self._paths
            say(f"in all: {_counted(**results.totals(paths))}" + self._kept_line(len(others)))
            kept = ("model", "version", "thumbnails", "features")
            options = {name: value for name, value in self._settings.items() if name not in kept}
            provenance = Provenance(self._settings["model"], options, __version__, self._source)
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


def _counted(files: int, captions: int, failed: int) -> str:
    return f"{number_of(files, 'file')}, {number_of(captions, 'caption')}, {failed:,} failed"
