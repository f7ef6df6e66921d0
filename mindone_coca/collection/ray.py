"""The driver's side of a run on a Ray cluster: it hands groups out to workers as these become free.

Where workers run is decided here, node by node, rather than by Ray, so that a message can name the node. Ray starts
the processes, keeps each to its own device, carries groups and records, and says when a process or a node is gone.
"""

import sys
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from mindone_coca.account import number_of
from mindone_coca.collection.cluster import Cluster, Place, last_line, why_no_start
from mindone_coca.collection.jobs import Job, Jobs
from mindone_coca.collection.journal import file_size
from mindone_coca.collection.work import Done, Work
from mindone_coca.collection.worker import Device, Order, versions
from mindone_coca.errors import InputError
from mindone_coca.progress import say

IN_FLIGHT = 2  # groups of a worker: one that it captions, one that it reads
IN_FLIGHT_OF_URLS = 4  # where an answer takes longer than to caption a group, one that is read is not enough
_STARTS = 3  # processes that die at their start until their node is given up
_TICK = 1.0  # seconds until a signal to stop is seen
_LOOK_AGAIN = 5.0  # seconds until nodes that joined late are seen
_PATIENCE = 600.0  # seconds without any node, until the run ends


@dataclass(eq=False)
class _Worker:
    """An actor of this run."""

    actor: Any
    place: Place
    starting: Any  # the reference of its start; None once it is ready
    jobs: dict[Any, Job] = field(default_factory=dict)  # by reference
    ready_since: float = 0.0

    @property
    def suspect(self) -> bool:
        return any(job.suspect for job in self.jobs.values())


class RayEngine:
    """Does the work on a Ray cluster.

    Args:
        cluster: where workers may be.
        device: how workers run.
        threads: of each worker, that read; None: by its cores.
        folder: the working directory that paths count from; None: none does.
        in_flight: groups that a worker has at most.
        ship_weights: put the weights into the object store, rather than have workers read the same path.
    """

    def __init__(
        self,
        cluster: Cluster,
        device: Device,
        threads: int | None,
        folder: str | None,
        in_flight: int = IN_FLIGHT,
        ship_weights: bool = False,
    ) -> None:
        self._cluster, self._in_flight, self._ship_weights = cluster, in_flight, ship_weights
        self._device, self._threads, self._folder = device, threads, folder

    @contextmanager
    def open(self, work: Work) -> Iterator["_RaySession"]:
        work = replace(work, weights=work.weights.absolute())
        order = Order(work, self._device, self._folder, versions(), self._threads)
        with self._cluster.joined() as ray:
            shipped = self._cluster.shipped(work.weights) if self._ship_weights else None
            session = _RaySession(ray, self._cluster, order, shipped, self._in_flight)
            try:
                yield session
            finally:
                session.end()

    def workers(self) -> int:
        with self._cluster.joined():
            places = len(self._cluster.places())
            return min(places, self._cluster.count or places)


