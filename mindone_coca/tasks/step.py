"""The training step of a task: cross-entropy over the classes; accumulation and update are those of all training."""

from collections.abc import Callable, Iterable, Sequence

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from mindone_coca import graph_cache
from mindone_coca.distributed import Ranks, Sum
from mindone_coca.losses import PAD_ID
from mindone_coca.training.graphs import Accumulate, Apply, WholeStep
from mindone_coca.training.optim import Optimizer, as_scalar

# images or features, ids (b, T), with captions (b, 2, T), and labels (b,)
MicroBatch = tuple[Tensor | np.ndarray, np.ndarray, np.ndarray]


class TaskLoss(nn.Cell):
    """Mean cross-entropy with label smoothing over the samples whose label is a class (-1: it is none), which is
    torch.nn.functional.cross_entropy with ignore_index -1.

    Args:
        forward: images or features and ids (b, T) -> logits (b, classes), float32.
        smoothing: share of the target that is spread over all classes.

    Returns:
        the scalar to differentiate; how many samples of all devices are classified rightly; this device's part of the
        loss; the number of labels over all devices.
    """

    def __init__(self, forward: nn.Cell, smoothing: float, ranks: Ranks) -> None:
        super().__init__(auto_prefix=False)
        self.forward, self.smoothing = forward, smoothing
        self.sum = Sum(ranks)

    def construct(
        self, images: Tensor, text: Tensor, labels: Tensor, loss_scale: Tensor, count: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        logits = self.forward(images, text)
        known = (labels >= 0).astype(ms.float32)  # (b,)
        if count is None:
            count = self.sum(known.sum())
        # not LogSoftmax, which on the CPU is off by several times float32's rounding
        shifted = logits - ops.stop_gradient(logits.max(axis=1, keepdims=True))
        log_probs = shifted - ops.log(ops.exp(shifted).sum(axis=1, keepdims=True))  # (b, classes)
        picked = ops.gather_elements(log_probs, 1, ops.maximum(labels, 0)[:, None])[:, 0]
        losses = -(1.0 - self.smoothing) * picked - self.smoothing * log_probs.mean(-1)
        loss = (losses * known).sum() / ops.maximum(count, 1.0)
        right = (ops.argmax(logits, 1).astype(ms.int32) == labels).astype(ms.float32)
        return loss * loss_scale, self.sum(right.sum()), loss, count


class TaskStep:
    """Train on a batch of `accumulate_steps` micro-batches; the gradient is that of the whole batch over all devices.

    Args:
        loss: a TaskLoss, or with captions a CaptionedTaskLoss.
        draw: see `TrainStep`.
    """

    def __init__(
        self,
        loss: nn.Cell,
        optimiser: Optimizer,
        ranks: Ranks,
        accumulate_steps: int = 1,
        draw: Callable[[int], object] = lambda part: None,
    ) -> None:
        self.accumulate_steps, self.draw = accumulate_steps, draw
        self.loss = loss
        if accumulate_steps == 1:
            self.whole = WholeStep(self.loss, optimiser)
            self.cells: list[nn.Cell] = [self.whole]
        else:
            self.accumulate = Accumulate(self.loss, optimiser)
            self.apply = Apply(self.accumulate)
            self.label_sum = Sum(ranks)
            self.cells = [self.accumulate, self.apply]

    def run(self, micro_batches: Sequence[MicroBatch], lr: float) -> tuple[Tensor, ...]:
        """Make one update, without waiting for the device: `report` reads the result."""
        batches = [
            (images if isinstance(images, Tensor) else Tensor(images), Tensor(text), Tensor(labels))
            for images, text, labels in micro_batches
        ]
        if self.accumulate_steps == 1:
            self.draw(0)
            return graph_cache.call(self.whole, *batches[0], as_scalar(lr))
        counts = [self._count(labels >= 0 for _, _, labels in micro_batches)]
        if micro_batches[0][1].ndim == 3:  # captions
            counts.append(self._count(text[:, 1, 1:] != PAD_ID for _, text, _ in micro_batches))
        right = loss = as_scalar(0)
        for part, batch in enumerate(batches):
            self.draw(part)
            more_right, more_loss = graph_cache.call(self.accumulate, *batch, *counts)
            right, loss = right + more_right, loss + more_loss
        loss, norm, good = graph_cache.call(self.apply, as_scalar(lr), loss)
        return right, loss, counts[0], norm, good

    def _count(self, masks: Iterable[np.ndarray]) -> Tensor:
        """How many values are true on all devices."""
        return self.label_sum(as_scalar(sum(np.count_nonzero(mask) for mask in masks)))

    def report(self, result: tuple[Tensor, ...]) -> dict[str, float]:
        """The loss, accuracy and number of labels over the whole batch, grad_norm before clipping, and updated: 1, or
        0 where float16 overflowed and the update was left out."""
        right, loss, count, norm, updated = (float(value.asnumpy()) for value in result)
        return {"loss": loss, "accuracy": right / max(count, 1), "labels": count, "grad_norm": norm, "updated": updated}
