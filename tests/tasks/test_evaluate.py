"""Counting predictions: metrics against plain loops, and a fair draw of examples."""

import numpy as np
import pytest

from mindone_coca.config import PreprocessCfg
from mindone_coca.evaluation.reports import EXAMPLES
from mindone_coca.tasks.data import TaskBatch
from mindone_coca.tasks.evaluate import SHOWN_FRAMES, Tally, vqa_score


def make_batch(labels: np.ndarray, answers: list[list[str]], images: int = 1) -> TaskBatch:
    count = len(labels)
    pixels = np.zeros((count, images, 3, 4, 4), np.float32)
    names = [f"{number}.png" for number in range(count)]
    return TaskBatch(pixels, None, labels.astype(np.int32), names, [""] * count, answers)


def test_metrics():
    rng = np.random.default_rng(0)
    labels = np.array([*rng.integers(0, 8, 37), -1, -1, -1])
    probabilities = rng.dirichlet(np.ones(8), 40)
    names = list("abcdefgh")
    answers = [[names[label] if label >= 0 else "unknown"] for label in labels]
    tally = Tally(names, PreprocessCfg(), 1)
    for part in (slice(0, 17), slice(17, 40)):
        tally.add(make_batch(labels[part], answers[part]), probabilities[part])
    metrics = tally.metrics()
    order = np.argsort(-probabilities, 1)
    assert metrics["samples"] == 40 and "vqa_accuracy" not in metrics
    assert metrics["accuracy"] == sum(order[n, 0] == labels[n] for n in range(40)) / 40
    assert metrics["top5"] == sum(labels[n] in order[n, :5] for n in range(40)) / 40
    assert tally.confusion.sum() == 37 and tally.confusion.trace() == round(metrics["accuracy"] * 40)
    assert [row[2] for row in tally.rows] == [names[0] for names in answers]


@pytest.mark.parametrize("agree", range(11))
def test_vqa_score_is_the_mean_over_all_but_one(agree):
    answers = ["yes"] * agree + ["no"] * (10 - agree)
    expected = np.mean([min(1, (answers[:n] + answers[n + 1 :]).count("yes") / 3) for n in range(10)])
    assert vqa_score("yes", answers) == pytest.approx(expected)


def test_examples_are_drawn_from_all_rows():
    labels, right = np.zeros(1000, int), np.arange(1000) % 4 > 0
    probabilities = np.where(right[:, None], [0.9, 0.1], [0.1, 0.9])
    tally = Tally(["a", "b"], PreprocessCfg(), 20)
    tally.add(make_batch(labels, [["a"]] * 1000, images=20), probabilities)
    examples = tally.examples()
    assert len(examples) == EXAMPLES and sum(not example.right for example in examples) == EXAMPLES // 2
    places = [int(example.name.removesuffix(".png")) for example in examples]
    assert len(set(places)) == EXAMPLES and all(right[place] == e.right for place, e in zip(places, examples))
    assert min(places) < 200 and max(places) > 800
    assert len(examples[0].images) <= SHOWN_FRAMES and examples[0].images[0].size == (4, 4)
