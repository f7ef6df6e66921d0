"""The driver's side of a run on a cluster, with workers that answer at once in place of Ray."""

from collections.abc import Callable, Collection, Mapping, Sequence
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from mindone_coca.collection import ray as engine
from mindone_coca.collection.cluster import Cluster, Place
from mindone_coca.collection.work import Done
from mindone_coca.errors import InputError

ERRORS = (
    *("RayActorError", "ObjectLostError", "WorkerCrashedError", "OutOfMemoryError", "NodeDiedError"),
    *("ActorUnschedulableError", "RayTaskError"),
)
GROUPS = [[f"{number}"] for number in range(12)]


class Answer:
    """What a call gives."""

    def __init__(self, content: Any) -> None:
        self.content = content


class Method:
    """A method of an actor: its answer is there at once, and counts as on its way until it is asked for."""

    def __init__(self, run: Callable[..., object]) -> None:
        self._run = run

    def remote(self, *arguments: object) -> Answer:
        return Answer(self._run(*arguments))


class Actor:
    def __init__(self, place: Place) -> None:
        self.place, self.waiting, self.most = place, 0, 0
        self.start, self.caption = Method(lambda order, shipped: None), Method(self._caption)

    def _caption(self, group: Sequence[str], without: Mapping[str, str]) -> tuple["Actor", Sequence[str]]:
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        return self, group


class FakeRay:
    def __init__(self) -> None:
        self.exceptions: Any = MagicMock()
        for name in ERRORS:
            setattr(self.exceptions, name, type(name, (Exception,), {}))
        self.killed: list[Actor] = []

    def wait(self, refs: list, timeout: float) -> tuple[list, list]:
        return refs[:1], refs[1:]

    def get(self, ref: Answer) -> Done | None:
        if ref.content is None:
            return None
        actor, group = ref.content
        actor.waiting -= 1
        if actor.place.node == "dies":
            raise self.exceptions.NodeDiedError
        return Done([{"path": path, "size": 0, "error": None, "segments": []} for path in group])

    def kill(self, actor: Actor) -> None:
        self.killed.append(actor)


class Nodes(Cluster):
    """A cluster whose nodes are given; each has room for a worker."""

    def __init__(self, *names: str) -> None:
        super().__init__("auto", "auto", None)
        self.names = list(names)
        self.actors: list[Actor] = []

    def places(self, without: Collection[str] = ()) -> list[Place]:
        return [Place(name, 0, name, "NPU", 1, 1) for name in self.names if name not in without]

    def start(self, place: Place) -> Actor:
        self.actors.append(Actor(place))
        return self.actors[-1]

    def is_alive(self, place: Place) -> bool:
        return place.node in self.names

    def resource(self) -> str:
        return "NPU"


@pytest.fixture
def now(monkeypatch) -> Callable[[float], None]:
    """Sets the time; that of waiting passes at once."""
    clock = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(engine.time, "monotonic", lambda: clock.seconds)
    monkeypatch.setattr(engine.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(engine, "_LOOK_AGAIN", 0.0)
    return lambda seconds: setattr(clock, "seconds", seconds)


def session(cluster: Nodes, in_flight: int = 2) -> engine._RaySession:
    return engine._RaySession(FakeRay(), cluster, MagicMock(), None, in_flight)


def test_nodes_that_join_late_get_work_and_nothing_is_lost_with_one(now, capsys):
    cluster = Nodes("a")
    found: dict[str, list[str]] = {}
    count = 0
    for done in session(cluster).run(GROUPS):
        for record in done.records:
            found.setdefault(record["path"], []).append(done.node)
            count += 1
            if count == 2:
                cluster.names += ["dies", "late"]
            if count == 6:
                cluster.names.remove("dies")
    assert {path: len(nodes) for path, nodes in found.items()} == {path: 1 for [path] in GROUPS}
    assert {node for nodes in found.values() for node in nodes} == {"a", "late"}
    assert "dies: " in capsys.readouterr().err


@pytest.mark.parametrize("in_flight", [2, 4])
def test_so_many_groups_are_with_a_worker_at_most(now, in_flight):
    cluster = Nodes("a", "b")
    assert sum(len(done.records) for done in session(cluster, in_flight).run(GROUPS)) == len(GROUPS)
    assert [actor.most for actor in cluster.actors] == [in_flight, in_flight]


def test_without_a_node_a_run_ends(now, capsys):
    # those that are there lack something
    lacking = session(Nodes("host-1"))
    lacking._report(Place("host-1", 0, "host-1", "NPU", 1, 1), "other weights there")
    with pytest.raises(InputError, match="node host-1: other weights there; no other node is left"):
        next(lacking.run(GROUPS))
    # none is there yet, or all have died: others may join
    run = session(Nodes()).run(GROUPS)
    assert [next(run).records, next(run).records] == [[], []]
    assert capsys.readouterr().err.count("no node has a NPU for a worker now; waiting for one to join") == 1
    now(601.0)
    with pytest.raises(InputError, match="for a worker has joined in 10 minutes; once one has, the same command"):
        next(run)
