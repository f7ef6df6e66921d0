"""Class probabilities of a classifier over a task's data."""

from collections.abc import Generator
from contextlib import closing

import numpy as np
from mindspore import Tensor, nn, ops

from mindone_coca import graph_cache
from mindone_coca.tasks.data import TaskBatch, TaskData
from mindone_coca.tasks.heads import Classifier, no_text
from mindone_coca.training.cache import FeatureCache


class Probabilities(nn.Cell):
    """Features (B, n, K, C) and ids (B, T) -> probabilities (B, classes)."""

    def __init__(self, head: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.head = head

    def construct(self, features: Tensor, text: Tensor) -> Tensor:
        return ops.softmax(self.head(features, text), -1)


class Predictor:
    """Runs a classifier in two graphs, CoCa's and the head's.

    Args:
        views: clips of each video, one after the other among its frames; the mean of their probabilities is taken.
        cache: of the outputs of a CoCa that is not trained.
    """

    def __init__(self, classifier: Classifier, views: int = 1, cache: FeatureCache | None = None) -> None:
        self.features, self.probabilities = classifier.features, Probabilities(classifier.head)
        self.views, self.cache = views, cache
        for cell in (self.features, self.probabilities):
            graph_cache.tag_cell(cell, f"{classifier.model.graph_tag} {classifier.cfg}")

    def encode(self, images: np.ndarray, text: np.ndarray) -> Tensor:
        """Images (B, n, 3, S, S) and ids (B, T) -> what the head reads, (B, n, K, C)."""
        if self.cache is None:
            return self._features(images, text)
        return Tensor(self.cache(lambda: self._features(images, text).asnumpy(), images, text))

    def _features(self, images: np.ndarray, text: np.ndarray) -> Tensor:
        return graph_cache.call(self.features, Tensor(images), Tensor(text))

    def __call__(self, images: np.ndarray, text: np.ndarray | None) -> np.ndarray:
        """Images (B, views n, 3, S, S) and ids (B, T), None where the task has no text -> probabilities (B, C)."""
        text = no_text(len(images)) if text is None else text
        clips = np.split(images, self.views, 1)
        parts = [graph_cache.call(self.probabilities, self.encode(clip, text), Tensor(text)) for clip in clips]
        total = sum(part.asnumpy() for part in parts)
        return total / self.views


def predict_all(
    predictor: Predictor, data: TaskData, batch_size: int
) -> Generator[tuple[TaskBatch, np.ndarray], None, None]:
    """The batches of the data in order, each with its probabilities (B, C). Close it when it is left early."""
    with closing(data.epoch(0)) as batches:
        for batch in batches:
            missing = batch_size - len(batch.labels)  # of the last: filled up, to compile no graph for another size
            text = None if batch.text is None else fill(batch.text, missing)
            probabilities = predictor(fill(batch.images, missing), text)
            yield batch, probabilities[: len(batch.labels)]


def fill(array: np.ndarray, missing: int) -> np.ndarray:
    """`missing` more rows, copies of the last."""
    return np.concatenate([array, np.repeat(array[-1:], missing, 0)]) if missing else array
