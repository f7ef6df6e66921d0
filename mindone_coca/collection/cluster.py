"""A Ray cluster: joined or begun, its nodes, and where on them workers may be."""

import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from mindone_coca.collection.worker import Worker
from mindone_coca.config import LOCAL_CLUSTER, DeviceTarget
from mindone_coca.errors import InputError
from mindone_coca.waiting import Wait
from mindone_coca.weights.source import INDEX_SUFFIX

CONCURRENT = 5  # calls of an actor: its groups, and one that says what it lacks
_RESOURCES = {"Ascend": "NPU", "GPU": "GPU", "CPU": "CPU"}  # Ray's names of devices
_CONNECT = 10.0  # seconds
_OBJECT_STORE = 128 << 20  # bytes, of a local cluster: only records pass through it


@dataclass(frozen=True)
class Place:
    """Where one worker may be.

    Attributes:
        node: Ray's id of the machine. number: among the workers there.
        name: of the machine, for messages.
        resource: what it takes of the node: `NPU`, `GPU` or `CPU`, and `amount` of that.
        cores: of the node, its share.
    """

    node: str
    number: int
    name: str
    resource: str
    amount: int
    cores: int


class Cluster:
    """The cluster at an address.

    Args:
        address: `local` begins one on this machine, `auto` joins the one that runs here, `HOST:PORT` that one.
        target: which devices workers get.
        count: of workers, at most; None: one for each device, on CPUs one for each node.
    """

    def __init__(self, address: str, target: DeviceTarget, count: int | None) -> None:
        self._address, self._target, self.count = address, target, count
        self._share: int | None = None
        self._ray: Any = None

    @contextmanager
    def joined(self) -> Iterator[Any]:
        """Within, this process is a driver. Gives the library. Raises InputError where there is no cluster."""
        if find_spec("ray") is None:
            raise InputError("--ray: the library Ray is not installed; pip install mindone-coca[ray]")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        before = signal.getsignal(signal.SIGTERM)
        import ray

        own = not ray.is_initialized()
        if own:
            with Wait("joining the Ray cluster" if self._address != LOCAL_CLUSTER else "starting Ray"):
                self._join(ray)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray has put one of its own in its place
        self._ray = ray
        try:
            yield ray
        finally:
            if own:
                ray.shutdown()

    def _join(self, ray: Any) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self._address == LOCAL_CLUSTER:
            os.environ.setdefault("RAY_worker_niceness", "0")  # the workers are the run itself, not a background job
            cores = os.cpu_count() or 1
            options |= {"num_cpus": max(cores, self.count or 1), "object_store_memory": _OBJECT_STORE}
            options["include_dashboard"] = False
        try:
            if ":" in self._address:  # Ray itself would try for minutes
                host, port = self._address.rsplit(":", 1)
                socket.create_connection((host, int(port)), _CONNECT).close()
            ray.init(address=self._address, **options)
        except (OSError, RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            fix = "start one with `ray start --head`"
            if has_token() and "RAY_AUTH_MODE" not in os.environ:  # a cluster that was begun where it lies asks for it
                fix += ", or set RAY_AUTH_MODE=token, if there is one that asks for your token"
            raise InputError(f"--ray {self._address}: no cluster can be reached there ({reason}); {fix}") from error

    def places(self, without: Collection[str] = ()) -> list[Place]:
        """Where workers may be now, a node's first worker before the second of any.

        Args:
            without: nodes that are passed over.
        """
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        has, resource = [node["Resources"] for node in nodes], self.resource()
        hosts = [node["NodeManagerHostname"] for node in nodes]
        places = []
        for node, resources, host in zip(nodes, has, hosts):
            total, cores = int(resources.get(resource, 0)), int(resources.get("CPU", 0))
            amount = 1 if resource != "CPU" else self._cpus_each([int(one.get("CPU", 0)) for one in has]) or total
            if node["NodeID"] in without or total < max(1, amount):
                continue
            number = total // amount
            name = host if hosts.count(host) == 1 else f"{host}/{node['NodeID'][:6]}"
            each = max(1, cores // number)
            places += [Place(node["NodeID"], i, name, resource, amount, each) for i in range(number)]
        return sorted(places, key=lambda place: place.number)

    def resource(self) -> str:
        """What a worker takes of its node: `NPU`, `GPU` or `CPU`."""
        if self._target != "auto":
            return _RESOURCES[self._target]
        has = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return next((name for name in ("NPU", "GPU") if any(name in one for one in has)), "CPU")

    def _cpus_each(self, cpus: list[int]) -> int | None:
        """The share of a worker, settled once; None: all of its node."""
        if self.count is not None and self._share is None:
            share = max(1, sum(cpus) // self.count)
            while share > 1 and sum(number // share for number in cpus) < self.count:
                share -= 1
            self._share = share
        return self._share

    def start(self, place: Place) -> Any:
        """A worker's actor at a place; it waits where others have what it needs of the node."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        needs: dict[str, Any] = {"num_cpus": place.amount if place.resource == "CPU" else 0}
        if place.resource == "GPU":
            needs["num_gpus"] = 1
        elif place.resource == "NPU":
            needs["resources"] = {"NPU": 1}
        return (
            self._ray.remote(Worker)
            .options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(place.node, soft=False),
                max_restarts=0,  # the driver does it, perhaps elsewhere
                max_concurrency=CONCURRENT,
                **needs,
            )
            .remote(place.cores)
        )

    def is_alive(self, place: Place) -> bool:
        return any(node["NodeID"] == place.node and node["Alive"] for node in self._ray.nodes())

    def shipped(self, weights: Path) -> Any:
        """Weights in the object store. Raises InputError where they are several files."""
        if weights.name.endswith(INDEX_SUFFIX):
            raise InputError(f"{weights}: --ray_ship_weights takes weights of one file; convert them to one")
        return self._ray.put(np.fromfile(weights, np.uint8))


def has_token() -> bool:
    """Whether this user has a token for clusters, which Ray 2.60 makes with the first one on a machine."""
    given = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()
    return bool(given) or (Path.home() / ".ray/auth_token").is_file()


def why_no_start(error: Exception) -> str:
    """Why a worker could not even begin, in a line."""
    text = str(error)
    if missing := re.search(r"No module named '(\w+)", text):
        return f"{missing[1]} is not installed there; pip install mindone-coca[ray] as on the driver's machine"
    return f"its workers end at their start ({last_line(error)})"


def last_line(error: Exception) -> str:
    """What an error says at its end, which in one from a worker is the exception there."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
