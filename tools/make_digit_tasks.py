"""Write downstream tasks made of scikit-learn's digit scans, to train on and to be measured on held-out scans.

python tools/make_digit_tasks.py data/digit_tasks [--tasks vqa motions] [--seed 0]

Makes a folder for each task with pictures or clips (32 px), train.csv and val.csv. Every fifth scan occurs in val.csv
only.

vqa             one or two digits and a question, such as "which is larger?" (filepath, question, answer)
entailment      two digits, often one of them covered, and a sentence about them, of which the picture shows that it is
                so (entailment), that it is not (contradiction), or neither, as it speaks of what is covered (neutral).
                Each sentence occurs equally often with each label (filepath, sentence, label)
nlvr2           two pictures of a digit each and a sentence, such as "the left digit is larger", which is true or false
                equally often (left, right, sentence, label)
motions         clips of a digit that moves right, left, down or up, or grows; their middle frames look alike
                (filepath, label)
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from itertools import permutations, product
from pathlib import Path

import numpy as np
from digit_pictures import MOTIONS, Scans, clip, picture_of_one, picture_of_two, write_clip
from make_digits import NAMES, draw_digit, write_rows

Row = tuple[list, list[str]]  # the pictures, or the frames of a clip; and the columns after their files'
ANSWERS: dict[str, Callable[[list[int]], str]] = {
    "how many digits?": lambda digits: NAMES[len(digits)],
    "which digit is it?": lambda digits: NAMES[digits[0]],
    "which is larger?": lambda digits: NAMES[max(digits)],
    "which is smaller?": lambda digits: NAMES[min(digits)],
    "which is on the left?": lambda digits: NAMES[digits[0]],
    "which is on the right?": lambda digits: NAMES[digits[1]],
}
STATEMENTS: dict[str, Callable[[int, int], bool]] = {
    "the left digit is larger": lambda left, right: left > right,
    "the right digit is larger": lambda left, right: right > left,
    "both digits are even": lambda left, right: left % 2 == right % 2 == 0,
    "a digit is above six": lambda left, right: max(left, right) > 6,
}


def vqa(scans: Scans, count: int, rng: np.random.Generator) -> Iterator[Row]:
    """Rows go through all questions; how many digits there are is asked of one as often as of two."""
    cases = [(question, 2) for question in ANSWERS if question != "which digit is it?"]
    cases += [("how many digits?", 1), ("which digit is it?", 1)]
    for number in range(count):
        question, shown = cases[number % len(cases)]
        digits = rng.choice(10, shown, replace=False).tolist()
        drawn = [scans.draw(digit, rng) for digit in digits]
        image = picture_of_one(*drawn, rng) if shown == 1 else picture_of_two(*drawn)
        yield [image], [question, ANSWERS[question](digits)]


def entailment(scans: Scans, count: int, rng: np.random.Generator) -> Iterator[Row]:
    """Rows go through all sentences with each of the labels, so that a sentence alone tells nothing."""
    cases = list(product(range(2), range(10), ("entailment", "neutral", "contradiction")))
    for number in range(count):
        side, digit, label = cases[number % len(cases)]
        digits = rng.integers(10, size=2)
        if label == "entailment":
            digits[side] = digit
        elif label == "contradiction":
            digits[side] = (digit + rng.integers(1, 10)) % 10
        covered = side if label == "neutral" else 1 - side if rng.random() < 0.5 else None
        image = picture_of_two(scans.draw(digits[0], rng), scans.draw(digits[1], rng), covered)
        yield [image], [f"the {('left', 'right')[side]} digit is {NAMES[digit]}", label]


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
    "vqa": (vqa, ("filepath", "question", "answer"), 7000),
    "entailment": (entailment, ("filepath", "sentence", "label"), 6000),
    "nlvr2": (nlvr2, ("left", "right", "sentence", "label"), 6000),
    "motions": (motions, ("filepath", "label"), 1500),
}


def write_task(folder: Path, task: str, seed: int = 0, count: int | None = None) -> None:
    """Write `count` rows to train on, and for validation a fifth as many."""
    rows_of, columns, usual = TASKS[task]
    count = count or usual
    for part, size in (("train", count), ("val", count // 5)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng((seed, list(TASKS).index(task), part == "val"))
        rows = []
        for number, (images, said) in enumerate(rows_of(Scans(part == "val"), size, rng)):
            stem = f"{part}/{number:05d}"
            if task == "motions":
                names = [f"{stem}.mp4"]
                write_clip(folder / names[0], images)
            else:
                names = [f"{stem}.png"] if len(images) == 1 else [f"{stem}_left.png", f"{stem}_right.png"]
                for name, image in zip(names, images, strict=True):
                    image.save(folder / name)
            rows.append((*names, *said))
        write_rows(folder / f"{part}.csv", columns, rows)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, help="rows to train on, for each task")
    arguments = parser.parse_args(argv)
    for task in arguments.tasks:
        write_task(arguments.folder / task, task, arguments.seed, arguments.count)


if __name__ == "__main__":
    main()
