"""The recipe for captioning at ViT-L/14 on this machine: python -m benchmarks.recipe [--steps 20] [--output FOLDER]

`train.py -c configs/finetune_captioning.yaml` in float32 at batch 2, from random weights, on pictures of noise of
unequal size and captions of 6 to 40 tokens, to the last checkpoint and the exported weights, in a process of its own.
Written: its peak memory, compiling included, its time, and the sizes of what it leaves.
"""

import argparse
import csv
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.results_files import keep

ROOT = Path(__file__).resolve().parents[1]
WORDS = ("one", "big", "red", "star", "over", "a", "little", "yellow", "ring", "near", "the", "blue", "house")
PICTURES = 60


def write_data(folder: Path) -> Path:
    """Pictures and a table of them; returns the table's path."""
    rng = np.random.default_rng(0)
    table = folder / "train.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["filepath", "title"])
        for number in range(PICTURES):
            height, width = rng.integers(200, 600, 2)
            noise = rng.integers(0, 255, (height, width, 3), np.uint8)
            Image.fromarray(noise).save(folder / f"{number}.jpg")
            count = int(rng.integers(4, 39 if number % 2 else 12))  # and a start and an end token
            writer.writerow([f"{number}.jpg", " ".join(rng.choice(WORDS, count))])
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = folder / "coca.safetensors"
        writing = ["-m", "benchmarks.finetune", "--size", "large", "--child", "weights", str(weights)]
        subprocess.run([sys.executable, *writing], check=True, cwd=ROOT)
        settings = [f"model.checkpoint={weights}", f"data.train={write_data(folder)}", "data.val=null"]
        settings += ["train.batch_size=2", "train.precision=fp32", f"train.max_steps={arguments.steps}"]
        settings += [f"output.dir={folder / 'run'}", "output.log_every=1"]
        command = [sys.executable, str(ROOT / "train.py"), "-c", str(ROOT / "configs/finetune_captioning.yaml")]
        environment = {**os.environ, "MINDONE_COCA_CACHE": str(folder / "graphs"), "GLOG_v": "3"}
        start = time.perf_counter()
        subprocess.run([*command, *settings], check=True, env=environment)
        row = {
            "what": f"train.py, {arguments.steps} steps",
            "seconds": round(time.perf_counter() - start),
            "peak_gib": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20, 2),
            "checkpoint_gb": round(
                sum(path.stat().st_size for path in (folder / "run/checkpoints").iterdir()) / 1e9, 2
            ),
            "weights_gb": round((folder / "run/final.safetensors").stat().st_size / 1e9, 2),
        }
    print(row)
    keep(arguments.output / "recipe_captioning.json", "finetune_captioning", [row])


if __name__ == "__main__":
    main()
