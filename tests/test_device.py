"""What MindSpore prints by itself: nothing that a user cannot act on, here and where the package is a library."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mindone_coca import device
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