class _RaySession:
    def __init__(self, ray: Any, cluster: Cluster, order: Order, shipped: Any, in_flight: int) -> None:
        self._in_flight = in_flight
        self._ray, self._cluster, self._order, self._shipped = ray, cluster, order, shipped
        self._workers: list[_Worker] = []
        self._given_up: dict[str, str] = {}  # nodes that lack something, and which they are and what
        self._alone_since: float | None = None  # since when no node is left
        self._died_at_start: dict[str, int] = {}
        self._limit = cluster.count or sys.maxsize
        self._looked = self._past_seconds = 0.0
        self._gone = (
            ray.exceptions.RayActorError,
            ray.exceptions.ObjectLostError,
            ray.exceptions.WorkerCrashedError,
            ray.exceptions.OutOfMemoryError,
            ray.exceptions.NodeDiedError,
            ray.exceptions.ActorUnschedulableError,
            ray.exceptions.RayTaskError,  # an exception there, as of a device that fails
        )

    def run(self, groups: Iterable[Sequence[str]]) -> Generator[Done, None, None]:
        jobs = Jobs(groups)
        while True:
            self._staff()
            self._hand_out(jobs)
            if jobs.finished:
                return
            waiting = {worker.starting: worker for worker in self._workers if worker.starting is not None}
            waiting |= {ref: worker for worker in self._workers for ref in worker.jobs}
            if not waiting:
                self._check_nodes()
                yield Done([])  # no worker yet
                time.sleep(_TICK)
                continue
            ready, _ = self._ray.wait(list(waiting), timeout=_TICK)
            if not ready:
                yield Done([])
            for ref in ready:
                results = list(self._receive(waiting[ref], ref, jobs))
                self._hand_out(jobs)  # before these are kept, which takes its time
                yield from results

    def worker_seconds(self) -> float:
        now = time.perf_counter()
        return self._past_seconds + sum(now - worker.ready_since for worker in self._workers if worker.ready_since)

    def end(self) -> None:
        for worker in list(self._workers):
            self._dismiss(worker)

    def _staff(self) -> None:
        """Start workers where there is room for them: at first, where one died, on nodes that joined."""
        if time.monotonic() - self._looked < _LOOK_AGAIN and self._looked:
            return
        self._looked = time.monotonic()
        taken = {worker.place for worker in self._workers}
        for place in self._cluster.places(self._given_up):
            if place not in taken and len(self._workers) < self._limit:
                actor = self._cluster.start(place)
                self._workers.append(_Worker(actor, place, actor.start.remote(self._order, self._shipped)))

    def _check_nodes(self) -> None:
        """See that there is a node to wait for. Raises InputError where there is none."""
        if self._cluster.places(self._given_up):
            self._alone_since = None
            return
        if self._given_up:
            raise InputError(f"{[*self._given_up.values()][-1]}; no other node is left")
        if self._alone_since is None:
            self._alone_since = time.monotonic()
            say(f"no node has a {self._cluster.resource()} for a worker now; waiting for one to join")
        elif time.monotonic() - self._alone_since > _PATIENCE:
            raise InputError(
                f"--ray: no node with a {self._cluster.resource()} for a worker has joined in {_PATIENCE / 60:.0f} "
                "minutes; once one has, the same command goes on, or give another --device_target"
            )

    def _hand_out(self, jobs: Jobs) -> None:
        while True:
            free = [w for w in self._workers if w.starting is None and len(w.jobs) < self._in_flight and not w.suspect]
            free.sort(key=lambda worker: len(worker.jobs))
            # as many as jobs that want one for themselves take nothing else
            reserved = [worker for worker in free[: jobs.suspects] if worker.jobs]
            given = False
            for worker in free:
                if worker in reserved or (job := jobs.take(idle=not worker.jobs)) is None:
                    continue
                ref = worker.actor.caption.remote(list(job.group), job.without)
                worker.jobs[ref] = job
                given = True
            if not given:
                return

    def _receive(self, worker: _Worker, ref: Any, jobs: Jobs) -> Iterator[Done]:
        if worker not in self._workers:  # it died with another of its jobs
            return
        try:
            answer = self._ray.get(ref)
        except self._gone as error:
            yield from self._lost(worker, jobs, error)
            return
        if ref == worker.starting:
            worker.starting = None
            if answer is not None:
                self._give_up(worker, answer)
            else:
                worker.ready_since = time.perf_counter()
            return
        records = answer.records
        unseen = [record for record in records if record["size"] < 0 <= file_size(record["path"])]
        if unseen:
            jobs.put_back(worker.jobs.values())
            self._give_up(worker, f"{unseen[0]['path']}: not seen from there, as it is from here; mount its folder")
            return
        self._died_at_start.pop(worker.place.node, None)
        done = replace(answer, records=[], node=worker.place.name)
        yield done  # the time that it took
        for group, final in jobs.done(worker.jobs.pop(ref), records):
            yield Done(final, group, worker.place.name)

    def _lost(self, worker: _Worker, jobs: Jobs, error: Exception) -> Iterator[Done]:
        """A worker's process or node is gone, or its device has failed."""
        place, alive = worker.place, self._cluster.is_alive(worker.place)
        self._dismiss(worker)
        if worker.starting is None or not alive:
            how = last_line(error) if isinstance(error, self._ray.exceptions.RayTaskError) else ""
            what = ("a worker" if alive else "the node") + (f" failed: {how}" if how else " died")
            if worker.jobs:
                what += f"; {number_of(len(worker.jobs), 'group')} of files will be done again"
            say(f"{place.name}: {what}")
            for group, records in jobs.died(worker.jobs.values(), how):
                yield Done(records, group, place.name)
            return
        deaths = self._died_at_start[place.node] = self._died_at_start.get(place.node, 0) + 1
        if deaths == _STARTS or "ModuleNotFoundError" in str(error):
            self._report(place, why_no_start(error))

    def _give_up(self, worker: _Worker, problem: str) -> None:
        """A worker cannot do its work where it is."""
        self._dismiss(worker)
        self._report(worker.place, problem)

    def _report(self, place: Place, problem: str) -> None:
        if place.node not in self._given_up:
            self._given_up[place.node] = f"node {place.name}: {problem}"
            say(f"error: {self._given_up[place.node]}")

    def _dismiss(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        if worker.ready_since:
            self._past_seconds += time.perf_counter() - worker.ready_since
        self._ray.kill(worker.actor)
        self._looked = 0.0  # another one may have its place
