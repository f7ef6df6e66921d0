"""Write scikit-learn's 1,797 scans of handwritten digits as images with captions, to train on.

python tools/make_digits.py data/digits

Makes images/*.png (32 px), train.csv and, with every fifth scan, val.csv (columns filepath, title, label).
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIDE = 32


def write_digits(folder: Path, limit: int | None = None) -> None:
    """Write the first `limit` scans, or all."""
    from sklearn.datasets import load_digits

    scans = load_digits()
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows: dict[str, list] = {"train.csv": [], "val.csv": []}
    for number, (scan, label) in enumerate(zip(scans.images[:limit], scans.target[:limit])):
        path = Path("images") / f"{number:04d}.png"
        pixels = np.round(scan * 255 / 16).astype(np.uint8)  # they have 17 grey levels
        Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(folder / path)
        name = "val.csv" if number % 5 == 4 else "train.csv"
        rows[name].append((path, f"a handwritten {NAMES[label]}", label))
    for name, lines in rows.items():
        with open(folder / name, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("filepath", "title", "label"), *lines])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, help="only this many scans")
    arguments = parser.parse_args(argv)
    write_digits(arguments.folder, arguments.limit)


if __name__ == "__main__":
    main()
