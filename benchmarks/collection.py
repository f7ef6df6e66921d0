"""What captioning a collection costs: against a call for each file, against the model's own time, and in memory.

    python benchmarks/collection.py [--sections rate memory]             # the tiny model
    python benchmarks/collection.py --sections cost -c coca_vit-l-14     # minutes, 4 GB

rate: clips a second of one run over a folder, against a process for each file, and against calling one VideoCaptioner
for each file in a warm process; and the share of the run in which the device is idle.
cost: seconds a frame of a run over images, against encoding and generating by themselves at the same batch size, and
against one image at a time.
memory: peak of a process that captions 1 minute and one that captions 60 minutes of footage, in segments.

Random weights: captions run to their full length, the longest case.
"""

import argparse
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("GLOG_v", "3")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402 the log level above must come first
from PIL import Image  # noqa: E402

from benchmarks.random_model import draw_weights  # noqa: E402
from benchmarks.results_files import PRINT_PEAK  # noqa: E402

SECTIONS = ("rate", "memory", "cost")
RUN = """
import sys
sys.path.insert(0, {root!r})
import inference
assert inference.main({arguments!r}) == 0
"""


class Benchmark:
    """A model with random weights, and a table of results."""

    def __init__(self, config: str, folder: Path) -> None:
        from mindone_coca.config import find_config

        self.folder, self.config = folder, find_config(config)
        self.weights = draw_weights(self.config, folder)
        self.model_arguments = ["-c", str(self.config), "--model_path", str(self.weights)]
        self.rows: list[dict] = []

    def add(self, name: str, value: float, unit: str) -> float:
        self.rows.append({"what": name, "value": round(value, 4), "unit": unit})
        print(f"{name:72} {value:10.3f} {unit}", flush=True)
        return value

    def captioner(self):
        from mindone_coca import VideoCaptioner

        return VideoCaptioner(self.config, self.weights)

    def run_here(self, *arguments: str | Path) -> tuple[float, str]:
        """Seconds that a run of inference.py's main takes in this process, and its last lines."""
        import inference

        output, errors = io.StringIO(), io.StringIO()
        begin = time.perf_counter()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            code = inference.main([*self.model_arguments, *map(str, arguments)])
        if code:
            raise SystemExit(errors.getvalue())
        return time.perf_counter() - begin, errors.getvalue()

    def rate(self) -> None:
        from tests.collection.clips import make_good

        paths = make_good(self.folder / "clips", 48)
        command = [sys.executable, str(ROOT / "inference.py"), *self.model_arguments, "--video_path"]
        subprocess.run([*command, *map(str, paths[:9])], check=True, capture_output=True)  # fills the store of graphs

        def seconds(files: list[Path], together: bool) -> float:
            begin = time.perf_counter()
            for group in [files] if together else [[file] for file in files]:
                subprocess.run([*command, *map(str, group)], check=True, capture_output=True)
            return time.perf_counter() - begin

        whole = self.add("one run, 48 clips", len(paths) / seconds(paths, True), "clips/s")
        each = self.add("a process for each clip (6 of them)", 6 / seconds(paths[:6], False), "clips/s")
        self.add("ratio", whole / each, "x")

        captioner = self.captioner()
        for path in paths[:2]:
            captioner(path)  # compiles
        begin = time.perf_counter()
        for path in paths[:16]:
            captioner(path)
        each = self.add("one warm VideoCaptioner, clip by clip", 16 / (time.perf_counter() - begin), "clips/s")
        _, errors = self.run_here("--video_path", *paths)
        found = re.search(r"([\d.]+) files/s; device idle (\d+) %", errors)
        if found is None:
            raise SystemExit(errors)
        rate, idle = found.groups()
        warm = self.add("one run in a process with graphs loaded, compiling included", float(rate), "clips/s")
        self.add("ratio", warm / each, "x")
        self.add("device idle", float(idle), "%")

    def cost(self, count: int = 24, rounds: int = 3) -> None:
        from mindone_coca.captioning.options import CaptionOptions
        from mindone_coca.captioning.reading import PassageReader, ReadAhead

        captioner = self.captioner()
        model, size = captioner.model, captioner.config.vision_cfg.image_hw
        noise = np.random.default_rng(0)
        (self.folder / "images").mkdir()
        paths = []
        for number in range(count):
            pixels = noise.integers(0, 255, (size[0] // 16, size[1] // 16, 3), np.uint8)
            paths.append(str(self.folder / f"images/{number}.png"))
            Image.fromarray(pixels).resize((640, 480)).save(paths[-1])
        images = np.stack([captioner.transform(Image.open(path)) for path in paths[:8]])
        _, tokens = model.encode_image_tokens(images)
        options = CaptionOptions()
        whole = captioner.batches(options)

        def run() -> None:
            with ReadAhead(PassageReader(options, captioner.transform, False), 1, 1) as reader:
                passages = (passage for _, items in reader.files(paths) for passage in items)
                if sum(1 for _ in whole(passages)) != count:
                    raise SystemExit("captions are missing")

        def generate() -> None:
            model.generate(None, image_embs=tokens, return_scores=True)[0].asnumpy()

        parts: dict[str, tuple[Callable, int]] = {
            "encode, batch 8": (lambda: model.encode_image_tokens(images)[1].asnumpy(), 8),
            "generate, batch 8": (generate, 8),
            "one image at a time": (lambda: model.generate(images[:1], return_scores=True)[0].asnumpy(), 1),
            f"collection of {count} images": (run, count),
        }
        times: dict[str, list[float]] = {name: [] for name in parts}
        for call, _ in parts.values():
            call()  # compiles
        for _ in range(rounds):  # in turn, so that the machine's moods meet all alike
            for name, (call, frames) in parts.items():
                begin = time.perf_counter()
                call()
                times[name].append((time.perf_counter() - begin) / frames)
        encode, decode, single, collection = (
            self.add(f"{name}, a frame", float(np.median(values)), "s") for name, values in times.items()
        )
        self.add("collection against encode and generate at batch 8", collection / (encode + decode), "x")
        self.add("collection against one image at a time", collection / single, "x")

    def memory(self) -> None:
        from tests.video.clips import REAL_CLIPS, run_ffmpeg

        minute, hour = self.folder / "minute.mp4", self.folder / "hour.mp4"
        loop = ["-stream_loop", "-1", "-i", str(REAL_CLIPS[0]), "-t", "60"]
        run_ffmpeg(*loop, "-an", "-s", "192x108", "-c:v", "libx264", "-preset", "ultrafast", "-g", "50", minute)
        run_ffmpeg("-stream_loop", "59", "-i", minute, "-c", "copy", hour)
        for what, options in {
            "segments of 10 s": ["--segment_seconds", "10", "--merge_similarity", "1"],
            "scenes": ["--merge_similarity", "0.5"],  # few captions: it is the reading that is looked at
        }.items():
            peaks = []
            for target, path in (("first", minute), ("minute", minute), ("hour", hour)):
                arguments = [
                    *self.model_arguments,
                    "--video_path",
                    str(path),
                    "--frame_type",
                    "segments",
                    *options,
                    "--seq_len",
                    "8",
                    "--output_dir",
                    str(self.folder / f"{target} {what}"),
                    "--output_format",
                    "all",
                ]
                source = RUN.format(root=str(ROOT), arguments=arguments) + PRINT_PEAK
                begin = time.perf_counter()
                done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
                if done.returncode:
                    raise SystemExit(done.stderr)
                if target == "first":  # it compiles, the others find its graphs
                    continue
                seconds = time.perf_counter() - begin
                peaks.append(int(done.stdout.splitlines()[-1]) / 2**20)
                captions = len(done.stdout.splitlines()) - 1
                self.add(f"{what}, {path.stem}: {captions} captions, {seconds:.0f} s, peak memory", peaks[-1], "MiB")
            self.add(f"{what}: 60 minutes against 1", peaks[1] / peaks[0], "x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", default="coca_tiny")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=["rate", "memory"])
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        benchmark = Benchmark(arguments.config, Path(folder))
        for section in arguments.sections:
            getattr(benchmark, section)()
        arguments.output.mkdir(parents=True, exist_ok=True)
        name = f"collection_{'_'.join(arguments.sections)}_{Path(arguments.config).stem}.json"
        (arguments.output / name).write_text(json.dumps(benchmark.rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
