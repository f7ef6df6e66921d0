"""A run through groups of files: keep what comes, count it, show it, and stop where a signal says so."""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import closing, nullcontext

from mindone_coca.account import number_of
from mindone_coca.collection.tally import Tally
from mindone_coca.collection.work import Done, Engine, Work
from mindone_coca.interrupts import Stopped, StopRequest, stop_on_signals
from mindone_coca.progress import Progress, say


def work_off(
    engine: Engine,
    work: Work,
    groups: Iterable[Sequence[str]],
    total: int,
    keep: Callable[[Done], None],
    *,
    todo: Collection[str] | None = None,
    before: int = 0,
    goes_on: bool,
    prefix: str = "",
) -> int:
    """Caption groups of files. A group is done as a whole, so that its batches are those of any other run.

    Args:
        total: the number of files to do, for messages; so is `before`, of those done already.
        keep: takes the results of a group, for good if the run `goes_on`: then a signal stops it after a group.
        todo: the files of the groups that count; None: all.
        prefix: of the line at the end.
    Returns:
        the number of files that failed.
    Raises:
        Stopped: by a signal.
    """
    tally = Tally(todo)
    with (
        engine.open(work) as session,
        Progress(total, "captioning", "files") as shown,
        stop_on_signals() if goes_on else nullcontext(StopRequest()) as stop,
        closing(session.run(groups)) as results,
    ):
        begin = time.perf_counter()
        for done in results:
            keep(done)
            records = tally.add(done)
            for record in records:
                if record["error"] is not None:
                    say(f"error: {record['error']}")
            seconds = time.perf_counter() - begin, session.worker_seconds()
            shown.update(len(records), tally.line(*seconds), tally.brief(*seconds))
            if stop.requested:
                through = f"{before + tally.files:,} of {number_of(before + total, 'file')}"
                raise Stopped(f"stopped: {through} done; the same command goes on", stop.requested)
        summary = tally.summary(time.perf_counter() - begin, session.worker_seconds())
    say(prefix + summary)
    return tally.failed
