"""The accuracy of a model trained for a task, with a report."""

import csv
import logging
import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mindone_coca.account import number_of
from mindone_coca.config import Dtype
from mindone_coca.data.settings import DataConfig
from mindone_coca.errors import InputError
from mindone_coca.evaluation.reports import EXAMPLES, Example, write_report
from mindone_coca.files import atomic_path
from mindone_coca.outputs.tables import CSV_TEXT
from mindone_coca.preprocess.tokenizer import Tokenizer
from mindone_coca.preprocess.transforms import make_transform, to_pixels
from mindone_coca.progress import progress
from mindone_coca.tasks.data import TaskBatch, open_task_data
from mindone_coca.tasks.load import load_task_model, read_task_cfg
from mindone_coca.tasks.predict import Predictor, predict_all

log = logging.getLogger(__name__)
MATRIX_CLASSES = 1000  # with more, a confusion matrix is no use
SHOWN_FRAMES = 8  # of a video, on the page of examples


def evaluate_task(
    task: str,
    config: str | os.PathLike,
    data: Any,
    output_dir: Path | None = None,
    *,
    model_path: str | os.PathLike | None = None,
    lora: Sequence[str] = (),
    dtype: Dtype | None = None,
    batch_size: int = 32,
    views: int = 1,
    num_workers: int = 4,
) -> dict[str, float | int]:
    """Predict all rows of a task and count.

    Args:
        task: what the model was trained for.
        config: the run's `final.yaml` or `best.yaml`; model_path, lora, dtype: see `load_task_model`.
        data: a path, or a mapping with SourceConfig's keys; every label must be one the model knows, but for vqa.
        output_dir: gets `metrics.json`, `predictions.csv`, `examples.html` and, for up to 1000 classes,
            `confusion.png`; None writes nothing.
        views: clips of each video, whose probabilities are averaged.

    Returns:
        samples, accuracy (labels that are no class of the model count as wrong), top5 where there are more than five
        classes; of vqa with several answers a question vqa_accuracy (see `vqa_score`). Rows that cannot be read are
        logged, and counted in `metrics.json`.
    Raises:
        InputError: another task's model, or data that do not fit.
    """
    cfg = read_task_cfg(config)
    if cfg.task != task:
        raise InputError(f"{config}: was trained for task {cfg.task}, not {task}; run evaluate.py {cfg.task}")
    if views < 1 or (views > 1 and cfg.num_frames == 1):
        raise InputError(f"views: {views} clips need a model of videos with several frames; leave it out")
    if batch_size < 1:
        raise InputError(f"batch_size: must be above 0, got {batch_size}")
    model_config, classifier = load_task_model(config, model_path, dtype, lora)
    data_config = DataConfig(train=None, val=data, num_workers=num_workers)
    if cfg.num_frames > 1:
        data_config.frame_type, data_config.num_frames = "multi_frames", cfg.num_frames
    rows = open_task_data(
        data_config,
        task,
        Tokenizer(),
        make_transform(model_config.image_hw, model_config.preprocess),
        labels=cfg.labels,
        batch_size=batch_size,
        context_length=model_config.context_length,
        training=False,
        views=views,
    )
    tally = Tally(cfg.labels, model_config.preprocess, cfg.images)
    with closing(predict_all(Predictor(classifier, views), rows, batch_size)) as predictions:
        for batch, probabilities in progress(predictions, len(rows), "predicting", "batches"):
            tally.add(batch, probabilities)
    metrics, unreadable = tally.metrics(), len(rows.bad_samples) + rows.rows_refused
    if unreadable:
        log.warning("%s could not be read, as said above", number_of(unreadable, "row"))
    if output_dir is not None:
        confusion = (cfg.labels, tally.confusion) if tally.confusion is not None else None
        examples = tally.examples()
        write_report(output_dir, task, metrics, examples, confusion, score="probability", unreadable=unreadable)
        with (
            atomic_path(output_dir / "predictions.csv") as partial,
            open(partial, "w", **CSV_TEXT) as file,
        ):
            table = csv.writer(file)
            table.writerow(["name", "sentence", "expected", "predicted", "probability"])
            table.writerows(tally.rows)
    return metrics


class Tally:
    """What is counted of predictions, and a fair draw of examples.

    Args:
        labels: names of the classes. preprocess: the model's, to show what it saw. images: of one sample, to show.
    """

    def __init__(self, labels: list[str], preprocess: Any, images: int) -> None:
        self.labels, self.preprocess, self.images = labels, preprocess, images
        self.rows: list[tuple[str, str, str, str, float]] = []
        self.right: list[bool] = []
        self.top5: list[bool] = []
        self.scores: list[float] = []  # of questions with several answers
        self.kept: dict[bool, list[Example]] = {True: [], False: []}
        self.seen = {True: 0, False: 0}
        self.draws = np.random.default_rng(0)
        classes = len(labels)
        self.confusion = np.zeros((classes, classes), np.int64) if classes <= MATRIX_CLASSES else None

    def add(self, batch: TaskBatch, probabilities: np.ndarray) -> None:
        """Count a batch and its probabilities (B, C)."""
        for number, (label, chances) in enumerate(zip(batch.labels.tolist(), probabilities)):
            best = int(chances.argmax())
            answers, answer, chance = batch.answers[number], self.labels[best], float(chances[best])
            right = best == label
            self.right.append(right)
            self.top5.append(label >= 0 and int((chances > chances[label]).sum()) < 5)
            if label >= 0 and self.confusion is not None:
                self.confusion[label, best] += 1
            if len(answers) > 1:
                self.scores.append(vqa_score(answer, answers))
            self.rows.append((batch.names[number], batch.sentences[number], answers[0], answer, chance))
            self._keep(right, batch.images[number])

    def _keep(self, right: bool, images: np.ndarray) -> None:
        """Keep the last row as an example, each row with the same chance: Vitter's algorithm R."""
        kept = self.kept[right]
        self.seen[right] += 1
        place = len(kept) if len(kept) < EXAMPLES else int(self.draws.integers(self.seen[right]))
        if place >= EXAMPLES:
            return
        name, sentence, expected, predicted, chance = self.rows[-1]
        shown = images[: self.images][:: -(-self.images // SHOWN_FRAMES)]
        pictures = [Image.fromarray(to_pixels(image, self.preprocess)) for image in shown]
        example = Example(name, pictures, sentence or None, expected, predicted, right, chance)
        kept[place : place + 1] = [example]

    def examples(self) -> list[Example]:
        """At most EXAMPLES, half of them wrong ones if there are enough."""
        wrong, right = self.kept[False], self.kept[True]
        few = min(len(wrong), max(EXAMPLES // 2, EXAMPLES - len(right)))
        return [*wrong[:few], *right[: EXAMPLES - few]]

    def metrics(self) -> dict[str, float | int]:
        metrics = {"samples": len(self.right), "accuracy": float(np.mean(self.right))}
        if len(self.labels) > 5:
            metrics["top5"] = float(np.mean(self.top5))
        if self.scores:
            metrics["vqa_accuracy"] = float(np.mean(self.scores))
        return metrics


def vqa_score(answer: str, answers: list[str]) -> float:
    """How many people gave this answer, three counting as all: the mean over the answers of all people but one of
    min(1, those who agree / 3). Source: the VQA challenge's evaluation, without its normalisation of spelling."""
    agree = answers.count(answer)
    others = len(answers) - agree
    return (agree * min(1.0, (agree - 1) / 3) + others * min(1.0, agree / 3)) / len(answers)
