"""Write scikit-learn's 1,797 scans of handwritten digits as images with captions, to train on.

python examples/digits/make_digits.py data/digits

Makes images/*.png (32 px), train.csv and, with every fifth scan, val.csv (columns filepath, title, label). --held_out
says which fifth: on one that no setting was chosen by, a recipe shows what it is worth. Exit code 2: bad usage, or a
folder that cannot be written.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for a checkout that is not installed

from mindone_coca.interrupts import watch_signals

watch_signals(__name__)  # before the imports that take long

import csv
from collections.abc import Sequence

import numpy as np
from PIL import Image

from mindone_coca.cli.common import Parser, run_cli, say_written, with_progress
from mindone_coca.files import atomic_folder, check_output

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIDE = 32
HELD_OUT = 4  # the number of the fifth that is never trained on, 0 to 4, if nobody says another


def load_scans() -> tuple[np.ndarray, np.ndarray]:
    """All scans, (1797, 8, 8) uint8, and the digits that they show."""
    from sklearn.datasets import load_digits

    scans = load_digits()
    return np.round(scans.images * 255 / 16).astype(np.uint8), scans.target  # they have 17 grey levels


def draw_digit(scan: np.ndarray, side: int = SIDE) -> Image.Image:
    """A scan as a grey picture of `side` pixels."""
    return Image.fromarray(scan).resize((side, side), Image.Resampling.BICUBIC)


def is_held_out(number: int, fifth: int = HELD_OUT) -> bool:
    """Whether a scan belongs to the fifth that is never trained on."""
    return number % 5 == fifth


def add_held_out(parser: Parser) -> None:
    """Add the option that says which fifth."""
    parser.add_argument(
        "--held_out",
        type=int,
        choices=range(5),
        default=HELD_OUT,
        help=f"which fifth of the scans is in val.csv only (default {HELD_OUT})",
    )


def write_rows(path: Path, columns: Sequence[str], rows: Sequence[Sequence]) -> None:
    """Write a CSV file."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


def write_digits(folder: Path, limit: int | None = None, held_out: int = HELD_OUT) -> None:
    """Write the first `limit` scans, or all, and say so."""
    check_output(folder, "choose another folder")
    rows: dict[str, list] = {"train.csv": [], "val.csv": []}
    scans = list(zip(*load_scans(), strict=True))[:limit]
    with atomic_folder(folder) as made:
        (made / "images").mkdir()
        for number, (scan, label) in enumerate(with_progress(scans, len(scans), f"writing {folder}")):
            path = Path("images") / f"{number:04d}.png"
            draw_digit(scan).save(made / path)
            name = "val.csv" if is_held_out(number, held_out) else "train.csv"
            rows[name].append((path, f"a handwritten {NAMES[label]}", label))
        for name, lines in rows.items():
            write_rows(made / name, ("filepath", "title", "label"), lines)
    say_written(" and ".join(f"{name} of {len(lines):,} scans" for name, lines in rows.items()), folder)


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, help="only this many scans")
    add_held_out(parser)
    arguments = parser.parse_args(argv)
    return run_cli(lambda: write_digits(arguments.folder, arguments.limit, arguments.held_out))


if __name__ == "__main__":
    sys.exit(main())
