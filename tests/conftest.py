"""Settings of a whole test run, made before MindSpore is imported; xdist's workers inherit the environment."""

import atexit
import gc
import os
import shutil
import sys
import tempfile

import pytest

from mindone_coca import waiting
from tests.storages import memory, server  # noqa: F401 fixtures of several folders

waiting.PATIENCE = 3600.0  # what is printed must not depend on how busy the machine is
if "MINDONE_COCA_CACHE" not in os.environ:  # a store of compiled graphs for this run alone, shared by its processes
    os.environ["MINDONE_COCA_CACHE"] = tempfile.mkdtemp(prefix="coca_test_graphs_")
    atexit.register(shutil.rmtree, os.environ["MINDONE_COCA_CACHE"], ignore_errors=True)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that two workers end at about the same time."""
    heavy: dict[str, int] = {}
    for item in items:
        file = item.nodeid.split("::")[0]
        heavy[file] = heavy.get(file, 0) + (item.get_closest_marker("graphs") is not None)
    items.sort(key=lambda item: heavy[item.nodeid.split("::")[0]] == 0)


def pytest_collection_finish() -> None:
    """Leave what is imported by now out of Python's search for garbage, which MindSpore starts at each compilation."""
    set_threads_of_torch(1)  # for fixtures of modules
    gc.collect()
    gc.freeze()


def set_threads_of_torch(number: int) -> None:
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(number)


@pytest.fixture(autouse=True)
def threads_of_torch(request: pytest.FixtureRequest) -> None:
    """One thread for tiny models: two workers with two each spend most of their time waiting for one another. The slow
    tests, some of which have large models, run alone."""
    set_threads_of_torch((os.cpu_count() or 1) if request.node.get_closest_marker("slow") else 1)
