"""Ours against open_clip, alternately in one run on the same weights: times, ratios, memory, growth.

    python benchmarks/speed.py [--config coca_vit-l-14] [--rounds 3] [--output benchmarks/results] [--sections ...]

Random weights, drawn once and converted, so captions run to their full length: the longest case. Every comparison
first checks that both sides produce the same tokens. Each figure is the median of `rounds` alternations, ours then
open_clip's; growth over batches, lengths and beams takes one run of open_clip. Cold processes are whole processes from
start to caption, ours with the store of compiled graphs warm. `folder` is a whole process, too: inference.py over
pictures, at first with an empty store, beside open_clip's captions of eight images that are read already.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

os.environ.setdefault("GLOG_v", "3")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402 the log level above must come first
import yaml  # noqa: E402

from benchmarks.random_model import draw_images  # noqa: E402
from benchmarks.results_files import PRINT_PEAK, keep  # noqa: E402

SECTIONS = ("cold", "encode", "caption", "batches", "folder", "lengths", "beams", "long")
BATCHES = (1, 2, 4, 8, 16)
PICTURES = 64  # in the folder
LONG = 256  # the longest context of the published models

OURS_COLD = """
import os, sys
os.environ.setdefault("GLOG_v", "3")
sys.path.insert(0, {root!r})
import numpy as np
from mindone_coca import create_model
model = create_model({config!r}, {weights!r})
images = np.load({images!r})[:1]
print(model.generate(images).asnumpy().tolist())
"""
THEIRS_COLD = """
import sys
sys.path.insert(0, {root!r})
import numpy as np
from tests.reference import open_clip, torch
from open_clip.coca_model import CoCa
import yaml
config = yaml.safe_load(open({config!r}))
for name in ("custom_text", "checkpoint", "preprocess"):
    config.pop(name, None)
