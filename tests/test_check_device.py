"""The report of tools/check_device.py, its self-test on this CPU, and the numbers of that."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mindone_coca import device
from mindone_coca.model.open_clip.family import OPEN_CLIP
from mindone_coca.training.settings import LossConfig, OptimConfig
from tests.reference import ReferenceCoCa, torch
from tests.training.reference_training import reference_losses, reference_optimiser
from tools import check_device
from tools import device_self_test as self_test

ROOT = Path(__file__).parents[1]


def test_pairs_of_mindspore_and_cann():
    assert check_device.pairing("2.7.2", "8.5.0") == "MindSpore 2.7.2 with CANN 8.5.0: as paired"
    assert check_device.pairing("2.7.2", "8.2.RC1") == "MindSpore 2.7.2 with CANN 8.2.RC1: it wants 8.5"
    assert check_device.pairing("2.10.0", None).endswith("8.2, 8.3, 8.5, 9.0, 9.1; none is found here")
    assert check_device.pairing("2.6.0", "8.1").startswith("MindSpore 2.6.0 is none of those")


def test_versions_are_read_where_the_vendor_keeps_them(tmp_path):
    assert check_device.cann_version({"ASCEND_TOOLKIT_HOME": str(tmp_path)}) is None
    info = tmp_path / "aarch64-linux" / "ascend_toolkit_install.info"
    info.parent.mkdir()
    info.write_text("package_name=Ascend-cann-toolkit\nversion=8.5.0\narch=aarch64\n")
    assert check_device.cann_version({"ASCEND_TOOLKIT_HOME": str(tmp_path)}) == "8.5.0"
    (tmp_path / "version.info").write_text("Version=25.5.0\nascendhal_version=7\n")
    assert check_device.driver_version(tmp_path / "version.info") == "25.5.0"
    assert check_device.driver_version(tmp_path / "none") is None


def test_what_differs_is_said():
    right, captions = dict(self_test.STORED), self_test.CAPTIONS
    assert list(self_test.compare(captions, right, self_test.FULL)) == []
    for name in right:
        [line] = self_test.compare(captions, {**right, name: right[name] * 1.01}, self_test.FULL)
        assert line.startswith(f"{name} is ")
        [line] = self_test.compare(captions, {**right, name: float("nan")}, self_test.HALF)
    [line] = self_test.compare(captions[::-1], right, self_test.FULL)
    assert line.startswith("the captions are [[62, 43, ")


def test_the_stored_numbers_are_open_clip_s():
    reference = ReferenceCoCa(**self_test.CONFIG).eval()
    drawn = {
        name: torch.from_numpy(self_test.draw(OPEN_CLIP.to_mindspore(name), tuple(value.shape)))
        for name, value in reference.state_dict().items()
        if name != "logit_scale"
    }
    assert reference.load_state_dict(drawn, strict=False).missing_keys == ["logit_scale"]
    images, text = self_test.batch()
    with torch.no_grad():
        features = reference.encode_image(torch.from_numpy(images), normalize=True)[0]
        captions = reference.generate(torch.from_numpy(images), **self_test.GENERATION)
    optimiser = reference_optimiser(reference, OptimConfig(lr=self_test.LEARNING_RATE))
    numbers = {f"feature {number}": features[number].item() for number in range(3)}
    for name in ("loss", "loss after an update"):
        loss = torch.stack([*reference_losses(reference, images, text, LossConfig()).values()]).sum()
        optimiser.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(reference.parameters(), float("inf"))
        numbers[name] = loss.item()
        numbers.setdefault("norm of gradients", norm.item())
        optimiser.step()
    assert list(self_test.compare(captions.tolist(), numbers, 1e-5)) == []


@pytest.mark.graphs
def test_the_self_test_passes_here(capsys):
    assert check_device.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = ("system", "packages", "driver", "pairing", "launcher", "environment", "device", "self-test")
    assert [line.split(":")[0] for line in lines] == [f"- {name}" for name in names]
    assert lines[-1].startswith("- self-test: as on a CPU (")


@pytest.mark.slow
@pytest.mark.graphs
def test_the_self_test_passes_in_float16(monkeypatch):
    """As on a 910A, whose training multiplies the loss: its first updates may be left out."""
    monkeypatch.setattr(device, "training_precision", lambda: "fp16")
    device.ensure_configured()
    with device.half_on_cpu():
        results = self_test.self_test("float16")
    assert list(self_test.compare(*results, self_test.HALF)) == []


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise ImportError('numpy 2')", r"ImportError: numpy 2 \(__init__.py:1\)"),
        ("__version__ = '2.6.0'", r"\w+Error: .*mindspore.*"),  # of another release
    ],
)
def test_a_mindspore_that_does_not_start_is_reported(source, reason, tmp_path):
    """What is installed comes before it, and there is no traceback."""
    (tmp_path / "mindspore").mkdir()
    (tmp_path / "mindspore" / "__init__.py").write_text(source)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "RANK_SIZE": "two"}
    command = [sys.executable, check_device.__file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["- system", "- packages"] and done.returncode == 2
    assert "- launcher: RANK_SIZE: must be a whole number from 0 on, got 'two'" in lines
    assert re.fullmatch(f"- self-test: does not run: {reason}", lines[-1]), done
    assert done.stderr == "error: the self-test does not run here; send the report, and what GLOG_v=1 adds to it\n"


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(check_device, "PACKAGES", ("numpy", "mindspore"))
    monkeypatch.setattr(check_device, "installed", {"numpy": "1.26.4", "mindspore": None}.get)
    report = dict(check_device.describe())
    assert report["packages"] == "numpy 1.26.4, mindspore is not installed"
    assert report["pairing"] == "without MindSpore nothing runs"


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_dry_run_without_cann_is_refused_in_one_line(tmp_path):
    """Before an environment is made."""
    # MAKE...: the tests may be run by make, whose options a make within would take over
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ASCEND", "MAKE"))}
    command = ["make", "ascend-dryrun", f"VENV={tmp_path / 'venv'}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert done.returncode == 2 and said == ["CANN is not set up: source its set_env.sh"] and not done.stdout
