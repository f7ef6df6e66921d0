"""The documents' trainings as they stand there, in their order, and their figures beside what they give.

tools/slow_tests.py names a folder in which what has run is kept for as long as the sources stay the same: the tests
build upon each other, and each runs in a process of its own.
"""

import csv
import json
import os
import re
import resource
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from examples.digits.make_digits import NAMES
from mindone_coca.factory import create_model, find_config_and_weights
from mindone_coca.preprocess.tokenizer import Tokenizer
from mindone_coca.preprocess.transforms import create_transforms
from tests.documents.checkout import Checkout, ProcessCheckout
from tests.documents.figures import DEMO_ROWS, MIDDLE_FRAME, TASKS, demo_right, digits_right, style_right, table_row
from tests.documents.reading import Piece
from tests.documents.table import COLLECTION, DIGITS, FINETUNE, TABLE
from tests.documents.walk import Walk, read_documents, replaced
from tests.documents.ways import collection, finetune_data
from tests.frames import greedy_captions
from tests.training.runs import free_port

pytestmark = pytest.mark.slow

SHOWN = read_documents()
EVALUATED = "docs/evaluate.md: An example: the digits"
ONE_CARD, SEVERAL_CARDS = "docs/finetune.md: On one card", "docs/finetune.md: On several cards"
TASK_RECIPES = "docs/tasks.md: Recipes"
OTHER_FAMILY = "docs/second_family.md: Training"
CONVERT = "docs/convert.md: Convert weights"
# seen when tests are collected, so that no section is renamed without these long tests
assert {EVALUATED, ONE_CARD, SEVERAL_CARDS, TASK_RECIPES, OTHER_FAMILY, CONVERT, COLLECTION, DIGITS, FINETUNE} <= set(
    SHOWN
)
MINUTES = 15  # a recipe may take, on two cores that do nothing else
NEAR = 0.02  # how far a figure may lie from the documents'
NEAR_VQA = 0.04  # its last digits decide how soon left is told from right
DIRECTIONS = ("right", "left", "down", "up")


@pytest.fixture(scope="session")
def work(tmp_path_factory) -> ProcessCheckout:
    kept = os.environ.get("MINDONE_COCA_SLOW_WORK")
    return ProcessCheckout(Path(kept) / "readme" if kept else tmp_path_factory.mktemp("readme") / "checkout")


def commands(section: str, *words: str) -> list[Piece]:
    """The commands of a section that have one of these words."""
    pieces = [piece for piece in SHOWN[section] if piece.kind == "command"]
    return [piece for piece in pieces if any(word in piece.text for word in words)]


def command(section: str, *words: str) -> str:
    [found] = [piece.text for piece in commands(section, words[0]) if all(word in piece.text for word in words)]
    return found


def train(work: ProcessCheckout, text: str) -> None:
    minutes = work.result(text)["seconds"] / 60
    print(f"{text}: {minutes:.1f} min")
    assert minutes <= MINUTES


def metrics(printed: str) -> dict[str, float]:
    """What evaluate.py prints."""
    return {name: float(value) for name, value in (line.split() for line in printed.splitlines())}


def check_figures(work: ProcessCheckout, piece: Piece) -> None:
    """The metrics that stand behind a command, as a comment, are near those that it prints."""
    found = metrics(work.run(piece.text))
    figures = re.findall(r"(\S+) ([\d.]+)", piece.comment)
    assert figures, f"{piece.text}: no figures behind it"
    print(", ".join(f"{name} {found[name]}" for name, _ in figures))
    for name, value in figures:
        assert found[name] == pytest.approx(float(value), abs=NEAR), f"{name} of {piece.text}"


def read_rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def held_out_digits(run: Path, digits: Path) -> tuple[float, float]:
    """The shares of a digits model's held-out captions that are right, and of scans classified right by similarity."""
    config, weights = find_config_and_weights(run / "final.yaml", None)
    model, preprocess = create_model(config, weights), config.preprocess
    transform = create_transforms(config.image_hw, preprocess.mean, preprocess.std)
    rows = read_rows(digits / "val.csv")
    images = np.stack([transform(Image.open(digits / row["filepath"])) for row in rows])
    captions = greedy_captions(model, list(images[:, None]))
    features = np.concatenate([model.encode_image(images[i : i + 50]).asnumpy() for i in range(0, len(images), 50)])
    right = np.mean([caption == row["title"] for caption, row in zip(captions, rows)])
    classes = Tokenizer()([f"a handwritten {name}" for name in NAMES], context_length=model.context_length)
    guesses = (features @ model.encode_text(classes).asnumpy().T).argmax(1)
    zero_shot = np.mean(guesses == [int(row["label"]) for row in rows])
    print(f"{len(rows)} held-out digits: {right:.1%} of captions right, zero-shot {zero_shot:.1%}")
    assert len(rows) == 359
    return float(right), float(zero_shot)


