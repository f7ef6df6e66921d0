"""Damaged and hostile files: each is refused in one line, runs no code, takes no time or memory, leaves no file."""

import contextlib
import pickle
import random
import resource
import signal
import time
import warnings
from pathlib import Path

import pytest

from tests.models import make_config
from tests.reference import random_reference, torch
from tests.weights.fuzzer import Fuzzer
from tests.weights.fuzzer_pickles import MARKER

SECONDS = 10  # for one file
MEMORY = 512 << 20  # bytes of address space beyond what the process has when the test begins

SMALL = {"layers": 1, "width": 16, "heads": 1}
TINY = make_config(
    {"embed_dim": 16},
    vision={"image_size": 8, "patch_size": 4, "layers": 1, "width": 16, "attn_pooler_queries": 4},
    text={**SMALL, "context_length": 5, "vocab_size": 20},
    multimodal={**SMALL, "context_length": 5},
)


@contextlib.contextmanager
def limits():
    """Cap the address space; raise in this process when a file takes too long."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))

    def too_long(signum, frame):
        raise TimeoutError(f"took more than {SECONDS} s")

    handler = signal.signal(signal.SIGALRM, too_long)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def run(numbers, convert, tmp_path, capsys):
    state = random_reference(TINY).state_dict()
    state = {name: tensor.clone() for name, tensor in state.items()}
    sources, target = tmp_path / "sources", tmp_path / "out"
    sources.mkdir()
    fuzzer = Fuzzer(state, sources)
    for data, name in ((fuzzer.bin, "ok.bin"), (fuzzer.safetensors, "ok.safetensors")):
        (sources / name).write_bytes(data)  # the undamaged files convert, so it is the damage that is refused
        assert convert("--source", sources / name, "--target", tmp_path / f"{name}.ckpt") == 0
        (sources / name).unlink()
    capsys.readouterr()
    failures, slowest = [], 0.0
    with limits(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in numbers:
            kind, path = fuzzer.make(number)
            began = time.perf_counter()
            signal.alarm(SECONDS)
            try:
                code = convert("--source", path, "--target", target)
            except BaseException as error:
                code = repr(error)[:200]
            signal.alarm(0)
            slowest = max(slowest, time.perf_counter() - began)
            out, err = capsys.readouterr()
            one_line = err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n")
            if code != 2 or not one_line or out or target.exists():
                failures.append(f"{number} {kind} {path.name}: {code} {err[:300]!r}")
            assert not (sources / MARKER).exists(), f"{number} {kind}: ran code"
            if path.is_file():
                path.unlink()
    assert not failures, "\n".join(failures[:20])
    return slowest


@pytest.mark.graphs
def test_fuzzer_files_are_refused(convert, tmp_path, capsys):
    slowest = run(range(300), convert, tmp_path, capsys)
    assert slowest < SECONDS


@pytest.mark.slow
def test_a_thousand_fuzzer_files_are_refused(convert, tmp_path, capsys):
    slowest = run(range(1000), convert, tmp_path, capsys)
    with capsys.disabled():
        print(f"\n1,000 damaged or hostile files refused, the slowest in {slowest:.2f} s")


def test_the_code_in_the_hostile_pickles_would_run(tmp_path):
    """The fuzzer's pickles do run code where nothing stops them, so the test above tests something."""
    fuzzer = Fuzzer({"a": torch.ones(16), "text.token_embedding.weight": torch.ones(16)}, tmp_path)
    ran = 0
    for seed in range(100):
        suffix, data = fuzzer.kind_pickle_runs_code(random.Random(seed))
        if suffix == ".pt" and b"touch" in data:  # the bare pickles
            with contextlib.suppress(Exception):
                pickle.loads(data)
            ran += (tmp_path / MARKER).exists()
            (tmp_path / MARKER).unlink(missing_ok=True)
    assert ran > 5
