"""A worker by itself, without Ray: what its machine lacks is one line, and what it gives is plain data."""

import argparse
import inspect
import os
import pickle
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mindone_coca import device
from mindone_coca.captioning.options import CaptionOptions
from mindone_coca.cli.collections import with_batch_of_workers
from mindone_coca.collection.cluster import Cluster, why_no_start
from mindone_coca.collection.run import Output, work_of
from mindone_coca.collection.worker import Device, Order, Worker, versions
from mindone_coca.errors import InputError
from mindone_coca.model.families import load_model_config


@pytest.fixture
def order(model_folder, monkeypatch, tmp_path) -> Order:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # a worker sets it
    monkeypatch.setenv("MINDONE_COCA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(os.getcwd())
    config = load_model_config(model_folder / "config.yaml")
    options = CaptionOptions(generation={"seq_len": 8, "min_seq_len": 3})
    work = work_of(config, model_folder / "coca.safetensors", None, options, Output())
    return Order(work, Device(), None, versions(), 1)


def test_workers_are_told_all_that_a_device_can_be():
    """But its number: a worker sees one device alone."""
    arguments = inspect.signature(device.configure).parameters
    defaults = {name: parameter.default for name, parameter in arguments.items() if name != "device_id"}
    assert asdict(Device()) == defaults


def test_what_a_machine_lacks(order, tmp_path):
    package, mindspore = order.versions
    elsewhere = tmp_path / "coca.safetensors"
    moved = replace(order, work=replace(order.work, weights=elsewhere))
    for wrong, words in (
        (replace(order, versions=("9.9", mindspore)), f"mindone_coca {package} is installed there"),
        (replace(order, versions=(package, "9.9")), f"MindSpore {mindspore} is installed there"),
        (replace(order, folder=str(tmp_path / "gone")), "gone: the working directory is not there"),
        (moved, f"{elsewhere}: no weights there; put them where all nodes see them, or give --ray_ship_weights"),
    ):
        problem = Worker(1).start(wrong)
        assert problem is not None and words in problem and "\n" not in problem
    content = bytearray(order.work.weights.read_bytes())
    content[-1] ^= 1
    elsewhere.write_bytes(content)
    assert f"{elsewhere}: other weights there" in str(Worker(1).start(moved))
    shipped = np.frombuffer(bytes(content), np.uint8)
    assert "other weights there" in str(Worker(1).start(order, shipped))


@pytest.mark.graphs
def test_groups_in_records_out(order, tmp_path):
    paths = [str(tmp_path / f"{number}.png") for number in range(3)]
    for path in paths[:2]:
        Image.effect_noise((60, 60), 60).save(path)
    Path(paths[2]).write_bytes(b"no picture")
    shipped = np.fromfile(order.work.weights, np.uint8)
    worker = Worker(1)
    hidden = replace(order, work=replace(order.work, weights=tmp_path / "coca.safetensors"))
    assert worker.start(pickle.loads(pickle.dumps(hidden)), shipped) is None
    done = worker.caption(paths, {paths[1]: "is not to be read"})
    assert [record["error"] is None for record in done.records] == [True, False, False]
    assert done.records[1]["error"] == "is not to be read" and done.records[2]["error"].startswith(paths[2])
    [segment] = done.records[0]["segments"]
    assert segment["caption"] and len(pickle.dumps(done)) < 2000  # no frames travel


class Nodes:
    """What is asked of Ray about a cluster."""

    def __init__(self, *resources: dict[str, int]) -> None:
        self._nodes = [
            {"Alive": True, "NodeID": f"{number}", "NodeManagerHostname": f"host-{number}", "Resources": has}
            for number, has in enumerate(resources)
        ]

    def nodes(self) -> list[dict]:
        return self._nodes


@pytest.mark.parametrize(
    ("target", "nodes", "batch"),
    [
        ("auto", [{"CPU": 8}], 8),
        ("auto", [{"CPU": 8}, {"CPU": 96, "NPU": 8}], 64),
        ("CPU", [{"CPU": 8, "NPU": 8}], 8),
        ("Ascend", None, 64),
        ("GPU", None, 64),
    ],
)
def test_the_batch_is_that_of_the_workers_devices(monkeypatch, target, nodes, batch):
    """This process has a CPU alone. A cluster is asked only where the target does not say it."""
    joined = []

    @contextmanager
    def join(self):
        assert nodes is not None
        self._ray = Nodes(*nodes)
        joined.append("yes")
        yield self._ray
        joined.append("left")

    monkeypatch.setattr(Cluster, "joined", join)
    arguments = argparse.Namespace(ray="auto", device_target=target, ray_workers=None)
    with ExitStack() as stack:
        found = with_batch_of_workers(CaptionOptions(), arguments, stack)
        assert found.batch_size == batch and joined == ["yes"] * (target == "auto")
    assert len(joined) == 2 * (target == "auto")
    given = CaptionOptions(batch_size=3)
    assert with_batch_of_workers(given, arguments, stack) is given


def test_a_token_for_clusters_is_mentioned_where_there_is_one(monkeypatch, tmp_path):
    """Ray makes it with the first cluster of a machine and asks for it from then on; who joins has to say so."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install mindone-coca[ray] -c constraints-ray.txt")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)

    def refusal() -> str:
        with pytest.raises(InputError) as error, Cluster("127.0.0.1:1", "auto", None).joined():
            pass
        return str(error.value)

    assert refusal().endswith("start one with `ray start --head`")
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("token")
    assert refusal().endswith("or set RAY_AUTH_MODE=token, if there is one that asks for your token")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert refusal().endswith("start one with `ray start --head`")


def test_why_a_worker_could_not_even_begin():
    missing = "ray::Worker.__init__()\nModuleNotFoundError: No module named 'mindone_coca'\n"
    assert why_no_start(RuntimeError(missing)).startswith("mindone_coca is not installed there; pip install")
    assert why_no_start(RuntimeError("a\nb: 137\n\n")) == "its workers end at their start (b: 137)"
