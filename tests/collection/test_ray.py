"""Collections on a Ray cluster of two nodes on this machine: workers, drivers and a node are killed, and the files
written are byte for byte those of a quiet run in one process."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

import inference
from mindone_coca.collection.worker import Order
from tests.collection.clips import make_collection
from tests.collection.test_kills import ROOT, WORK, check, journal_lines, listed, output_files

pytest.importorskip("ray", reason="Ray is not installed: pip install mindone-coca[ray] -c constraints-ray.txt")

pytestmark = pytest.mark.graphs

NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 << 20}
# in the processes of the cluster: a file whose name begins with "poison" ends the process that opens it
HOOK = """
import os, sys

def hook(event, arguments):
    if event == "open" and os.path.basename(str(arguments[0])).startswith("poison"):
        os.abort()

sys.addaudithook(hook)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator:
    from ray.cluster_utils import Cluster

    hook = tmp_path_factory.mktemp("hook")
    (hook / "sitecustomize.py").write_text(HOOK)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(hook), str(ROOT)]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")
        cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        cluster.add_node(**NODE)
        yield cluster
        cluster.shutdown()


def start(arguments: list[str]) -> subprocess.Popen:
    with open(Path(arguments[-1]).with_suffix(".log"), "ab") as log:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "inference.py"), *arguments[:-1], arguments[-1]],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=log,
        )