model = CoCa(**config).eval()
model.load_state_dict(torch.load({checkpoint!r}, weights_only=True, mmap=True), strict=True)
images = torch.from_numpy(np.load({images!r})[:1])
print(model.generate(images).numpy().tolist())
"""


def alternate(ours: Callable, theirs: Callable, rounds: int) -> tuple[float, float]:
    """Median seconds of both, called in turn after one warm-up of ours (the other compiles nothing here)."""
    ours()
    times: tuple[list, list] = ([], [])
    for _ in range(rounds):
        for call, kept in zip((ours, theirs), times):
            time.sleep(0.5)  # the other side's threads wait busily for a while
            start = time.perf_counter()
            call()
            kept.append(time.perf_counter() - start)
    return float(np.median(times[0])), float(np.median(times[1]))


class Benchmark:
    """Both models with the same weights, and a table of results."""

    def __init__(self, config: str, folder: Path, rounds: int) -> None:
        from mindone_coca.config import find_config
        from tests.reference import random_reference, torch

        self.torch, self.rounds, self.work = torch, rounds, folder
        self.config = find_config(config)
        self.reference = random_reference(yaml.safe_load(self.config.read_text()), seed=1)
        self.checkpoint, self.weights = folder / "open_clip_pytorch_model.bin", folder / "coca.safetensors"
        torch.save(self.reference.state_dict(), self.checkpoint)
        convert = [sys.executable, str(ROOT / "tools/model_conversion/coca_convert.py"), "--force"]
        subprocess.run([*convert, "--source", self.checkpoint, "--target", self.weights], check=True)
        self.images = draw_images(self.config, max(BATCHES))
        np.save(folder / "images.npy", self.images)
        self.rows: list[dict] = []

    @cached_property
    def model(self):
        from mindone_coca import create_model

        return create_model(self.config, self.weights)

    def add(self, name: str, ours: float, theirs: float, unit: str = "s") -> None:
        row = {
            "what": name,
            "ours": round(ours, 3),
            "open_clip": round(theirs, 3),
            "unit": unit,
            "ratio": round(theirs / ours, 2),
        }
        self.rows.append(row)
        print(
            f"{name:42} ours {ours:8.3f} {unit}   open_clip {theirs:8.3f} {unit}   {theirs / ours:6.2f} x", flush=True
        )

    def encode(self) -> None:
        for batch in (1, 8):
            images = self.images[:batch]
            tensor = self.torch.from_numpy(images)
            with self.torch.no_grad():
                ours, theirs = alternate(
                    lambda images=images: self.model.encode_image(images).asnumpy(),
                    lambda tensor=tensor: self.reference.encode_image(tensor),
                    self.rounds,
                )
            self.add(f"encode_image, batch {batch}", ours, theirs)

    def check(self, batch: int = 1, **options) -> tuple[Callable, Callable, float]:
        """Callables for captions of both, after checking that they give the same tokens; open_clip's seconds."""
        images = self.images[:batch]
        tensor = self.torch.from_numpy(images)
        start = time.perf_counter()
        want = self.reference.generate(tensor, **options).numpy()
        seconds = time.perf_counter() - start
        got = self.model.generate(images, **options).asnumpy()
        if not np.array_equal(want, got):
            raise SystemExit(f"the captions differ for {options}: {want} {got}")
        return (
            lambda: self.model.generate(images, **options).asnumpy(),
            lambda: self.reference.generate(tensor, **options),
            seconds,
        )

    def pair(self, **options) -> tuple[float, float]:
        ours, theirs, _ = self.check(**options)
        return alternate(ours, theirs, self.rounds)

    def caption(self) -> None:
        self.add("caption, default (6 beams in 3 groups)", *self.pair())
        self.add("caption, greedy", *self.pair(generation_type="top_k"))

    def _cold(self, source: str) -> tuple[float, float]:
        names = {
            "root": str(ROOT),
            "config": str(self.config),
            "weights": str(self.weights),
            "checkpoint": str(self.checkpoint),
            "images": str(self.work / "images.npy"),
        }
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", source.format(**names) + PRINT_PEAK], check=True, capture_output=True, text=True
        )
        return time.perf_counter() - start, float(done.stdout.splitlines()[-1])

    def cold(self) -> None:
        self._cold(OURS_COLD)  # fills the store of compiled graphs
        runs = [(self._cold(OURS_COLD), self._cold(THEIRS_COLD)) for _ in range(self.rounds)]
        seconds = [float(np.median([pair[side][0] for pair in runs])) for side in (0, 1)]
        peaks = [float(np.median([pair[side][1] for pair in runs])) for side in (0, 1)]
        self.add("cold process to first caption", seconds[0], seconds[1])
        self.add("its peak memory", peaks[0] / 2**30, peaks[1] / 2**30, "GiB")
        weights = self.weights.stat().st_size
        limit = 1.2 * weights + 1.5e9
        print(f"peak memory {peaks[0] / 1e9:.2f} GB; 1.2 x weights + 1.5 GB = {limit / 1e9:.2f} GB", flush=True)

    def growth(self, name: str, values: Sequence[int], options: Callable[[int], dict]) -> None:
        """One run of open_clip and the median of `rounds` of ours for each value."""
        for value in values:
            ours, _, theirs = self.check(**options(value))
            times = []
            for _ in range(self.rounds):
                time.sleep(0.5)
                start = time.perf_counter()
                ours()
                times.append(time.perf_counter() - start)
            self.add(f"{name} {value}", float(np.median(times)), theirs)

    def batches(self) -> None:
        self.growth("default captions, images:", BATCHES, lambda n: {"batch": n})

    def folder(self) -> None:
        from PIL import Image

        pictures, store = self.work / "pictures", self.work / "store"
        pictures.mkdir()
        noise = np.random.default_rng(0)
        for number in range(PICTURES):
            coarse = Image.fromarray(noise.integers(0, 255, (30, 40, 3), np.uint8))
            coarse.resize((640, 480)).save(pictures / f"{number}.jpg")
        command = [sys.executable, str(ROOT / "inference.py"), "-c", str(self.config), "--model_path"]
        command += [str(self.weights), str(pictures), "--output_dir"]
        environment = {**os.environ, "MINDONE_COCA_CACHE": str(store)}
        *_, theirs = self.check(batch=8)
        for run in ("graphs compiled", "graphs in the store"):
            start = time.perf_counter()
            subprocess.run([*command, str(self.work / run)], check=True, capture_output=True, env=environment)
            seconds = time.perf_counter() - start
            self.add(f"a folder of {PICTURES}, each, {run}", seconds / PICTURES, theirs / 8)
        graphs = sum(1 for path in store.rglob("*") if path.is_file())
        self.rows.append({"what": "graphs compiled by the folder's run", "ours": graphs})
        print(f"graphs compiled by the folder's run: {graphs}", flush=True)

    def lengths(self) -> None:
        context = yaml.safe_load(self.config.read_text())["multimodal_cfg"]["context_length"]
        lengths = range(10, min(70, context) + 1, 10)
        self.growth("greedy, tokens:", lengths, lambda n: {"generation_type": "top_k", "seq_len": n})

    def beams(self) -> None:
        counts = range(2, 13, 2)
        self.growth("15 tokens, beams:", counts, lambda n: {"num_beams": n, "num_beam_groups": 1, "seq_len": 15})

    def long(self) -> None:
        """With another model, of the same size but for its context."""
        config = yaml.safe_load(self.config.read_text())
        for tower in ("text_cfg", "multimodal_cfg"):
            config[tower]["context_length"] = LONG
        folder = self.work / "long"
        folder.mkdir()
        (folder / "long.yaml").write_text(yaml.safe_dump(config))
        other = Benchmark(str(folder / "long.yaml"), folder, self.rounds)
        options = {"generation_type": "top_k", "max_seq_len": LONG}
        other.growth("greedy, tokens:", range(50, 251, 50), lambda n: {**options, "seq_len": n})
        self.rows += other.rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="coca_vit-l-14")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    arguments = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        benchmark = Benchmark(arguments.config, Path(folder), arguments.rounds)
        target = arguments.output / f"speed_{benchmark.config.stem}.json"
        for section in arguments.sections:
            getattr(benchmark, section)()
            keep(target, section, benchmark.rows)
            benchmark.rows = []


if __name__ == "__main__":
    main()
