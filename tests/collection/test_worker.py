"""A worker by itself, without Ray: what its machine lacks is one line, and what it gives is plain data."""

import inspect
import os
import pickle
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mindone_coca import device
from mindone_coca.captioning.options import CaptionOptions
from mindone_coca.collection.run import Output, work_of
from mindone_coca.collection.worker import Device, Order, Worker, versions
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
