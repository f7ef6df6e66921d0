"""Processes that something else than msrun started: which join on this CPU, and which are refused."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import pytest

from mindone_coca import device
from mindone_coca.cli import caption, evaluate
from mindone_coca.collection.plan import Shard
from mindone_coca.distributed import Ranks, start_ranks
from mindone_coca.errors import InputError
from mindone_coca.launcher import NOT_JOINED, Launch, find_launch
from mindone_coca.tasks.settings import load_train_config
from mindone_coca.training.trainer import Trainer
from tests.training.runs import free_port, write_config

ROOT = Path(__file__).parents[1]
START_BY_MSRUN = "start them by msrun"
VARIABLES = (
    *("MS_WORKER_NUM", "MS_ROLE", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "RANK_TABLE_FILE", "DEVICE_ID"),
    *("MINDSPORE_HCCL_CONFIG_PATH", *NOT_JOINED, *NOT_JOINED.values()),
)
# by the one that starts them: what it sets for process number 1 of 2, and why that cannot be joined here
REFUSED = {
    "mpirun": (
        {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"},
        f"OMPI_COMM_WORLD_SIZE promises 2 processes, which MindSpore does not join on the CPU; {START_BY_MSRUN}",
    ),
    "rank table": (
        {"RANK_TABLE_FILE": "TABLE", "RANK_ID": "1"},
        f"RANK_TABLE_FILE promises 2 processes, which MindSpore does not join on the CPU; {START_BY_MSRUN}",
    ),
    "a loop in a shell": (
        {"RANK_SIZE": "2", "RANK_ID": "1"},
        f"RANK_SIZE promises 2 processes, but nothing by which they could be joined; {START_BY_MSRUN}, or unset it",
    ),
    "ModelArts": (
        {"MA_NUM_HOSTS": "2"},
        f"MA_NUM_HOSTS promises 2 processes, but nothing by which they could be joined; {START_BY_MSRUN}, or unset it",
    ),
    "torchrun": (
        {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"},
        f"WORLD_SIZE promises 2 processes, but nothing by which they could be joined; {START_BY_MSRUN}, or unset it",
    ),
    "srun": (
        {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"},
        "SLURM_STEP_NUM_TASKS promises 2 processes, but nothing by which they could be joined; "
        f"{START_BY_MSRUN}, or unset it",
    ),
    "another MPI": (
        {"PMI_SIZE": "2", "PMI_RANK": "1"},
        f"PMI_SIZE promises 2 processes, but nothing by which they could be joined; {START_BY_MSRUN}, or unset it",
    ),
    "msrun's number alone": (
        {"MS_WORKER_NUM": "2"},
        f"MS_WORKER_NUM promises 2 processes, but MS_ROLE, MS_SCHED_HOST, MS_SCHED_PORT is not set; {START_BY_MSRUN}",
    ),
}
SLOW = (
    "rank table",
    "a loop in a shell",
    "ModelArts",
    "msrun's number alone",
    "torchrun",
    "srun",
)  # with real processes
ON_ASCEND = {"mpirun": None, "rank table": None}  # joined there; not run here


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """Sets what a launcher sets, and nothing else of that kind."""

    def change(variables: dict[str, str]) -> None:
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            if value == "TABLE":
                table = {"server_list": [{"device": [{"rank_id": "0"}, {"rank_id": "1"}]}]}
                (tmp_path / "table.json").write_text(json.dumps(table))
                value = str(tmp_path / "table.json")
            monkeypatch.setenv(name, value)

    return change


def test_alone_without_any_of_them(environment):
    alone: list[dict[str, str]] = [
        *({}, {"MS_WORKER_NUM": "1"}, {"RANK_SIZE": "1"}, {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"}),
        {"RANK_SIZE": "1", "RANK_TABLE_FILE": "TABLE"},  # one device of those that the table lists
        {"SLURM_NTASKS": "8", "SLURM_PROCID": "0"},  # a batch script's own, of which there is one
    ]
    for variables in alone:
        environment(variables)
        assert start_ranks() == Ranks() and Shard.from_launcher() == Shard()


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_joined_is_refused_in_one_line(name, environment):
    variables, line = REFUSED[name]
    environment(variables)
    with pytest.raises(InputError) as caught:
        start_ranks()
    assert str(caught.value) == line
    launch = find_launch(os.environ)
    assert launch is not None
    assert launch.refusal("Ascend", os.environ) == ON_ASCEND.get(name, line)


@pytest.mark.parametrize("name", ["mpirun", "rank table", "a loop in a shell", "torchrun", "srun", "another MPI"])
def test_captions_need_no_joining(name, environment):
    """Each process of a collection does its own part."""
    environment(REFUSED[name][0])
    assert Shard.from_launcher() == Shard(1, 2)


def test_a_collection_on_ray_is_of_one_process(environment, capsys, tmp_path):
    environment(REFUSED["srun"][0])
    with pytest.raises(SystemExit):
        caption.main(["--video_path", "video.mp4", "--output_dir", str(tmp_path / "out"), "--ray"])
    assert "--ray: goes without a launcher, but SLURM_STEP_NUM_TASKS promises 2" in capsys.readouterr().err


def test_an_evaluation_is_of_one_process(environment, capsys, tmp_path):
    environment(REFUSED["mpirun"][0])
    assert evaluate.main(["captioning", "--data", "list.csv", "--output_dir", str(tmp_path / "out")]) == 2
    several = "OMPI_COMM_WORLD_SIZE promises 2 processes"
    assert capsys.readouterr().err == f"error: one process evaluates, but {several}; start one\n"
    assert not list(tmp_path.iterdir())


def test_wrong_variables_are_named(environment, tmp_path):
    for name, value in (("MS_WORKER_NUM", "two"), ("RANK_TABLE_FILE", str(tmp_path / "none.json"))):
        environment({name: value})
        with pytest.raises(InputError, match=f"^{name}: "):
            start_ranks()
    environment({"RANK_SIZE": "2", "RANK_ID": "2"})
    with pytest.raises(InputError, match=r"^RANK_ID 2: RANK_SIZE promises 2 processes only"):
        find_launch(os.environ)
    environment({"WORLD_SIZE": "2"})
    with pytest.raises(InputError, match=r"^WORLD_SIZE promises 2 processes, but RANK is not set; give --shard i/n$"):
        Shard.from_launcher()
    assert "RANK_ID is not set" in str(Launch("RANK_TABLE_FILE", 2, None).refusal("Ascend", {}))
    assert Launch("RANK_SIZE", 2, 0).refusal("Ascend", {"MS_SIMULATION_LEVEL": "1"}) is None


def servers(*ranks: str) -> str:
    return json.dumps({"server_list": [{"device": [{"rank_id": rank} for rank in ranks]}]})


TABLES = {
    "no JSON": ('{"server_list": [', "no rank table can be read there"),
    "a list": ("[]", "no rank table can be read there"),
    "no servers": (servers(), r"must be 0, 1 and so on, each once, got \[\]"),
    "a rank twice": (servers("0", "0"), r"got \[0, 0\]"),
    "a rank that is none": (servers("0", "one"), "no rank table can be read there"),
    "more than RANK_SIZE": (servers("0", "1", "2"), "lists 3 devices, but RANK_SIZE is 2"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_rank_table_that_is_none_is_named(name, environment, tmp_path):
    text, message = TABLES[name]
    (tmp_path / "wrong.json").write_text(text)
    environment({"RANK_TABLE_FILE": str(tmp_path / "wrong.json"), "RANK_ID": "0", "RANK_SIZE": "2"})
    with pytest.raises(InputError, match=f"^RANK_TABLE_FILE: {tmp_path / 'wrong.json'}: .*{message}"):
        find_launch(os.environ)


def test_a_rank_table_without_this_rank_is_refused(environment):
    environment({"RANK_TABLE_FILE": "TABLE", "RANK_ID": "2"})
    with pytest.raises(InputError, match=r"^RANK_ID 2: RANK_TABLE_FILE promises 2 processes only"):
        find_launch(os.environ)


def test_a_rank_table_of_the_older_form(environment, tmp_path):
    table = {"group_list": [{"instance_list": [{"devices": [{"device_id": "0"}, {"device_id": "1"}]}] * 2}]}
    (tmp_path / "older.json").write_text(json.dumps(table))
    environment({"RANK_TABLE_FILE": str(tmp_path / "older.json"), "RANK_ID": "3"})
    assert find_launch(os.environ) == Launch("RANK_TABLE_FILE", 4, 3)


def start_together(
    command: list[str], folder: Path, each: list[dict[str, str]], timeout: int = 300
) -> list[tuple[int, str, str]]:
    """Processes with these variables -> of each its exit code, standard output and error."""
    base = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    started = [
        subprocess.Popen(
            command,
            cwd=folder,
            env={**base, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for variables in each
    ]
    ended = [process.communicate(timeout=timeout) for process in started]
    return [(process.returncode, *printed) for process, printed in zip(started, ended)]


def cluster_of_two() -> list[dict[str, str]]:
    """What msrun sets for its scheduler and for two workers."""
    cluster = {"MS_WORKER_NUM": "2", "MS_SCHED_HOST": "127.0.0.1", "MS_SCHED_PORT": str(free_port())}
    roles = [{"MS_ROLE": "MS_SCHED"}] + [{"MS_ROLE": "MS_WORKER", "MS_NODE_ID": str(rank)} for rank in (0, 1)]
    return [{**cluster, **role} for role in roles]


JOIN = """
from mindone_coca import device
from mindone_coca.cli import caption
import numpy as np
from mindone_coca.distributed import start_ranks
from mindone_coca.training.labels import CaptionLabels

