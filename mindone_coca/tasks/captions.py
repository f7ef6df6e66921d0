"""The caption loss beside a task's own, of question and answer as one text (paper, appendix, on VQA)."""

import mindspore as ms
from mindspore import Tensor, nn, ops

from mindone_coca.distributed import Ranks
from mindone_coca.losses import CaptionLossSums, count_labels
from mindone_coca.tasks.heads import Classifier
from mindone_coca.tasks.step import TaskLoss


class _Given(nn.Cell):
    """Logits that are there already."""

    def construct(self, logits: Tensor, text: Tensor) -> Tensor:
        return logits


class CaptionedTaskLoss(nn.Cell):
    """`TaskLoss`, and `weight` times the mean cross-entropy over all tokens of the captions.

    `construct` takes what TaskLoss takes with ids (b, 2, T), of each question and of the question with its answer, and
    where micro-batches are accumulated the number of the captions' labels over all of them. It returns what TaskLoss
    returns: the caption loss is in the scalar to differentiate, but not in the reported loss.

    One pass of each tower makes both: the image tower's over the pictures, the others' over 2 b texts.
    """

    def __init__(self, classifier: Classifier, smoothing: float, weight: float, ranks: Ranks) -> None:
        super().__init__(auto_prefix=False)
        model = classifier.model
        self.visual, self.text, self.text_decoder = model.visual, model.text, model.text_decoder
        self.head, self.weight = classifier.head, weight
        self.task, self.caption_sums = TaskLoss(_Given(), smoothing, ranks), CaptionLossSums()
        self.sum = self.task.sum

    def construct(
        self,
        images: Tensor,
        text: Tensor,
        labels: Tensor,
        loss_scale: Tensor,
        count: Tensor | None = None,
        caption_count: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        batch, _, length = text.shape
        _, image_embs = self.visual(images[:, 0])  # (b, K, D)
        _, token_embs = self.text(text.swapaxes(0, 1).reshape(2 * batch, length))
        hidden = self.text_decoder.hidden(ops.concat((image_embs, image_embs)), token_embs)  # (2 b, T, D)
        question, captions = text[:, 0], text[:, 1, 1:]
        logits = self.head(hidden[:batch][:, None], question)
        total, right, loss, count = self.task(logits, question, labels, loss_scale, count)
        caption, _, _, _ = self.caption_sums(hidden[batch:, :-1], self.text_decoder.projection(), captions)
        if caption_count is None:
            caption_count = self.sum(count_labels(captions))
        caption = caption / ops.maximum(caption_count, ms.Tensor(1.0, ms.float32))
        return total + self.weight * caption * loss_scale, right, loss, count
