"""Write downstream tasks made of scikit-learn's digit scans, to train on and to be measured on held-out scans.

python examples/digits/make_digit_tasks.py data/digit_tasks [--tasks vqa motions] [--seed 0]

Makes a folder for each task with pictures or clips (32 px), train.csv and val.csv. Every fifth scan occurs in val.csv
only; --held_out says which fifth, as for make_digits.py.

vqa             one or two digits and a question, such as "which is larger?" (filepath, question, answer)
entailment      two digits, often one of them covered, and a sentence about them, of which the picture shows that it is
                so (entailment), that it is not (contradiction), or neither, as it speaks of what is covered (neutral).
                Each sentence occurs equally often with each label (filepath, sentence, label)
nlvr2           two pictures of a digit each and a sentence, such as "the left digit is larger", which is true or false
                equally often (left, right, sentence, label)
motions         clips of a digit that moves right, left, down or up, or grows; their middle frames look alike
                (filepath, label)
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for a checkout that is not installed

from mindone_coca.interrupts import watch_signals

watch_signals(__name__)  # before the imports that take long

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import permutations, product

import numpy as np
from digit_pictures import MOTIONS, Scans, clip, side_by_side, write_clip
from make_digits import HELD_OUT, NAMES, add_held_out, draw_digit, write_rows
from PIL import Image

from mindone_coca.cli.common import Parser, run_cli, say_written, with_progress
from mindone_coca.files import atomic_folder, check_output

Row = tuple[list, list[str]]  # the pictures, or the frames of a clip; and the columns after their files'
ANSWERS: dict[str, Callable[..., str]] = {  # for the digits left and right, of which one may lack
    "how many digits?": lambda left, right: NAMES[(left is not None) + (right is not None)],
    "which digit is it?": lambda left, right: NAMES[right if left is None else left],
    "which is larger?": lambda left, right: NAMES[max(left, right)],
    "which is smaller?": lambda left, right: NAMES[min(left, right)],
    "which is on the left?": lambda left, right: "none" if left is None else NAMES[left],
    "which is on the right?": lambda left, right: "none" if right is None else NAMES[right],
}
# No property or statement is another one's opposite: so pictures alone say something about the labels, from which
# the digits are learned first.
PROPERTIES: dict[str, Callable[[int], bool]] = {
    "above two": lambda digit: digit > 2,
    "above four": lambda digit: digit > 4,
    "above six": lambda digit: digit > 6,
}
STATEMENTS: dict[str, Callable[[int, int], bool]] = {
    "the left digit is larger": lambda left, right: left > right,
    "the left digit is even": lambda left, right: left % 2 == 0,
    "both digits are above three": lambda left, right: min(left, right) > 3,
    "a digit is above seven": lambda left, right: max(left, right) > 7,
}


def vqa(scans: Scans, count: int, rng: np.random.Generator) -> Iterator[Row]:
    """Rows go through all questions, each of one digit, of two, or as often of one as of two."""
    cases = [(question, 1) for question in ANSWERS if question not in ("which is larger?", "which is smaller?")]
    cases += [(question, 2) for question in ANSWERS if question != "which digit is it?"]
    for number in range(count):
        question, shown = cases[number % len(cases)]
        digits: list[int | None] = rng.choice(10, 2, replace=False).tolist()
        if shown == 1:
            digits[rng.integers(2)] = None
        yield [_drawn(scans, digits, rng)], [question, ANSWERS[question](*digits)]


def entailment(scans: Scans, count: int, rng: np.random.Generator) -> Iterator[Row]:
    """Rows go through all sentences with each of the labels, so that a sentence alone tells nothing."""
    cases = list(product(range(2), PROPERTIES, ("entailment", "neutral", "contradiction")))
    for number in range(count):
        side, words, label = cases[number % len(cases)]
        while True:
            digits = rng.integers(10, size=2).tolist()
            if label == "neutral" or PROPERTIES[words](digits[side]) == (label == "entailment"):
                break
        covered = side if label == "neutral" else 1 - side if rng.random() < 0.5 else None
        yield [_drawn(scans, digits, rng, covered)], [f"the {('left', 'right')[side]} digit is {words}", label]


def _drawn(scans: Scans, digits: list[int | None], rng: np.random.Generator, covered: int | None = None) -> Image.Image:
    return side_by_side([None if digit is None else scans.draw(digit, rng) for digit in digits], covered)


def nlvr2(scans: Scans, count: int, rng: np.random.Generator) -> Iterator[Row]:
    cases = [(statement, value) for statement in STATEMENTS for value in (True, False)]
    for number in range(count):
        statement, value = cases[number % len(cases)]
        fitting = [pair for pair in permutations(range(10), 2) if STATEMENTS[statement](*pair) == value]
        digits = fitting[rng.integers(len(fitting))]
        yield [draw_digit(scans.draw(digit, rng)) for digit in digits], [statement, str(value)]


def motions(scans: Scans, count: int, rng: np.random.Generator) -> Iterator[Row]:
    for number in range(count):
        motion = tuple(MOTIONS)[number % len(MOTIONS)]
        yield clip(scans.draw(rng.integers(10), rng), motion, rng), [motion]


# Each task's rows, their columns, and how many there are to train on.
TASKS: dict[str, tuple[Callable[[Scans, int, np.random.Generator], Iterator[Row]], tuple[str, ...], int]] = {
    "vqa": (vqa, ("filepath", "question", "answer"), 9000),
    "entailment": (entailment, ("filepath", "sentence", "label"), 6000),
    "nlvr2": (nlvr2, ("left", "right", "sentence", "label"), 6000),
    "motions": (motions, ("filepath", "label"), 1500),
}


def write_task(folder: Path, task: str, seed: int = 0, count: int | None = None, held_out: int = HELD_OUT) -> None:
    """Write `count` rows to train on, and for validation a fifth as many, and say so."""
    count = count or TASKS[task][2]
    check_output(folder, "choose another folder")
    with atomic_folder(folder) as made:
        for part, size in (("train", count), ("val", count // 5)):
            (made / part).mkdir()
            rng = np.random.default_rng((seed, list(TASKS).index(task), part == "val"))
            rows = TASKS[task][0](Scans(part == "val", held_out), size, rng)
            _write_part(made, part, task, with_progress(rows, size, f"writing {folder / part}"))
    say_written(f"train.csv of {count:,} rows and val.csv of {count // 5:,}", folder)


def _write_part(folder: Path, part: str, task: str, made: Iterable[Row]) -> None:
    rows = []
    for number, (images, said) in enumerate(made):
        stem = f"{part}/{number:05d}"
        if task == "motions":
            names = [f"{stem}.mp4"]
            write_clip(folder / names[0], images)
        else:
            names = [f"{stem}.png"] if len(images) == 1 else [f"{stem}_left.png", f"{stem}_right.png"]
            for name, image in zip(names, images, strict=True):
                image.save(folder / name)
        rows.append((*names, *said))
    write_rows(folder / f"{part}.csv", TASKS[task][1], rows)


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, help="rows to train on, for each task")
    add_held_out(parser)
    arguments = parser.parse_args(argv)

    def run() -> None:
        for task in arguments.tasks:
            write_task(arguments.folder / task, task, arguments.seed, arguments.count, arguments.held_out)

    return run_cli(run)


if __name__ == "__main__":
    sys.exit(main())
