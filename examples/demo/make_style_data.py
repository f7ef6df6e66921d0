#!/usr/bin/env python
"""Draw scenes of the demo model's world with captions in another wording, for configs/finetune_style_demo.yaml.

    python examples/demo/make_style_data.py --target data/style

"a large red star above a small yellow ring" becomes "one big red star over a little yellow ring". The folder gets
train.csv, val.csv and held_out.csv with their pictures; those to train on are new ones of the combinations that the
demo model was trained on, the others are of its splits of these names. Every file follows from the seed. Exit code 2:
bad usage.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for a checkout that is not installed

from mindone_coca.interrupts import watch_signals

watch_signals(__name__)  # before the imports that take long

import argparse
from collections.abc import Sequence

from make_demo_data import count, make_image, write_list

from mindone_coca.cli.common import Parser, run_cli, say_written, with_progress
from mindone_coca.errors import InputError
from mindone_coca.files import atomic_folder, check_output

WORDS = {"large": "big", "small": "little", "above": "over", "below": "under"}
TRAINED_ON = 60000  # pictures of the split `train` that the demo model has seen


def restyled(caption: str) -> str:
    """A caption in the other wording: it begins with `one` in place of `a`, and four words have others."""
    first, *rest = [WORDS.get(word, word) for word in caption.split()]
    return " ".join(["one" if first in ("a", "an") else first, *rest])


def write_data(target: Path, train: int, held_out: int, seed: int) -> None:
    """Write all splits into the folder `target`, which appears when it is complete. Raises InputError if it exists."""
    if target.exists():
        raise InputError(f"{target}: exists already; remove it or choose another --target")
    check_output(target, "choose another --target")
    with atomic_folder(target) as folder:
        for name, first, pictures in (("train", TRAINED_ON, train), ("val", 0, held_out), ("held_out", 0, held_out)):
            (folder / name).mkdir()
            rows = []
            for index in with_progress(range(first, first + pictures), pictures, f"drawing {name}"):
                image, caption = make_image(seed, name, index)
                rows.append((f"{name}/{index:05d}.jpg", restyled(caption)))
                (folder / rows[-1][0]).write_bytes(image)
            write_list(folder, name, rows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__)
    parser.add_argument("--target", type=Path, required=True, help="folder to make: train.csv, val.csv, held_out.csv")
    parser.add_argument("--train", type=count, default=4000, help="training images (default 4000)")
    parser.add_argument("--held_out", type=count, default=300, help="images to validate by, and held out (default 300)")
    parser.add_argument("--seed", type=int, default=0)
    options: argparse.Namespace = parser.parse_args(arguments)

    def run() -> None:
        write_data(options.target, options.train, options.held_out, options.seed)
        say_written(f"{options.train:,} training images, twice {options.held_out:,} others", options.target)

    return run_cli(run)


if __name__ == "__main__":
    sys.exit(main())
