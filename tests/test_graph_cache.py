"""The store of compiled graphs: a second process takes from it, and no model ever meets another's graph."""

import functools
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import mindspore as ms
import pytest

from mindone_coca import graph_cache
from tests.models import make_config, one_layer

pytestmark = pytest.mark.graphs

ROOT = Path(__file__).parent.parent
PROGRAM = """
import json, sys
import numpy as np
import mindspore as ms
from mindone_coca import CoCa
from mindone_coca import graph_cache

for name in sys.argv[1:]:
    config, _, order = name.partition("/")
    ms.set_seed(1)
    model = CoCa(**json.loads(config))
    rng = np.random.default_rng(0)
    for parameter in model.get_parameters():
        parameter.set_data(ms.Tensor(rng.standard_normal(parameter.shape).astype(np.float32) * 0.3))
    images = rng.standard_normal((1, 3, 32, 32)).astype(np.float32)
    steps = [
        lambda: model.generate(images, sot_token_id=118, eos_token_id=119, seq_len=9, generation_type="top_k"),
        lambda: model.encode_text(np.arange(12)[None]),
    ]
    results = [step().asnumpy().astype(float).round(3).tolist() for step in (steps if not order else steps[::-1])]
    print(json.dumps(results if not order else results[::-1]))
print(json.dumps(sum(len(signatures) for signatures in graph_cache._seen.values())), file=sys.stderr)
"""


CONFIG = one_layer(make_config())
PLAIN, QUICK = json.dumps(CONFIG), json.dumps({**CONFIG, "quick_gelu": True})


# by -c, where MindSpore finds no program file; tests/test_inference.py runs one that is a file
def run(store: Path, *models: str) -> list:
    env = {**os.environ, "MINDONE_COCA_CACHE": str(store), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *models], env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_other_models_and_orders_never_meet_a_stale_graph(tmp_path):
    want_plain, want_quick = run(tmp_path / "one", PLAIN, QUICK)
    assert want_plain != want_quick
    store = tmp_path / "one"
    kept = sorted(store.iterdir())
    assert len(kept) > 6
    # the same names and shapes in another order, within and across models, from the filled store
    assert run(store, QUICK + "/reversed", PLAIN + "/reversed") == [want_quick, want_plain]
    assert sorted(store.iterdir()) == kept, "a graph was compiled again"
    for path in kept[::2]:
        path.unlink()
    kept[1].write_bytes(kept[1].read_bytes()[:100])  # cut short: compiled again
    assert run(store, PLAIN, QUICK) == [want_plain, want_quick]


def test_a_graph_under_another_number_than_expected_is_never_another_one_s(tmp_path):
    """MindSpore numbers the graphs of a process; who counts otherwise must find none, and count right again."""
    session = graph_cache._Session(tmp_path)
    folder = session.folder / "rank_0" / "graph_cache"
    for key, number in (("a", 0), ("b", 5), ("c", 6)):  # between the first two MindSpore compiled four by itself
        with session.graph(key):
            assert list(folder.iterdir()) == []  # nothing of earlier graphs
            (folder / f"compile_cache_{number}.mindir").write_text(key)
        assert (tmp_path / f"{key}.mindir").read_text() == key
    with session.graph("a"):
        assert [path.name for path in folder.iterdir()] == ["compile_cache_7.mindir"]
    assert session.count == 8


def test_an_unusable_store_only_costs_time(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert run(blocked, PLAIN)[0]


@pytest.fixture
def other_sessions(monkeypatch):
    """Sessions of this test alone: MindSpore holds on to the folder of the first one in a process."""
    monkeypatch.setattr(graph_cache, "_session", functools.cache(graph_cache._session.__wrapped__))


@pytest.mark.usefixtures("other_sessions")
def test_without_mindspores_private_name_nothing_is_kept_and_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("MINDONE_COCA_CACHE", str(tmp_path / "store"))
    monkeypatch.setattr(graph_cache, "_graph_api", None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert graph_cache._session() is None and graph_cache._session() is None
    [line] = [str(warning.message) for warning in caught]
    assert line == (
        f"compiled graphs cannot be kept (MindSpore {ms.__version__} keeps its own in another way): slower start-up"
    )
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(("homes", "found"), [(("graph", "common"), "graph"), (("common",), "common"), ((), None)])
def test_the_private_name_is_found_where_each_release_has_it(homes, found, monkeypatch):
    """mindspore.graph.api since 2.10, mindspore.common.api before."""
    modules = {f"mindspore.{home}.api": SimpleNamespace(entry_script_path="") for home in homes}

    def load(name: str) -> SimpleNamespace:
        if name not in modules:
            raise ModuleNotFoundError(name)
        return modules[name]

    monkeypatch.setattr(graph_cache.importlib, "import_module", load)
    assert graph_cache._private_api() is modules.get(f"mindspore.{found}.api")


@pytest.mark.usefixtures("other_sessions")
def test_off_the_cpu_the_store_is_used_where_it_is_named_and_knows_chip_and_cann(tmp_path, monkeypatch):
    monkeypatch.setattr(ms, "get_context", lambda name: "Ascend" if name == "device_target" else "")
    monkeypatch.setattr(ms.hal, "get_device_name", lambda: "Ascend910B4")
    toolkit = tmp_path / "aarch64-linux"
    toolkit.mkdir()
    monkeypatch.setenv("ASCEND_TOOLKIT_HOME", str(tmp_path))
    keys = []
    for version in ("8.3.RC1", "8.5.0"):
        (toolkit / "ascend_toolkit_install.info").write_text(f"version={version}\n")
        graph_cache._chip.cache_clear()
        keys.append(graph_cache._environment())
    assert keys[0] != keys[1] and all("Ascend910B4" in key for key in keys) and "version=8.5.0" in keys[1]
    for name in ("store", None):
        if name is None:
            monkeypatch.delenv("MINDONE_COCA_CACHE")
        else:
            monkeypatch.setenv("MINDONE_COCA_CACHE", str(tmp_path / name))
        graph_cache._session.cache_clear()
        assert (graph_cache._session() is None) == (name is None)
    graph_cache._chip.cache_clear()