@pytest.fixture(scope="session")
def digits(work) -> ProcessCheckout:
    """With the digits and the model that docs/train.md trains on them."""
    work.run(command(DIGITS, "make_digits.py"))
    train(work, command(DIGITS, "train.py"))
    return work


def test_digits(digits):
    assert digits.run(command(DIGITS, "inference.py")) == "a handwritten four\n"
    found = held_out_digits(digits.path("outputs/digits"), digits.path("data/digits"))
    assert found == pytest.approx(digits_right("train"), abs=NEAR)


def test_digits_evaluated(digits):
    """The metrics stand behind the commands, as comments."""
    for piece in commands(EVALUATED, "echo"):
        digits.run(piece.text)
    shown = [piece for piece in commands(EVALUATED, "outputs/digits") if piece.comment]
    assert len(shown) == 3
    for piece in shown:
        check_figures(digits, piece)


def test_scenes_found_by_their_captions(work):
    make, find = commands(EVALUATED, "data/scenes")
    work.run(make.text)
    check_figures(work, find)


def guessed_from_sentences(rows: list[dict[str, str]], sentence: str, label: str) -> float:
    """The accuracy of one who sees the sentences only and knows how often each has which label."""
    labels: dict[str, Counter] = defaultdict(Counter)
    for row in rows:
        labels[row[sentence]][row[label]] += 1
    return sum(max(counts.values()) for counts in labels.values()) / len(rows)


def task_model(digits: ProcessCheckout, run: str) -> dict[str, float]:
    """Train and evaluate as docs/tasks.md does -> metrics."""
    digits.run(command(TASK_RECIPES, "make_digit_tasks.py"))
    pieces = commands(TASK_RECIPES, "python train.py", "python evaluate.py")
    place = next(i for i, piece in enumerate(pieces) if f"outputs/{run}" in piece.text)
    train(digits, pieces[place - 1].text)
    found = metrics(digits.run(pieces[place].text))
    print(run, found)
    return found


@pytest.mark.parametrize("run", TASKS)
def test_downstream_task(digits, run):
    found = task_model(digits, run)
    right, rows, _ = table_row(TASKS[run])
    assert found["accuracy"] == pytest.approx(right, abs=NEAR_VQA if run == "task_vqa/" else NEAR)
    assert found["samples"] == rows


def test_questions_one_by_one(digits):
    task_model(digits, "task_vqa/")
    _, _, (larger, how_many, guessed) = table_row("VQA")
    rows = read_rows(digits.path("reports/vqa/predictions.csv"))
    for question, share in (("which is larger?", larger), ("how many digits?", how_many)):
        right = np.mean([row["expected"] == row["predicted"] for row in rows if row["sentence"] == question])
        print(f"{question} {right:.1%}")
        assert right == pytest.approx(share, abs=2 * NEAR)
    assert guessed_from_sentences(rows, "sentence", "expected") == pytest.approx(guessed, abs=NEAR)


@pytest.mark.parametrize(("task", "beginning"), [("entailment", "entailment"), ("nlvr2", "NLVR2")])
def test_sentences_alone_tell_nothing(digits, task, beginning):
    digits.run(command(TASK_RECIPES, "make_digit_tasks.py"))
    rows = read_rows(digits.path(f"data/digit_tasks/{task}/val.csv"))
    [chance] = table_row(beginning)[2]
    assert guessed_from_sentences(rows, "sentence", "label") == pytest.approx(chance, abs=0.001)


def test_motions_need_several_frames(digits):
    """The row of the table that names a setting in place of a command."""
    task_model(digits, "task_motions/")
    run = "outputs/motions_middle"
    middle = f"data.frame_type=middle output.dir={run} head.cache={run}/features"
    train(digits, f"{command(TASK_RECIPES, 'train.py', 'task_motions')} {middle}")
    evaluate = replaced(command(TASK_RECIPES, "evaluate.py", "task_motions"), {"outputs/task_motions": run})
    digits.run(f"{evaluate} --output_dir reports/motions_middle")
    rows = read_rows(digits.path("reports/motions_middle/predictions.csv"))
    moved = [row["expected"] == row["predicted"] for row in rows if row["expected"] in DIRECTIONS]
    right, count, _ = table_row(MIDDLE_FRAME)
    print(f"directions from the middle frame alone: {np.mean(moved):.1%} of {len(moved)}")
    assert len(moved) == count and np.mean(moved) <= 0.35 and right <= 0.35


