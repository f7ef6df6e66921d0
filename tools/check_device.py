#!/usr/bin/env python
"""Say what is installed and what fits what, try a small captioner and one training step, and print a report.

    python tools/check_device.py [--device_target Ascend] [--dtype float16] [--kernels portable] [--compile_only]

The report, to paste into a bug report, goes to standard output. The self-test takes some ten seconds and compares with
numbers stored from a CPU; with --compile_only, for MS_SIMULATION_LEVEL, graphs are compiled and nothing is compared.
Exit code 0: all as it should be; 1: numbers differ; 2: bad usage, or something that does not run at all.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for a checkout that is not installed

from mindone_coca.interrupts import watch_signals

watch_signals(__name__)  # before the imports that take long

import argparse
import os
import platform
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata

import mindspore as ms
import numpy as np

from mindone_coca import device
from mindone_coca.captioning.captioner import VideoCaptioner
from mindone_coca.cli import common
from mindone_coca.cli.common import Parser, run_cli
from mindone_coca.config import Dtype
from mindone_coca.distributed import Ranks
from mindone_coca.errors import InputError
from mindone_coca.factory import find_config_and_weights
from mindone_coca.launcher import find_launch
from mindone_coca.training.job import DTYPES
from mindone_coca.training.optim import AdamW
from mindone_coca.training.settings import LossConfig, OptimConfig
from mindone_coca.training.step import TrainStep
from mindone_coca.video.frames import read_frames

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS, VIDEO = ROOT / "models" / "coca_tiny.safetensors", ROOT / "assets" / "demo.mp4"
# CANN by release of MindSpore: what mindspore/run_check/_check_version.py of each takes without a warning
PAIRS = {
    "2.7.2": ("8.5",),
    "2.8.0": ("8.2", "8.3", "8.5"),
    "2.9.0": ("8.2", "8.3", "8.5", "9.0"),
    "2.10.0": ("8.2", "8.3", "8.5", "9.0", "9.1"),
}
PACKAGES = ("mindspore", "numpy", "protobuf", "pillow", "av")
ASCEND = Path("/usr/local/Ascend")
# The demo's middle frame and its mirror image, on a CPU in float32.
CAPTIONS = ("two red stars and a blue ring", "a green square on grey")
STORED = {
    "feature 0": 0.0654181,
    "feature 1": -0.0125976,
    "feature 2": 0.0516532,
    "loss": 20.5627,
    "grad_norm": 119.519,
}
CAPTION = "a large red star above a small yellow ring"
FULL, HALF = 1e-3, 5e-2  # relative differences that pass: float32 on a CPU; elsewhere products may be halves


def cann_version(environment: Mapping[str, str]) -> str | None:
    """The version that CANN's folder names; None where there is none."""
    home = environment.get("ASCEND_TOOLKIT_HOME") or environment.get("ASCEND_HOME_PATH") or str(ASCEND / "latest")
    for path in sorted(Path(home).glob("*/ascend_toolkit_install.info")):
        if found := re.search(r"^version=(\S+)", path.read_text(errors="replace"), re.MULTILINE):
            return found[1]
    return None


def driver_version(path: Path = ASCEND / "driver" / "version.info") -> str | None:
    if not path.is_file():
        return None
    found = re.search(r"^Version=(\S+)", path.read_text(errors="replace"), re.MULTILINE)
    return found[1] if found else None


def pairing(mindspore: str, cann: str | None) -> str:
    """Whether this MindSpore and this CANN go together."""
    fitting = PAIRS.get(mindspore)
    if fitting is None:
        return f"MindSpore {mindspore} is none of those that were tried: {', '.join(PAIRS)}"
    if cann is None:
        return f"MindSpore {mindspore} goes with CANN {', '.join(fitting)}; none is found here"
    fits = any(cann.startswith(version) for version in fitting)
    return f"MindSpore {mindspore} with CANN {cann}: " + ("as paired" if fits else f"it wants {', '.join(fitting)}")


def describe() -> Iterator[tuple[str, str]]:
    """What is installed and set, by name."""
    yield "system", f"{platform.platform()}, {' '.join(platform.libc_ver())}, Python {platform.python_version()}"
    yield "packages", ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    yield "device", f"{ms.get_context('device_target')}, product {device.product()}"
    if ms.get_context("device_target") == "Ascend":
        yield "chip", f"{ms.hal.get_device_name()}, {ms.hal.device_count()} of them"
    yield "driver", driver_version() or "none found"
    yield "pairing", pairing(ms.__version__, cann_version(os.environ))
    launch = find_launch(os.environ)
    yield "launcher", "none" if launch is None else f"{launch.variable}, {launch.size} processes"
    names = [name for name in sorted(os.environ) if re.match(r"MS_|GLOG|ASCEND|HCCL|RANK|DEVICE_ID", name)]
    yield "environment", ", ".join(f"{name}={os.environ[name]}" for name in names) or "nothing of it set"


def self_test(dtype: Dtype | None) -> tuple[str, dict[str, float]]:
    """Caption the demo's middle frame, then train one step -> the caption, and numbers as in STORED."""
    config, weights = find_config_and_weights(None, WEIGHTS)
    captioner = VideoCaptioner(config, weights, dtype)
    pixels = captioner.transform(read_frames(VIDEO)[0].image)
    images = np.stack([pixels, pixels[:, :, ::-1]]).astype(np.float32)
    caption = captioner(VIDEO)
    features = captioner.model.encode_image(images[:1]).asnumpy()[0]
    numbers = {name: float(features[number]) for number, name in enumerate(STORED) if name.startswith("feature")}
    model = VideoCaptioner(config, weights).model  # training keeps float32 weights
    model.set_compute_dtype(DTYPES[device.training_precision()])
    text = captioner.tokenizer(list(CAPTIONS), context_length=config.training_length)
    step = TrainStep(model, LossConfig(), AdamW(model, OptimConfig(), Ranks()), Ranks())
    report = step([(images, text)], 1e-3)
    return caption, {**numbers, "loss": report["loss"], "grad_norm": report["grad_norm"]}


def compare(caption: str, numbers: Mapping[str, float], tolerance: float) -> Iterator[str]:
    """A line for each thing that differs."""
    if caption != CAPTION:
        yield f"the caption is {caption!r}, on a CPU {CAPTION!r}"
    for name, stored in STORED.items():
        difference = abs(numbers[name] - stored) / abs(stored)
        if not difference <= tolerance:
            yield f"{name} is {numbers[name]:.6g}, on a CPU {stored:.6g}: {difference:.1e} apart, {tolerance:g} may be"


def run(arguments: argparse.Namespace) -> int:
    common.configure_device(arguments)
    for name, value in describe():
        print(f"- {name}: {value}")
    begun = time.monotonic()
    try:
        caption, numbers = self_test(arguments.dtype)
    except (RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        print(f"- self-test: does not run: {reason}")
        raise InputError("the self-test does not run here; send the report with the whole text of MS_LOG") from error
    seconds = time.monotonic() - begun
    if arguments.compile_only:
        print(f"- self-test: compiled in {seconds:.0f} s")
        return 0
    whole = ms.get_context("device_target") == "CPU" and arguments.dtype in (None, "float32")
    wrong = list(compare(caption, numbers, FULL if whole else HALF))
    print(f"- self-test: {'; '.join(wrong) or 'as on a CPU'} ({seconds:.0f} s)")
    return 1 if wrong else 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__)
    common.add_device_options(parser)
    parser.add_argument("--compile_only", action="store_true", help="compare nothing, as under MS_SIMULATION_LEVEL")
    arguments = parser.parse_args(argv)
    return run_cli(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
