"""What the documents say that longer trainings reach; tests/test_readme_slow.py compares it with what they do."""

import re

from tests.documents.reading import ROOT

PAGES = {name: (ROOT / f"docs/{name}.md").read_text() for name in ("train", "tasks", "second_family", "finetune")}
TASKS = {  # the run: the beginning of its row in the table of docs/tasks.md
    "task_classification/": "classification, frozen",
    "task_classification_finetuned/": "classification, finetuned",
    "task_vqa/": "VQA",
    "task_entailment/": "entailment",
    "task_nlvr2/": "NLVR2",
    "task_motions/": "motions",
}
DEMO_ROWS = ("1,000 unseen scenes", "middle frames of 100 unseen videos")  # of the table in models/README.md
MIDDLE_FRAME = "the same from the middle frame (`data.frame_type=middle`)"  # a row that no command of the page gives


def percentages(text: str) -> list[float]:
    return [float(number) / 100 for number in re.findall(r"([\d.]+) %", text)]


def table_row(beginning: str) -> tuple[float, int, list[float]]:
    """A row of the table below the recipes of docs/tasks.md: share right, number of rows, shares in its other cells."""
    [table] = re.findall(r"^\| held-out scans only \|.*\n((?:\|.*\n)+)", PAGES["tasks"], re.M)
    [(label, right, rows, chance)] = re.findall(
        rf"^\| ({re.escape(beginning)}[^|]*)\|([^|]*)\|([^|]*)\|([^|]*)\|$", table, re.M
    )
    return percentages(right)[0], int(rows.replace(",", "")), percentages(label) + percentages(chance)


def digits_right(page: str) -> list[float]:
    """The shares of held-out digits that a page says are captioned and classified right."""
    beginning = {"train": "From scratch, ", "second_family": "`train_digits_parallel.yaml` trains it on the digits"}
    [written] = re.findall(rf"{beginning[page]}[^%]*%[^%]*%", PAGES[page])
    return percentages(written)


def style_right() -> tuple[int, int]:
    """The scenes that docs/finetune.md captions in another wording, and how many of these captions are right."""
    [(scenes, right)] = re.findall(r"Of (\d+)\s+scenes[^.]*\s(\d+) have the right caption", PAGES["finetune"])
    return int(scenes), int(right)


def demo_right(row: str) -> list[float]:
    """The shares in one of `DEMO_ROWS`."""
    [cells] = re.findall(rf"^\| {row} \|(.*)\|$", (ROOT / "models/README.md").read_text(), re.M)
    return percentages(cells)
