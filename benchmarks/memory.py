"""Peak resident memory over batch sizes, each measurement in a process of its own, the median of several.

    python benchmarks/memory.py [--config coca_vit-l-14] [--rounds 3] [--sizes 1 2 4 8 16] [--output benchmarks/results]

Random weights, drawn once. `encode` is `encode_image` of so many images, `caption` the default caption of so many, and
`one after another` captions batches of 1, 2, 3, 5, 8 and 16 images in one process, as a service does. Graphs are
compiled afresh by each process, as at a first start; compiling takes part of the peak.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("GLOG_v", "3")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402 the log level above must come first

MIXED = (1, 2, 3, 5, 8, 16)


def measure(task: str, config: str, weights: str, sizes: Sequence[int]) -> float:
    """Run one task in this process -> its peak resident memory in GB."""
    import resource

    from mindone_coca import create_model
    from mindone_coca.model.families import load_model_config

    model = create_model(config, weights)
    rng = np.random.default_rng(0)
    for size in sizes:
        images = rng.standard_normal((size, 3, *load_model_config(config).image_hw)).astype(np.float32)
        if task == "encode":
            model.encode_image(images).asnumpy()
        else:
            model.generate(images)  # which brings its ids to the host at each step
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def peak(task: str, config: str, weights: Path, sizes: Sequence[int], rounds: int) -> float:
    """The median of several processes' peaks in GB."""
    peaks = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as store:
            command = [sys.executable, __file__, "--child", task, config, str(weights), *map(str, sizes)]
            environment = {**os.environ, "MINDONE_COCA_CACHE": store}
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
            peaks.append(float(done.stdout.splitlines()[-1]))
    return float(np.median(peaks))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="coca_vit-l-14")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        task, config, weights, *sizes = arguments.child
        print(measure(task, config, weights, [int(size) for size in sizes]))
        return
    from mindone_coca.config import find_config

    config = str(find_config(arguments.config))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "coca.safetensors"
        make = [sys.executable, str(ROOT / "tools/make_random_model.py"), "-c", config, "--target", str(weights)]
        subprocess.run(make, check=True)
        tasks = [(f"{task} {size}", task, [size]) for task in ("encode", "caption") for size in arguments.sizes]
        for name, task, sizes in [*tasks, ("caption 1, 2, 3, 5, 8, 16 one after another", "caption", MIXED)]:
            rows.append({"what": name, "peak_gb": round(peak(task, config, weights, sizes, arguments.rounds), 2)})
            print(f"{name:44} {rows[-1]['peak_gb']:6.2f} GB", flush=True)
    arguments.output.mkdir(parents=True, exist_ok=True)
    target = arguments.output / f"memory_{Path(arguments.config).stem}.json"
    target.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
