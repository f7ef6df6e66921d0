#!/usr/bin/env python
"""Say what is installed and what fits what, try a small captioner and one training step, and print a report.

    python tools/check_device.py [--device_target Ascend] [--dtype float16] [--kernels portable] [--compile_only]

The report, to paste into a bug report, goes to standard output. The self-test takes some ten seconds and compares with
open_clip's numbers; with --compile_only, for MS_SIMULATION_LEVEL, graphs are compiled and nothing is compared.
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
import traceback
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata

from mindone_coca.cli import common
from mindone_coca.cli.common import Parser, run_cli
from mindone_coca.errors import InputError
from mindone_coca.launcher import find_launch

# CANN by release of MindSpore: what mindspore/run_check/_check_version.py of each takes without a warning
PAIRS = {
    "2.7.2": ("8.5",),
    "2.8.0": ("8.2", "8.3", "8.5"),
    "2.9.0": ("8.2", "8.3", "8.5", "9.0"),
    "2.10.0": ("8.2", "8.3", "8.5", "9.0", "9.1"),
}
PACKAGES = ("mindspore", "numpy", "protobuf", "pillow", "av")
ASCEND = Path("/usr/local/Ascend")


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


def installed(package: str) -> str | None:
    """A package's version; None where there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def describe_launcher() -> str:
    try:
        launch = find_launch(os.environ)
    except InputError as error:
        return str(error)
    return "none" if launch is None else f"{launch.variable}, {launch.size} processes"


def describe() -> Iterator[tuple[str, str]]:
    """What is installed and set, by name, without MindSpore: where it does not start, this tells why."""
    yield "system", f"{platform.platform()}, {' '.join(platform.libc_ver())}, Python {platform.python_version()}"
    versions = {name: installed(name) for name in PACKAGES}
    yield "packages", ", ".join(f"{name} {version or 'is not installed'}" for name, version in versions.items())
    yield "driver", driver_version() or "none found"
    mindspore = versions["mindspore"]
    yield "pairing", pairing(mindspore, cann_version(os.environ)) if mindspore else "without MindSpore nothing runs"
    yield "launcher", describe_launcher()
    names = [name for name in sorted(os.environ) if re.match(r"MS_|GLOG|ASCEND|HCCL|RANK|DEVICE_ID", name)]
    yield "environment", ", ".join(f"{name}={os.environ[name]}" for name in names) or "nothing of it set"


def describe_device() -> Iterator[tuple[str, str]]:
    import mindspore as ms

    from mindone_coca import device

    target = ms.get_context("device_target")
    yield "device", f"{target}, product {device.product()}"
    if target == "Ascend":
        yield "chip", f"{ms.hal.get_device_name()}, {ms.device_context.ascend.device_count()} of them"


def say(name: str, value: str) -> None:
    """A line of the report, at once: MindSpore beside a wrong package may end the process."""
    print(f"- {name}: {value}", flush=True)


def run_self_test(arguments: argparse.Namespace) -> int:
    """Start MindSpore, then try it; returns the exit code."""
    common.configure_device(arguments)
    for name, value in describe_device():
        say(name, value)
    begun = time.monotonic()
    from tools import device_self_test

    results = device_self_test.self_test(arguments.dtype)
    seconds = time.monotonic() - begun
    if arguments.compile_only:
        say("self-test", f"compiled in {seconds:.0f} s")
        return 0
    wrong = list(device_self_test.compare(*results, device_self_test.tolerance(arguments.dtype)))
    say("self-test", f"{'; '.join(wrong) or 'as on a CPU'} ({seconds:.0f} s)")
    return 1 if wrong else 0


def run(arguments: argparse.Namespace) -> int:
    for name, value in describe():
        say(name, value)
    try:
        return run_self_test(arguments)
    except InputError:
        raise
    except Exception as error:  # of any kind, MindSpore's import among them: the report says it
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        place = traceback.extract_tb(error.__traceback__)[-1]
        say("self-test", f"does not run: {type(error).__name__}: {reason} ({Path(place.filename).name}:{place.lineno})")
        raise InputError("the self-test does not run here; send the report, and what GLOG_v=1 adds to it") from error


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__)
    common.add_device_options(parser)
    parser.add_argument("--compile_only", action="store_true", help="compare nothing, as under MS_SIMULATION_LEVEL")
    arguments = parser.parse_args(argv)
    return run_cli(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
