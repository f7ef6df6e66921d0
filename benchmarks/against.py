"""This tree against another of its own commits, and float16 against float32, alternately in one run.

    python -m benchmarks.against [--config coca_vit-l-14] [--other CHECKOUT] [--images 8] [--rounds 5]

`other`: default captions of so many images from their tokens, by these sources and by those of a checkout of another
commit (`git worktree add CHECKOUT 992461e`). `float16`: the default caption of one image from its pixels, with weights
stored in half and in float32. Each side is a process of its own, which compiles its graphs afresh and then takes turns
with the other; times are medians, and the peak memory is that after the first captions.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.random_model import ROOT, draw_images, draw_weights
from benchmarks.results_files import PRINT_PEAK, keep
from benchmarks.speed import alternate

SIDE = """
import os, sys
os.environ.setdefault("GLOG_v", "3")
sys.path.insert(0, {root!r})
import numpy as np
from mindone_coca import create_model
model = create_model({config!r}, {weights!r}, {dtype!r})
inputs = np.load({inputs!r})
images, tokens = (inputs, None) if inputs.ndim == 4 else (None, inputs)
caption = lambda: np.asarray(model.generate(images, image_embs=tokens))
np.save({output!r}, caption())  # compiles
{peak}
for _ in sys.stdin:
    caption()
    print("done", flush=True)
"""


@dataclass(frozen=True)
class Side:
    """What one process runs: the sources in `root` with weights in `dtype`."""

    name: str
    root: Path
    dtype: str = "float32"

    def start(self, folder: Path, config: str, weights: Path, inputs: Path) -> tuple[subprocess.Popen, float]:
        """The process, with its graphs compiled, and its peak memory up to there in bytes."""
        names = {"root": self.root, "config": config, "weights": weights, "inputs": inputs, "output": self.ids(folder)}
        source = SIDE.format(dtype=self.dtype, peak=PRINT_PEAK, **{name: str(value) for name, value in names.items()})
        environment = {**os.environ, "MINDONE_COCA_CACHE": str(folder / f"store of {self.name}")}
        process = subprocess.Popen(
            [sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        return process, float(ask(process))

    def ids(self, folder: Path) -> Path:
        return folder / f"{self.name}.npy"


def ask(process: subprocess.Popen, question: str = "") -> str:
    """Write a line, if any, to a side and read the line that it answers."""
    assert process.stdin is not None and process.stdout is not None  # they are pipes
    process.stdin.write(question)
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise SystemExit("a side stopped; its message stands above")
    return answer


def compare(ours: Side, other: Side, folder: Path, config: str, weights: Path, inputs: Path, rounds: int) -> list[dict]:
    """Rows of seconds and of peak memory of both sides."""
    sides = (ours, other)
    started = [side.start(folder, config, weights, inputs) for side in sides]
    first_caption, second_caption = (partial(ask, process, "go\n") for process, _ in started)
    times = alternate(first_caption, second_caption, rounds)
    for process, _ in started:
        process.communicate()
    first, second = (np.load(side.ids(folder)) for side in sides)
    same = f"{int((first == second).all(1).sum())} of {len(first)} captions equal"
    peaks = [peak / 1e9 for _, peak in started]
    rows = []
    for what, unit, (value, of) in (("time", "s", times), ("peak memory", "GB", peaks)):
        name = f"{what}, {ours.name} against {other.name}, {len(first)} images, {same}"
        rows.append({"what": name, "ours": round(value, 3), "other": round(of, 3), "unit": unit})
        print(f"{name:72} {value:8.3f} against {of:8.3f} {unit}: {value / of:.2f}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="coca_vit-l-14")
    parser.add_argument("--other", type=Path, metavar="CHECKOUT", help="a checkout of another commit")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results")
    arguments = parser.parse_args()

    from mindone_coca import create_model
    from mindone_coca.config import find_config

    config = str(find_config(arguments.config))
    target = arguments.output / f"against_{Path(config).stem}.json"
    here = Side("float32", ROOT)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights, pixels = draw_weights(config, folder), folder / "images.npy"
        images = draw_images(config, arguments.images)
        np.save(pixels, images[:1])
        if arguments.other is not None:
            tokens = folder / "tokens.npy"
            np.save(tokens, create_model(config, str(weights)).encode_image_tokens(images)[1].asnumpy())
            other = Side("other", arguments.other.resolve())
            rows = compare(here, other, folder, config, weights, tokens, arguments.rounds)
            keep(target, "other", rows)
        half = Side("float16", ROOT, "float16")
        keep(target, "float16", compare(half, here, folder, config, weights, pixels, arguments.rounds))


if __name__ == "__main__":
    main()
