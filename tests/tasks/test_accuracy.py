"""The downstream recipes as the README runs them, from the digits model to the accuracy on held-out scans."""

import csv
import shutil
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from mindone_coca.config import CONFIG_DIR
from mindone_coca.tasks.evaluate import evaluate_task
from tests.training.runs import train
from tools.make_digits import write_digits

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

from make_digit_tasks import write_task

pytestmark = pytest.mark.slow

MINUTES = 15  # a recipe may take, on two cores that do nothing else
DIRECTIONS = ("right", "left", "down", "up")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with data/digits and the model that configs/train_digits.yaml trains on them."""
    folder = tmp_path_factory.mktemp("work")
    write_digits(folder / "data" / "digits")
    train(copied("train_digits", folder))
    return folder


def copied(recipe, folder):
    """The recipe in `folder`, where its relative paths then start."""
    return Path(shutil.copy(CONFIG_DIR / f"{recipe}.yaml", folder))


def measure(work, task, recipe, data, name, *overrides):
    """Train by a recipe and predict its held-out rows -> accuracy, and (sentence, expected, predicted) of each row."""
    start = time.monotonic()
    train(copied(recipe, work), *overrides, f"output.dir=outputs/{name}")
    minutes = (time.monotonic() - start) / 60
    rows = str(work / "data" / data / "val.csv")
    metrics = evaluate_task(task, work / "outputs" / name / "final.yaml", rows, work / name, num_workers=0)
    with open(work / name / "predictions.csv", newline="", encoding="utf-8-sig") as file:
        predictions = [(row["sentence"], row["expected"], row["predicted"]) for row in csv.DictReader(file)]
    print(f"\n{name}: {metrics['accuracy']:.2%} of {metrics['samples']} held-out rows right, {minutes:.1f} min")
    assert metrics["samples"] == len(predictions) and '"unreadable"' not in (work / name / "metrics.json").read_text()
    assert minutes <= MINUTES
    return metrics["accuracy"], predictions


def show_by(key, predictions):
    """Print the accuracy of each kind of row."""
    hits = defaultdict(list)
    for row in predictions:
        hits[key(row)].append(row[1] == row[2])
    print(", ".join(f"{kind}: {np.mean(values):.1%}" for kind, values in hits.items()))


def guessed_from_sentences(predictions):
    """The accuracy of one who sees the sentences only and knows how often each has which label."""
    labels = defaultdict(Counter)
    for sentence, expected, _ in predictions:
        labels[sentence][expected] += 1
    return sum(max(counts.values()) for counts in labels.values()) / len(predictions)


@pytest.fixture(scope="module")
def digit_tasks(work):
    for task in ("vqa", "entailment", "nlvr2", "motions"):
        write_task(work / "data" / "digit_tasks" / task, task)
    return work


def test_classification_frozen(work):
    accuracy, _ = measure(work, "classification", "task_classification_digits", "digits", "frozen")
    assert accuracy >= 0.97


def test_classification_finetuned(work):
    accuracy, _ = measure(work, "classification", "task_classification_digits_finetuned", "digits", "finetuned")
    assert accuracy >= 0.98


def test_vqa(digit_tasks):
    accuracy, predictions = measure(digit_tasks, "vqa", "task_vqa_digits", "digit_tasks/vqa", "vqa")
    show_by(lambda row: row[0], predictions)
    print(f"from the questions alone: {guessed_from_sentences(predictions):.1%}")
    assert accuracy >= 0.9
    for question in ("which is larger?", "how many digits?"):
        assert np.mean([row[1] == row[2] for row in predictions if row[0] == question]) >= 0.9


def test_entailment(digit_tasks):
    accuracy, predictions = measure(
        digit_tasks, "entailment", "task_entailment_digits", "digit_tasks/entailment", "entailment"
    )
    show_by(lambda row: row[1], predictions)
    assert guessed_from_sentences(predictions) == pytest.approx(1 / 3)
    assert accuracy >= 0.9


def test_nlvr2(digit_tasks):
    accuracy, predictions = measure(digit_tasks, "nlvr2", "task_nlvr2_digits", "digit_tasks/nlvr2", "nlvr2")
    show_by(lambda row: row[0], predictions)
    assert guessed_from_sentences(predictions) == pytest.approx(1 / 2)
    assert accuracy >= 0.9


def test_motions_need_several_frames(digit_tasks):
    task, recipe, data = "video_classification", "task_motions", "digit_tasks/motions"
    accuracy, predictions = measure(digit_tasks, task, recipe, data, "motions")
    show_by(lambda row: row[1], predictions)
    _, middle = measure(digit_tasks, task, recipe, data, "motions_middle", "data.frame_type=middle")
    show_by(lambda row: row[1], middle)
    directions = np.mean([row[1] == row[2] for row in middle if row[1] in DIRECTIONS])
    print(f"directions from the middle frame alone: {directions:.1%}")
    assert accuracy >= 0.95
    assert directions <= 0.35