device.configure()
ranks = start_ranks()
print(ranks.rank, ranks.size, sorted(ranks.gather(10 + ranks.rank)))
label = CaptionLabels(ranks)
for tokens in ((4, 40), (40, 4), (3, 5)):  # of a caption on each of the two
    print(label((np.arange(64)[None] < tokens[ranks.rank]).astype(np.int32)).shape[1])
"""
LABELS = "47\n47\n5\n"


@pytest.mark.graphs
def test_the_variables_of_msrun_join_without_msrun(tmp_path):
    """MindSpore's dynamic cluster: a scheduler and two workers, from the environment alone. Their labels have one
    length, so that they compile the same graphs."""
    (tmp_path / "join.py").write_text(JOIN)
    done = start_together([sys.executable, "join.py"], tmp_path, cluster_of_two())
    assert [code for code, _, _ in done] == [0, 0, 0], done
    assert sorted(out for _, out, _ in done[1:]) == [f"{rank} 2 [10, 11]\n{LABELS}" for rank in (0, 1)], done


@pytest.mark.graphs
@pytest.mark.parametrize("name", ["mpirun", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_train_py_is_refused_in_both_processes(name, tmp_path):
    """From the environment alone: one line, exit code 2, and no folder."""
    config = write_config(tmp_path, train={"max_steps": 1})
    table = {"server_list": [{"device": [{"rank_id": "0"}, {"rank_id": "1"}]}]}
    (tmp_path / "table.json").write_text(json.dumps(table))
    variables, line = REFUSED[name]
    variables = {key: str(tmp_path / "table.json") if value == "TABLE" else value for key, value in variables.items()}
    ranks = [key for key in variables if key.endswith("RANK") or key == "RANK_ID"]
    each = [{**variables, **dict.fromkeys(ranks, rank)} for rank in ("0", "1")]
    done = start_together([sys.executable, str(ROOT / "train.py"), "-c", str(config)], tmp_path, each)
    for code, out, errors in done:
        assert (code, out) == (2, "") and errors.splitlines()[-1] == f"error: {line}", errors
        assert "Traceback" not in errors
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.graphs
def test_train_py_joins_by_the_variables_of_msrun(tmp_path):
    """A scheduler and two workers, from the environment alone, train one model in one folder."""
    config = write_config(tmp_path, train={"max_steps": 2, "batch_size": 4})
    done = start_together([sys.executable, str(ROOT / "train.py"), "-c", str(config)], tmp_path, cluster_of_two())
    assert [code for code, _, _ in done] == [0, 0, 0], done
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2
    assert (tmp_path / "run" / "final.safetensors").is_file()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_run_of_two_processes_that_are_refused_writes_nothing(rank, environment, tmp_path):
    """Before, both trained as rank 0 and wrote one folder."""
    environment({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": str(rank)})
    config = load_train_config(write_config(tmp_path, train={"max_steps": 1}), ())
    with pytest.raises(InputError, match=re.escape(REFUSED["mpirun"][1])):
        Trainer(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("variable", "asked", "chosen"), [("3", None, 3), ("3", 5, 5), (None, None, None)])
def test_the_device_is_the_launcher_s(variable, asked, chosen, environment, monkeypatch):
    environment({} if variable is None else {"DEVICE_ID": variable})
    monkeypatch.setattr(ms.device_context.ascend, "is_available", lambda: True)
    calls = []
    monkeypatch.setattr(ms, "set_device", lambda *arguments: calls.append(arguments))
    device.configure("Ascend", asked)
    assert calls == [("Ascend", chosen)]


COMPILE = """
import numpy as np
from mindone_coca import create_model, device, graph_cache
from mindone_coca.distributed import start_ranks
from mindone_coca.training.optim import AdamW
from mindone_coca.training.settings import LossConfig, OptimConfig
from mindone_coca.training.step import TrainStep
from tests.training.runs import TINY

