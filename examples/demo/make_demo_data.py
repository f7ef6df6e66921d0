#!/usr/bin/env python
"""Draw the synthetic world of the demo model: scenes of one to three shapes with their captions, and short videos.

    python examples/demo/make_demo_data.py --target data/demo
    python examples/demo/make_demo_data.py --demo_video assets/demo.mp4

The folder gets train-*.tar and, of single shapes, single-*.tar (webdataset), val.csv with scenes of the training
combinations, held_out.csv and videos.csv with scenes of combinations that training never shows; demo_scenes.py says
what a scene and its caption are.
Every file follows from the seed. Exit code 2: bad usage.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for a checkout that is not installed

from mindone_coca.interrupts import watch_signals

watch_signals(__name__)  # before the imports that take long

import argparse
import csv
import io
import os
import tarfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from demo_drawing import draw_scene, write_video
from demo_scenes import COLOURS, Shape, describe, sample_scene
from PIL import Image

from mindone_coca.cli.common import Parser, run_cli, say_written, with_progress
from mindone_coca.errors import InputError
from mindone_coca.files import atomic_folder, atomic_path, check_output
from mindone_coca.video.frames import read_frames

SPLITS = {"train": 0, "val": 1, "held_out": 2, "videos": 3, "demo": 4, "single": 5}
SHARD_SIZE = 5000
VIDEO_SIDE, VIDEO_FRAMES, VIDEO_RATE = 192, 49, 24


def demo_scene() -> list[Shape]:
    """The bundled video's scene, one that training never shows."""
    return [
        Shape("red", "star", 32, 17, 12.5, -4, COLOURS["red"]),
        Shape("yellow", "ring", 31, 52.5, 7.8, 0, COLOURS["yellow"]),
    ]


def generator(seed: int, split: str, index: int) -> np.random.Generator:
    """The random numbers of one sample, which depend on nothing else."""
    return np.random.default_rng((seed, SPLITS[split], index))


def make_image(seed: int, split: str, index: int) -> tuple[bytes, str]:
    """One sample of a split: the encoded JPEG of 64 x 64 pixels, and its caption."""
    rng = generator(seed, split, index)
    shapes = sample_scene(rng, split == "held_out", "one" if split == "single" else None)
    encoded = io.BytesIO()
    draw_scene(rng, shapes, 64).save(encoded, "JPEG", quality=int(rng.integers(85, 96)), subsampling=0)
    return encoded.getvalue(), describe(shapes)


def make_video(seed: int, index: int, path: Path) -> str:
    """Write one held-out video; returns its caption."""
    rng = generator(seed, "videos", index)
    shapes = sample_scene(rng, held_out=True)
    write_video(path, rng, shapes, VIDEO_SIDE, VIDEO_FRAMES, VIDEO_RATE)
    return describe(shapes)


def write_shard(path: Path, seed: int, split: str, start: int, stop: int) -> None:
    """The samples `start` to `stop` of a training split as a webdataset shard of .jpg and .txt."""
    with tarfile.open(path, "w") as archive:
        for index in range(start, stop):
            image, caption = make_image(seed, split, index)
            for suffix, content in (("jpg", image), ("txt", caption.encode())):
                member = tarfile.TarInfo(f"{index:08d}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def write_list(folder: Path, name: str, rows: Sequence[tuple[str, str]]) -> None:
    with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("filepath", "title"), *rows])


def write_data(target: Path, train: int, single: int, held_out: int, videos: int, seed: int, workers: int) -> None:
    """Write all splits into the folder `target`, which appears when it is complete. Raises InputError if it exists."""
    if target.exists():
        raise InputError(f"{target}: exists already; remove it or choose another --target")
    check_output(target, "choose another --target")
    with atomic_folder(target) as folder:
        for name in ("val", "held_out", "videos"):
            (folder / name).mkdir()
        for name, count in (("val", held_out), ("held_out", held_out)):
            rows = []
            for index in with_progress(range(count), count, f"drawing {name}"):
                image, caption = make_image(seed, name, index)
                rows.append((f"{name}/{index:05d}.jpg", caption))
                (folder / rows[-1][0]).write_bytes(image)
            write_list(folder, name, rows)
        with ProcessPoolExecutor(workers) as pool:
            paths = [f"videos/{index:04d}.mp4" for index in range(videos)]
            drawn = [pool.submit(make_video, seed, index, folder / path) for index, path in enumerate(paths)]
            shards = [
                pool.submit(
                    write_shard,
                    folder / f"{split}-{start // SHARD_SIZE:04d}.tar",
                    seed,
                    split,
                    start,
                    min(start + SHARD_SIZE, samples),
                )
                for split, samples in (("single", single), ("train", train))
                for start in range(0, samples, SHARD_SIZE)
            ]
            for job in with_progress(shards, len(shards), "drawing training shards"):
                job.result()
            write_list(folder, "videos", list(zip(paths, (job.result() for job in drawn))))


def write_demo_video(path: Path, seed: int) -> str:
    """Write the bundled video, four seconds of 256 x 256 pixels, and beside it five of its frames as `*_frames.png`;
    returns its caption."""
    check_output(path, "choose another --demo_video", folder=False)
    with atomic_path(path) as partial:
        write_video(partial, generator(seed, "demo", 0), demo_scene(), 256, 97, 24)
    frames = [frame.rgb for frame in read_frames(path, "multi_frames", 5)]
    with atomic_path(path.with_name(f"{path.stem}_frames.png")) as partial:
        Image.fromarray(np.concatenate(frames, 1)).save(partial, "PNG")
    return describe(demo_scene())


def count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--target", type=Path, help="folder to make: train-*.tar, val.csv, held_out.csv, videos.csv")
    what.add_argument("--demo_video", type=Path, help="write the bundled video alone to this .mp4 file, and its frames")
    parser.add_argument("--train", type=count, default=60000, help="training images (default 60000)")
    parser.add_argument("--single", type=count, default=20000, help="training images of one shape (default 20000)")
    parser.add_argument(
        "--held_out", type=count, default=1000, help="images held out, and to validate by (default 1000)"
    )
    parser.add_argument("--videos", type=count, default=100, help="held-out videos (default 100)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=count, default=os.cpu_count(), help="processes (default: one for each core)")
    options = parser.parse_args(arguments)

    def run() -> None:
        if options.demo_video:
            print(write_demo_video(options.demo_video, options.seed))
            say_written("a video", options.demo_video)
        else:
            write_data(
                options.target,
                options.train,
                options.single,
                options.held_out,
                options.videos,
                options.seed,
                options.workers,
            )
            samples = f"{options.train:,} and {options.single:,} training images, {options.held_out:,} held out"
            say_written(f"{samples}, {options.videos:,} videos", options.target)

    return run_cli(run)


if __name__ == "__main__":
    sys.exit(main())
