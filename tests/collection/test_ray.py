"""Collections on a Ray cluster of two nodes on this machine: workers, drivers and a node are killed, and the files
written are byte for byte those of a quiet run in one process."""

import csv
import html
import io
import logging
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

import inference
from mindone_coca.files import user_cache
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


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere.invalid:6379"])
def test_no_cluster_there(tmp_path, model_arguments, capfd, address):
    """Comes first: from then on this process is joined to a cluster."""
    Image.new("RGB", (60, 60), "teal").save(tmp_path / "a.png")
    capfd.readouterr()
    assert inference.main([*model_arguments, "--ray", address, "--video_path", str(tmp_path / "a.png")]) == 2
    errors = capfd.readouterr().err.splitlines()
    assert next(line for line in errors if line.startswith("error: ")).startswith(f"error: --ray {address}: no cluster")


@pytest.fixture(scope="module", autouse=True)
def without_token() -> Iterator[None]:
    """Whether this user has a token for clusters must not matter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        yield


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator:
    import ray
    from ray.cluster_utils import Cluster

    hook = tmp_path_factory.mktemp("hook")
    (hook / "sitecustomize.py").write_text(HOOK)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(hook), str(ROOT)]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")
        cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        cluster.add_node(**NODE)
        # once for all runs within this process, which find it joined; those in others join by themselves
        ray.init(cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        yield cluster
        ray.shutdown()
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


def csv_cell(text: str) -> str:
    file = io.StringIO()
    csv.writer(file).writerow([text])
    return file.getvalue().strip()


def kill_worker(chance: random.Random) -> bool:
    if found := workers():
        victim = chance.choice(found)
        victim.kill()
        return True
    return False


def test_worker_driver_and_node_killed_and_a_file_that_ends_its_reader(cluster, tmp_path, model_arguments, capfd):
    """All in one run, for each process that starts costs seconds; the file comes last."""
    folder = tmp_path / "in"
    readable, broken = make_collection(folder, good=6, damaged=2)
    poison = folder / "with spaces/poison.png"
    poison.parent.mkdir()
    poison.write_bytes(b"no picture")  # which is all that a quiet run sees of it
    arguments = [*model_arguments, *WORK, "--batch_size", "1", "--video_path", str(folder)]
    assert inference.main([*arguments, "--output_dir", str(tmp_path / "quiet")]) == 1
    quiet_errors = capfd.readouterr().err
    out = tmp_path / "ray"
    on_ray = [*arguments, "--ray", cluster.address, "--output_dir", str(out)]

    node = cluster.list_all_nodes()[1]
    driver = start([*on_ray[:-2], "--ray_ship_weights", *on_ray[-2:]])
    assert wait_for(out, 1, driver)
    [shipped] = user_cache().glob("shipped/*/coca.safetensors")
    assert shipped.read_bytes() == Path(model_arguments[3]).read_bytes()
    assert kill_worker(random.Random(1))
    log = out.with_suffix(".log")
    while "a worker died; " not in log.read_text() and driver.poll() is None:
        time.sleep(0.02)
    assert wait_for(out, 3, driver)
    driver.kill()
    driver.wait()
    before, count = len(journal_lines(out)), len(readable) + len(broken) + 1
    assert 3 <= before < count
    assert "will be done again" in log.read_text()

    assert inference.main([*on_ray, "--dry_run"]) == 0
    shown = dict(line.split("\t") for line in capfd.readouterr().out.splitlines())
    assert shown == {"files": str(count), "done before": str(before), "groups": str(count - before), "workers": "2"}

    def remove_node() -> None:
        while len(journal_lines(out)) == before:
            time.sleep(0.02)
        cluster.remove_node(node, allow_graceful=False)

    removal = threading.Thread(target=remove_node)
    removal.start()
    assert inference.main(on_ray) == 1
    removal.join()
    assert len(cluster.list_all_nodes()) == 1
    errors = capfd.readouterr().err
    assert "captions/s" in errors
    named = [line for line in errors.splitlines() if line.startswith("error: ") and str(poison) in line]
    assert len(named) == 1 and named[0].startswith(f"error: {poison}: 2 processes died with it alone")
    # what is written differs in why that file failed, and in nothing else
    [here] = (line.removeprefix("error: ") for line in quiet_errors.splitlines() if f"error: {poison}" in line)
    there = named[0].removeprefix("error: ")
    forms = {".csv": csv_cell, ".html": html.escape}
    for path in out.glob("captions.*"):
        form = forms.get(path.suffix, str)
        path.write_bytes(path.read_bytes().replace(form(there).encode(), form(here).encode()))
    check(readable, [*broken, poison], tmp_path / "quiet", out, quiet_errors)


def test_a_node_that_lacks_something_is_named(cluster, tmp_path, model_arguments, capfd, monkeypatch):
    from mindone_coca.collection import ray as engine

    Image.new("RGB", (60, 60), "teal").save(tmp_path / "a.png")
    arguments = [*model_arguments, "--ray", cluster.address, "--ray_workers", "1", "--video_path"]
    arguments.append(str(tmp_path / "a.png"))
    monkeypatch.setattr(engine, "versions", lambda: ("9.9", "2.10.0"))
    assert inference.main(arguments) == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert all(line.startswith("error: node ") and "is installed there" in line for line in errors) and errors


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