device.configure()
ranks = start_ranks()
model = create_model({**TINY, "text_cfg": {**TINY["text_cfg"], "context_length": 64},
                      "multimodal_cfg": {**TINY["multimodal_cfg"], "context_length": 64}})
compiled = graph_cache._Session.graph

def say_key(self, key):  # of all that shapes the graph
    print(key)
    return compiled(self, key)

graph_cache._Session.graph = say_key
# a device's number stands in its graphs, which label their own rows, and so in the key, as does its environment
graph_cache._environment = str
TrainStep.__init__.__globals__["keep_graphs"] = lambda cells, *_: [graph_cache.tag_cell(cell, "") for cell in cells]
step = TrainStep(model, LossConfig(), AdamW(model, OptimConfig(), ranks), ranks)
for tokens in ((4, 40), (40, 4), (4, 4), (3, 40)):  # of a caption on each of the two
    text = (np.arange(64)[None] < tokens[ranks.rank]).astype(np.int32) * 7
    print(f"{step([(np.zeros((1, 3, 16, 16), np.float32), text)], 1e-3)['loss']:.5f}")
"""


@pytest.mark.slow
@pytest.mark.graphs
def test_two_processes_compile_the_same_graphs_in_the_same_order(tmp_path):
    """With captions of 4 and 40 tokens, now on the one, now on the other."""
    (tmp_path / "join.py").write_text(COMPILE)
    done = start_together([sys.executable, "join.py"], tmp_path, cluster_of_two())
    assert [code for code, _, _ in done] == [0, 0, 0], done
    first, second = (out.splitlines() for _, out, _ in done[1:])
    keys = [line for line in first if len(line) == 64]
    assert first == second and len(set(keys)) == len(keys) == 2 and len(first) == 2 + 4