def workers() -> list[psutil.Process]:
    """The processes that caption, of the cluster that this process began."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::Worker"):
                found.append(process)
        except psutil.Error:  # it has ended meanwhile
            continue
    return found


def wait_for(folder: Path, lines: int, process: subprocess.Popen) -> bool:
    """Whether the journal got this many lines before the driver ended."""
    while process.poll() is None:
        if len(journal_lines(folder)) >= lines:
            return True
        time.sleep(0.02)
    return False


def kill_worker(chance: random.Random) -> bool:
    if found := workers():
        victim = chance.choice(found)
        victim.kill()
        return True
    return False


def test_worker_driver_and_node_killed(cluster, tmp_path, model_arguments, capfd):
    readable, broken = make_collection(tmp_path / "in", good=9, damaged=3)
    arguments = [*model_arguments, *WORK, "--batch_size", "1", "--video_path", str(tmp_path / "in")]
    assert inference.main([*arguments, "--output_dir", str(tmp_path / "quiet")]) == 1
    errors = capfd.readouterr().err
    out = tmp_path / "ray"
    on_ray = [*arguments, "--ray", cluster.address, "--output_dir", str(out)]

    node = cluster.list_all_nodes()[1]
    driver = start(on_ray)
    assert wait_for(out, 1, driver)
    assert kill_worker(random.Random(1))
    assert wait_for(out, 4, driver)
    driver.kill()
    driver.wait()
    before = len(journal_lines(out))
    assert before < len(readable) + len(broken)

    assert inference.main([*on_ray[:-2], "--output_dir", str(out), "--dry_run"]) == 0
    shown = dict(line.split("\t") for line in capfd.readouterr().out.splitlines())
    left = len(readable) + len(broken) - before
    assert shown == {"files": "12", "done before": str(before), "groups": str(left), "workers": "2"}

    driver = start(on_ray)
    assert wait_for(out, before + 1, driver)
    cluster.remove_node(node, allow_graceful=False)
    assert driver.wait(timeout=120) == 1
    said = out.with_suffix(".log").read_text()
    assert "a worker died; " in said and "will be done again" in said and "captions/s" in said
    check(readable, broken, tmp_path / "quiet", out, errors)


def test_a_file_that_ends_its_reader_is_named_and_a_node_that_joins_gets_work(
    cluster, tmp_path, model_arguments, capfd
):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b", "d", "z"):
        Image.effect_noise((60, 60), 10 * ord(name)).save(folder / f"{name}.png")
    (folder / "poison.png").write_bytes(b"no picture")  # which is all that a quiet run sees of it
    arguments = [*model_arguments, "--video_path", str(folder), "--output_dir"]
    assert inference.main([*arguments, str(tmp_path / "quiet")]) == 1
    if len(cluster.list_all_nodes()) < 2:
        cluster.add_node(**NODE)
    capfd.readouterr()
    assert inference.main([*arguments, str(tmp_path / "ray"), "--ray", cluster.address]) == 1
    errors = capfd.readouterr().err
    assert f"error: {folder / 'poison.png'}: 2 processes died with it alone" in errors
    quiet, ray = (json.loads((tmp_path / name / "captions.json").read_text())["results"] for name in ("quiet", "ray"))
    assert [row["path"] for row in ray if row["error"]] == [str(folder / "poison.png")]
    assert [row for row in ray if not row["error"]] == [row for row in quiet if not row["error"]]
    assert len(quiet) == 5


def test_a_node_that_lacks_something_is_named_and_weights_are_shipped(
    cluster, tmp_path, model_arguments, capfd, monkeypatch
):
    from mindone_coca.collection import ray as engine

    Image.new("RGB", (60, 60), "teal").save(tmp_path / "a.png")
    arguments = [*model_arguments, "--ray", cluster.address, "--video_path", str(tmp_path / "a.png")]
    monkeypatch.setattr(engine, "versions", lambda: ("9.9", "2.10.0"))
    assert inference.main(arguments) == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert all(line.startswith("error: node ") and "is installed there" in line for line in errors) and errors
    monkeypatch.undo()

    # weights where only this process has them
    hidden = tmp_path / "hidden/coca.safetensors"
    monkeypatch.setattr(engine, "Order", lambda work, *more: Order(replace(work, weights=hidden), *more))
    assert inference.main([*arguments, "--ray_ship_weights"]) == 0
    assert len(capfd.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere.invalid:6379"])
def test_no_cluster_there(tmp_path, model_arguments, capfd, address):
    Image.new("RGB", (60, 60), "teal").save(tmp_path / "a.png")
    capfd.readouterr()
    assert inference.main([*model_arguments, "--ray", address, "--video_path", str(tmp_path / "a.png")]) == 2
    errors = capfd.readouterr().err.splitlines()
    assert next(line for line in errors if line.startswith("error: ")).startswith(f"error: --ray {address}: no cluster")


@pytest.mark.slow
@pytest.mark.parametrize("work", [WORK, ["--output_format", "all", "--save_features"]], ids=["segments", "middle"])
def test_two_hundred_clips_five_workers_three_drivers_a_node(
    cluster, tmp_path_factory, tmp_path, model_arguments, capfd, work
):
    folder = Path(tmp_path_factory.getbasetemp()) / "two_hundred"
    readable, broken = make_collection(folder, good=180, damaged=20) if not folder.exists() else listed(folder)
    if len(cluster.list_all_nodes()) < 2:
        cluster.add_node(**NODE)
    arguments = [*model_arguments, *work, "--video_path", str(folder)]
    assert inference.main([*arguments, "--output_dir", str(tmp_path / "quiet")]) == 1
    errors = capfd.readouterr().err
    out, chance = tmp_path / "ray", random.Random()
    on_ray = [*arguments, "--ray", cluster.address, "--output_dir", str(out)]
    events = ["worker"] * 5 + ["driver"] * 3 + ["node"]
    chance.shuffle(events)
    driver = start(on_ray)
    for number, event in enumerate(events):
        assert wait_for(out, 1 + number * 18 + chance.randrange(15), driver)
        time.sleep(chance.uniform(0, 0.3))
        if event == "worker":
            while not kill_worker(chance):
                time.sleep(0.1)
        elif event == "driver":
            driver.kill()
            driver.wait()
            driver = start(on_ray)
        else:
            cluster.remove_node(cluster.list_all_nodes()[1], allow_graceful=False)
            cluster.add_node(**NODE)  # which joins late
    assert driver.wait(timeout=600) == 1
    print(f"{', '.join(events)}; {out.with_suffix('.log').read_text().splitlines()[-3]}")
    check(readable, broken, tmp_path / "quiet", out, errors)
    assert output_files(out)
