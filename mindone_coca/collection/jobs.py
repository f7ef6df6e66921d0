"""Which group of files a free worker gets next, and what the death of a worker means for the groups that it had.

A group that a worker died with is done again by a worker that has nothing else, so that a second death is its own
doing. After that its files are tried one by one; one with which two workers die that have nothing else is recorded as
failed, and the group is done again without it, in the batches that it has where that file cannot be read. Only where it
kills even so its files keep the captions that they got one by one.
"""

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from mindone_coca.collection.journal import new_record
from mindone_coca.outputs.schema import Record
from mindone_coca.storage import shown

Finished = tuple[Sequence[str], list[Record]]  # a group and its records
DEATHS = 2  # of workers, until a group or a file is taken to be the cause


@dataclass
class _Trial:
    """A group whose files are tried one by one."""

    group: Sequence[str]
    alone: dict[str, Record] = field(default_factory=dict)  # what came of each
    killers: dict[str, str] = field(default_factory=dict)  # and the error of those that killed

    @property
    def complete(self) -> bool:
        return len(self.alone) + len(self.killers) == len(self.group)


@dataclass
class Job:
    """What a worker is asked to do.

    Attributes:
        group: paths.
        without: files of the group that must not be read, and the error to record of each.
        suspect: to be done by a worker that has nothing else to do meanwhile.
        deaths: of workers that had it; where it is one file, of those that had nothing else.
    """

    group: Sequence[str]
    without: dict[str, str] = field(default_factory=dict)
    suspect: bool = False
    deaths: int = 0
    trial: _Trial | None = None


class Jobs:
    """The groups of a run.

    Args:
        groups: each is asked for when a worker is free for it, so there may be many.
    """

    def __init__(self, groups: Iterable[Sequence[str]]) -> None:
        self._fresh = iter(groups)
        self._again: deque[Job] = deque()
        self._suspects: deque[Job] = deque()
        self._out = 0
        self._exhausted = False

    def take(self, idle: bool) -> Job | None:
        """The next job, or None where there is none for this worker.

        Args:
            idle: whether the worker has nothing to do.
        """
        job = None
        if idle and self._suspects:
            job = self._suspects.popleft()
        elif self._again:
            job = self._again.popleft()
        elif (group := next(self._fresh, None)) is not None:
            job = Job(group)
        else:
            self._exhausted = True
        self._out += job is not None
        return job

    @property
    def finished(self) -> bool:
        """Whether nothing is left to take, nor under way."""
        return self._exhausted and not (self._out or self._again or self._suspects)

    @property
    def suspects(self) -> int:
        """How many jobs wait for a worker that has nothing to do."""
        return len(self._suspects)

    def put_back(self, jobs: Iterable[Job]) -> None:
        """Jobs that were not done, through no fault of theirs."""
        for job in jobs:
            self._out -= 1
            (self._suspects if job.suspect else self._again).append(job)

    def done(self, job: Job, records: list[Record]) -> list[Finished]:
        """Take a job's result. Returns the groups that are finished with it: one, or none yet."""
        self._out -= 1
        trial = job.trial
        if trial is None or len(job.group) == len(trial.group) > 1:
            return [(job.group, records)]
        trial.alone[job.group[0]] = records[0]
        return self._tried(trial)

    def died(self, jobs: Collection[Job], how: str = "") -> list[Finished]:
        """The worker that had these jobs died, `how` if that is known. Returns groups that are finished with that."""
        final: list[Finished] = []
        for job in jobs:
            self._out -= 1
            # a single file would be recorded as failed, so it is not blamed for what another one may have caused
            job.deaths += len(jobs) == 1 or len(job.group) > 1
            job.suspect = True
            if job.deaths < DEATHS:
                self._suspects.append(job)
            elif len(job.group) == 1:
                trial = job.trial or _Trial(job.group)
                trial.killers[job.group[0]] = killed(job.group[0], how)
                final += self._tried(trial)
            elif job.trial is None:
                trial = _Trial(job.group)
                self._suspects.extend(Job([path], suspect=True, trial=trial) for path in job.group)
            else:
                final.append(_one_by_one(job.trial))
        return final

    def _tried(self, trial: _Trial) -> list[Finished]:
        if not trial.complete:
            return []
        if not trial.alone:  # nothing is left to caption
            return [_one_by_one(trial)]
        self._suspects.append(Job(trial.group, trial.killers, suspect=True, trial=trial))
        return []


def killed(path: str, how: str = "") -> str:
    """The error of a file with which workers died."""
    how = how or "as they do where a file breaks the decoder or needs too much memory"
    return f"{shown(path)}: {DEATHS} processes died with it alone ({how}); convert it, or leave it out"


def _one_by_one(trial: _Trial) -> Finished:
    killers, alone = trial.killers, trial.alone
    return trial.group, [new_record(path, killers[path]) if path in killers else alone[path] for path in trial.group]