def test_digits_by_the_other_family(digits):
    train(digits, command(OTHER_FAMILY, "train.py"))
    found = held_out_digits(digits.path("outputs/digits_parallel"), digits.path("data/digits"))
    assert found == pytest.approx(digits_right("second_family"), abs=NEAR)


def few_processes(text: str) -> str:
    """An msrun command for this machine: two processes, all on it."""
    text = re.sub(r"(worker_num)=\d+", r"\1=2", text)
    return re.sub(r"--master_port=\d+ |--join=True ", rf"--master_port={free_port()} --join=True ", text, count=1)


def test_the_demo_model_learns_another_wording(work):
    """In three minutes on two cores, told by processor time, for others may want these cores, too."""
    make, learn, evaluate = commands(ONE_CARD, "style")
    work.run(make.text)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    train(work, learn.text)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    work.run(evaluate.text)
    wanted = {Path(row["filepath"]).name: row["title"] for row in read_rows(work.path("data/style/held_out.csv"))}
    said = json.loads(work.path("reports/style/captions_results.json").read_text())
    right = sum(wanted[item["image_id"]] == item["caption"] for item in said)
    print(f"{right} of {len(said)} captions right to the letter after {spent:.0f} s of processor time")
    scenes, written = style_right()
    assert len(said) == len(wanted) == scenes and right >= 0.9 * len(said)
    assert right == pytest.approx(written, abs=NEAR * len(said)) and spent <= 360


def test_finetuning_and_a_collection_by_several_processes(tmp_path):
    """With a small model in the place of ViT-L/14 and 64 pictures in that of COCO."""
    work = ProcessCheckout(tmp_path / "checkout")
    finetune_data(work)
    collection(work)
    for text in (piece.text for piece in commands(FINETUNE, "python")):
        if "msrun" not in text:
            work.run(text)
    for piece in commands(ONE_CARD, "captioning_lora", "open_clip_pytorch_model.bin"):
        work.run(piece.text)
    assert work.path("models/finetuned.safetensors").is_file()
    once = work.path("outputs/finetune_captioning")
    assert (once / "final.safetensors").is_file()
    once.rename(once.with_name("once"))
    work.run(few_processes(next(piece.text for piece in commands(SEVERAL_CARDS, "msrun"))))
    assert (once / "final.safetensors").is_file()
    work.run(few_processes(command(COLLECTION, "msrun")))
    assert work.path("OUT/captions.json").is_file()


def test_captions_conversion_and_export_in_processes(tmp_path):
    """What test_readme.py runs within its own process, and what it only checks of these sections."""
    work = ProcessCheckout(tmp_path / "checkout")
    walk = Walk(work, SHOWN, TABLE)
    pages = ("captioning", "collections", "library", "convert", "deploy")
    for section in SHOWN:
        if section.startswith(tuple(f"docs/{page}.md: " for page in pages)):
            walk.section(section)
    # within this process, where tests.reference has made open_clip fit for a torch without CUDA
    verified = Checkout.run(work, re.sub(r"[][]", "", command(CONVERT, "[--verify")))
    assert "largest relative difference from open_clip" in verified, verified
    for text in work.recipe("demo"):
        work.run(text)
    caption = work.path("outputs/demo/captions.txt").read_text()
    assert caption == "assets/demo.mp4\ta large red star above a small yellow ring\n"


def test_the_demo_models_training(tmp_path):
    """`make train-demo` with a few pictures and updates."""
    work = ProcessCheckout(tmp_path / "checkout")
    less = {
        "make_demo_data.py": "--train 300 --single 100 --held_out 32 --videos 2",
        "train.py": "train.max_steps=2 output.val_images=2",
        "coca_convert.py": "",
        "demo_figures.py": "--scenes 5 --videos 1",
    }
    used = set()
    for text in work.recipe("train-demo"):
        name = next(name for name in less if name in text)
        printed = work.run(f"{text} {less[name]}")
        used.add(name)
    assert used == less.keys() and printed.startswith("unseen scenes, 5: ")


def test_the_demo_models_figures(work):
    """models/README.md has what its command prints."""
    printed = work.run("python examples/demo/demo_figures.py")
    print(printed)
    for line, row in zip(printed.splitlines(), DEMO_ROWS, strict=True):
        found = [float(number) / 100 for number in re.findall(r"([\d.]+)%", line)]
        assert found == pytest.approx(demo_right(row), abs=NEAR)
