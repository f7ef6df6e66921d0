"""Work of several seconds says what it is: once, on standard error, in programs alone."""

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mindone_coca import create_model, graph_cache, waiting
from mindone_coca.factory import save_model
from mindone_coca.training.job import CocaJob
from mindone_coca.waiting import Wait
from mindone_coca.weights.load import parameter_entries
from tests.training.runs import TINY, train_here, write_config

ROOT = Path(__file__).parent.parent


@pytest.fixture
def shown(monkeypatch):
    """Lines are shown, after a twentieth of a second already."""
    monkeypatch.setattr(waiting, "PATIENCE", 0.05)
    level, handlers, propagate = waiting.log.level, list(waiting.log.handlers), waiting.log.propagate
    waiting.show()
    yield
    waiting.log.level, waiting.log.handlers, waiting.log.propagate = level, handlers, propagate
    waiting.log.setLevel(level)


def test_what_takes_long_is_said_once(shown, capsys):
    wait = Wait("loading it")
    for _ in range(2):
        with wait:
            time.sleep(0.15)
            assert capsys.readouterr() == ("", "" if wait.patience < 0 else "loading it\n")


def test_what_is_quick_says_nothing(shown, capsys):
    with Wait("loading it"):
        pass
    time.sleep(0.1)
    assert capsys.readouterr() == ("", "")


def test_the_patience_is_for_all_parts_together(shown, capsys):
    wait = Wait("compiling")
    for _ in range(4):
        with wait:
            time.sleep(0.03)
    assert capsys.readouterr() == ("", "compiling\n")


def test_a_failure_ends_it(shown, capsys):
    with pytest.raises(KeyError), Wait("loading it"):
        raise KeyError
    time.sleep(0.1)
    assert capsys.readouterr() == ("", "")


def test_a_library_is_quiet(shown, monkeypatch, capfd):
    monkeypatch.setattr(waiting, "PATIENCE", 0.01)
    waiting.log.handlers, waiting.log.propagate = [], True
    waiting.log.setLevel(logging.NOTSET)
    with Wait("loading it"):
        time.sleep(0.05)
    assert capfd.readouterr() == ("", "")


def test_compiling_names_the_folder_and_taking_from_it_does_too(tmp_path):
    with graph_cache._Session(tmp_path).graph("key") as wait:
        assert wait.line == f"compiling graphs, once; they are kept in {tmp_path}"
        (Path(os.environ["MS_COMPILER_CACHE_PATH"]) / "rank_0/graph_cache/compile_cache_0.mindir").write_bytes(b"graph")
    with graph_cache._Session(tmp_path).graph("key") as wait:
        assert wait.line == f"loading compiled graphs from {tmp_path}"


@pytest.mark.graphs
def test_training_says_that_it_validates(shown, tmp_path, monkeypatch, capsys):
    report = {"loss": 1.0, "updated": 1.0}

    def slow(result):
        return lambda *_: [time.sleep(0.2), result][1]

    monkeypatch.setattr(CocaJob, "run", lambda *_: None)
    monkeypatch.setattr(CocaJob, "report", slow(report))
    monkeypatch.setattr(CocaJob, "validate", slow(report))
    monkeypatch.setattr(CocaJob, "write_page", slow(None))
    config = write_config(tmp_path, output={"dir": str(tmp_path / "run"), "val_every": 2})
    train_here(config, f"data.val={tmp_path / 'digits' / 'val.csv'}", "train.max_steps=4")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert [line for line in printed.err.splitlines() if line.startswith("validating")] == [
        "validating at step 2",
        "validating at step 4",
    ]


PROGRAM = """
import sys
from mindone_coca import waiting
waiting.PATIENCE = 0.05
import inference
sys.exit(inference.main(sys.argv[1:]))
"""


@pytest.mark.graphs
def test_a_program_says_what_it_waits_for(tmp_path):
    """In a process of its own: MindSpore might hold Python's lock while it compiles."""
    model = create_model(TINY)
    save_model(tmp_path / "tiny.safetensors", model.config, parameter_entries(model))
    command = [sys.executable, "-c", PROGRAM, "--model_path", str(tmp_path / "tiny.safetensors")]
    command += ["--video_path", "assets/demo.mp4", "--generation_type", "top_k", "--seq_len", "4", "--min_seq_len", "1"]
    environment = {**os.environ, "MINDONE_COCA_CACHE": str(tmp_path / "graphs")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("\n") == 1, done.stderr
    lines = [line.strip() for line in done.stderr.splitlines()]
    said = ["starting MindSpore", f"compiling graphs, once; they are kept in {tmp_path / 'graphs'}"]
    assert [line for line in lines if line in said] == said
