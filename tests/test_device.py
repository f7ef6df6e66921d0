"""What MindSpore prints by itself: nothing that a user cannot act on, here and where the package is a library."""

import os
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import pytest

import mindone_coca
from mindone_coca import device
from mindone_coca.cli import common
from mindone_coca.errors import InputError

ROOT = Path(__file__).parents[1]

# what is taken from the store of graphs makes MindSpore warn
LIBRARY = """
import mindone_coca
from mindone_coca import device, graph_cache
import mindspore as ms

device.ensure_configured()
for _ in range(2):
    graph_cache._session.cache_clear()  # as in another process
    cell = ms.nn.ReLU()
    graph_cache.tag_cell(cell, "a test")
    graph_cache.call(cell, ms.Tensor([1.0]))
try:
    device.configure("GPU")
except ValueError as error:
    print(error)
"""


def run(program: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name != "GLOG_v"}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=ROOT, env={**environment, **variables}, capture_output=True, text=True)


@pytest.mark.graphs
def test_a_library_is_as_quiet_as_the_programs(tmp_path):
    done = run(LIBRARY, MINDONE_COCA_CACHE=str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 1  # the graph was kept
    assert done.stderr == "" and done.returncode == 0
    assert done.stdout == "device_target GPU: not available here; choose another\n"


def test_the_user_s_own_level_stays():
    program = "import os, mindone_coca; print(os.environ['GLOG_v'])"
    assert [run(program).stdout, run(program, GLOG_v="1").stdout] == ["3\n", "1\n"]


@pytest.mark.parametrize("target", ["GPU", "Ascend"])
def test_a_device_that_is_not_there_is_one_line(target, capfd):
    with pytest.raises(InputError, match=f"^device_target {target}: not available here; choose another$"):
        device.configure(target)
    assert capfd.readouterr() == ("", "")


def test_on_ascend_mindspore_s_warnings_are_seen(tmp_path):
    assert mindone_coca._log_level(tmp_path) == "3"
    (tmp_path / "davinci_manager").touch()
    assert mindone_coca._log_level(tmp_path) == "3"
    (tmp_path / "davinci0").touch()
    assert mindone_coca._log_level(tmp_path) == "2"


def test_the_limit_of_memory_is_set_once(monkeypatch):
    """As MindSpore wants it, whose older way is to be removed."""
    calls = []

    def set_memory(**sizes: str) -> None:
        if calls:
            raise RuntimeError("The 'set_memory' can not be set repeatedly.")
        calls.append(sizes)

    monkeypatch.setattr(ms.runtime, "set_memory", set_memory)
    monkeypatch.setattr(device, "_memory", None)
    for text in ("1.5GB", "1.5 gb"):
        device.configure(max_memory=text)
    assert calls == [{"init_size": "1.5GB", "increase_size": "1.5GB", "max_size": "1.5GB"}]
    with pytest.raises(InputError, match=r"^max_device_memory 30GB: .* repeatedly\.$"):
        device.configure(max_memory="30GB")
    for text in ("0GB", "lots"):
        with pytest.raises(InputError, match="write it like 30GB"):
            device.configure(max_memory=text)
    calls.clear()
    device.configure(max_memory="30GB")
    assert calls == [{"init_size": "2GB", "increase_size": "2GB", "max_size": "30GB"}]


def test_deterministic_is_handed_on(monkeypatch):
    calls = []
    monkeypatch.setattr(ms, "set_deterministic", calls.append)
    device.configure()
    assert calls == []
    parser = common.Parser()
    common.add_device_options(parser)
    common.configure_device(parser.parse_args([]))
    assert calls == []
    common.configure_device(parser.parse_args(["--deterministic"]))
    assert calls == [True]


CHIPS = {
    "Ascend910B4": "A2",
    "Ascend910B1": "A2",
    "Ascend910_9391": "A3",
    "Ascend910A": "910A",
    "Ascend910B": "910A",
    "Ascend910ProB": "910A",
    "Ascend910": "910A",
    "Ascend310P3": "310P",
    "Ascend950": "another Ascend",
}


@pytest.mark.parametrize("chip", CHIPS)
def test_a_chip_s_product(chip, monkeypatch):
    monkeypatch.setattr(ms, "get_context", lambda name: "Ascend")
    monkeypatch.setattr(ms.hal, "get_device_name", lambda: chip)
    assert device.product() == CHIPS[chip]


@pytest.mark.parametrize(
    ("product", "refused"),
    [("A2", None), ("A3", None), ("GPU", None), ("CPU", "the CPU"), ("910A", "Ascend 910A"), ("310P", "Ascend 310P")],
)
def test_bfloat16_is_refused_by_the_name_of_the_product(product, refused, monkeypatch):
    monkeypatch.setattr(device, "product", lambda: product)
    if refused is None:
        assert device.compute_dtype("bfloat16") == ms.bfloat16
    else:
        with pytest.raises(InputError, match=f"^dtype bfloat16: .* on {refused}; use float16 or float32$"):
            device.compute_dtype("bfloat16")
