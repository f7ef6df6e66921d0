"""Peak resident memory over batch sizes, each measurement in a process of its own, the median of several.

    python benchmarks/memory.py [--config coca_vit-l-14] [--rounds 3] [--sizes 1 2 4 8 16] [--output benchmarks/results]

Random weights, drawn once for each side. `encode` is `encode_image` of so many images, `caption` the default caption of
so many, and `one after another` captions batches of 1, 2, 3, 5, 8 and 16 images in one process, as a service does. Our
graphs are compiled afresh by each process, as at a first start; compiling takes part of the peak. open_clip is run once
for each size, because a caption takes it long.
"""

import argparse
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
import yaml  # noqa: E402

from benchmarks.random_model import draw_images, draw_weights  # noqa: E402
from benchmarks.results_files import keep  # noqa: E402

MIXED = (1, 2, 3, 5, 8, 16)


def measure(side: str, task: str, config: str, weights: str, sizes: Sequence[int]) -> float:
    """Run one task in this process -> its peak resident memory in GB."""
    import resource

    batches = (draw_images(config, size) for size in sizes)
    if side == "ours":
        from mindone_coca import create_model

        model = create_model(config, weights)
        for images in batches:
            if task == "encode":
                model.encode_image(images).asnumpy()
            else:
                model.generate(images)  # which brings its ids to the host at each step
    else:
        from tests.reference import random_reference, torch

        reference = random_reference(yaml.safe_load(Path(config).read_text()))
        for images in batches:
            with torch.no_grad():
                getattr(reference, "encode_image" if task == "encode" else "generate")(torch.from_numpy(images))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def peak(side: str, task: str, config: str, weights: Path, sizes: Sequence[int], rounds: int) -> float:
    """The median of several processes' peaks in GB."""
    peaks = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as store:
            command = [sys.executable, __file__, "--child", side, task, config, str(weights), *map(str, sizes)]
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
        side, task, config, weights, *sizes = arguments.child
        print(measure(side, task, config, weights, [int(size) for size in sizes]))
        return
    from mindone_coca.config import find_config

    config = str(find_config(arguments.config))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        weights = draw_weights(config, Path(folder))
        tasks = [
            (f"{task}, images: {size}", task, [size]) for task in ("encode", "caption") for size in arguments.sizes
        ]
        for name, task, sizes in [*tasks, ("caption 1, 2, 3, 5, 8, 16 one after another", "caption", MIXED)]:
            row: dict = {"what": name, "ours": round(peak("ours", task, config, weights, sizes, arguments.rounds), 2)}
            if len(sizes) == 1:
                row["open_clip"] = round(peak("open_clip", task, config, weights, sizes, 1), 2)
            rows.append({**row, "unit": "GB"})
            print(f"{name:44} ours {row['ours']:6.2f} GB   open_clip {row.get('open_clip', '')} GB", flush=True)
    keep(arguments.output / f"memory_{Path(config).stem}.json", "memory", rows)


if __name__ == "__main__":
    main()
