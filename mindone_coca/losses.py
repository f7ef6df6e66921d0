"""CoCa's two losses (paper section 3.2), with the contrastive gradient worked out by hand.

A device sees its own rows of the global batch. It needs the other devices' features, but no gradient through the
gathering of them: each term of the loss is differentiated where the features were made, and the parameters'
gradients, summed over devices, are then those of one large batch, the temperature's included.
"""

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from mindone_coca import kernels
from mindone_coca.tensors import cast, total, total_kept

PAD_ID = 0  # what the tokenizer fills captions up with, and open_clip's CoCaLoss leaves out
LENGTH_STEP, SHORT_STEP = 16, 2  # tokens; the second for captions up to the first. Each length is a graph to compile

_product, _transpose = ops.MatMul(), ops.Transpose()
_by_transposed, _transposed_by = ops.MatMul(transpose_b=True), ops.MatMul(transpose_a=True)


def longest_caption(text: np.ndarray) -> int:
    """Tokens of the longest caption in ids (B, T), start and end token among them; 2 at least."""
    used = np.flatnonzero((text != PAD_ID).any(axis=0))
    return int(max(used[-1] + 1 if len(used) else 0, 2))


def caption_labels(text: np.ndarray, longest: int | None = None, lengths: Sequence[int] = ()) -> np.ndarray:
    """The labels (B, L - 1) of ids (B, T): shifted by one, cut after the longest caption.

    L is one of few lengths (see LENGTH_STEP), or T. What is cut off is padding, which the loss leaves out, and captions
    are mostly much shorter than the context: the decoder and its logits are not computed for nothing.

    Args:
        longest: tokens of the longest caption, where other devices have longer ones.
        lengths: the values that L may have besides T, ascending, in place of the usual ones.
    """
    longest = longest or longest_caption(text)
    if lengths:
        return text[:, 1 : next((length for length in lengths if length >= longest), text.shape[1])]
    step = LENGTH_STEP if longest > LENGTH_STEP else SHORT_STEP
    return text[:, 1 : -(-longest // step) * step]


class CaptionLossSums(nn.Cell):
    """Sums over the labels that are no padding of the cross-entropy and of log(Z)^2, with Z the softmax's denominator.

    `construct` takes the decoder's output (B, T, D), the projection to logits (D, V) and labels (B, T); it returns the
    two sums, 0 where all labels are padding, and for its own gradient log-probabilities (B T, V) and log Z (B T, 1).
    They are all that it keeps, and the gradient makes one more array of that size (two, if the projection is trained):
    logits are most of the memory and, in small models, of the time.

    Source: open_clip.loss.CoCaLoss.caption_loss, before its mean; PaLM's z-loss (arXiv 2204.02311, section 5).
    """

    def __init__(self, pad_id: int = PAD_ID) -> None:
        super().__init__()
        self.pad_id = pad_id
        self.log_softmax, self.multiply = ops.LogSoftmax(-1), kernels.multiply()

    def construct(self, hidden: Tensor, projection: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        is_label, columns = self.flat(labels)
        logits = _product(hidden.reshape(-1, hidden.shape[-1]), projection)  # (B T, V)
        log_probs = self.log_softmax(logits)
        at_labels = ops.gather_elements(log_probs, 1, columns)  # (B T, 1)
        log_z = (ops.gather_elements(logits, 1, columns) - at_labels) * is_label
        return -total(at_labels * is_label), total(log_z * log_z), log_probs, log_z

    def bprop(
        self, hidden: Tensor, projection: Tensor, labels: Tensor, out: tuple[Tensor, ...], grads: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor, Tensor]:
        is_label, columns = self.flat(labels)
        log_probs, log_z = out[2:]
        # the gradient at a row of logits is `outer` times the probabilities, less `inner` at the label
        inner = is_label * grads[0]  # (B T, 1)
        outer = inner + 2.0 * grads[1] * log_z
        probs = ops.exp(log_probs)
        # both enter after the product, where rows are short
        hidden_grad = self.multiply(_by_transposed(probs, projection), outer)
        at_labels = _transpose(ops.gather(projection, columns[:, 0], 1), (1, 0))  # (B T, D)
        hidden_grad = hidden_grad - self.multiply(at_labels, inner)
        logits_grad = ops.tensor_scatter_elements(self.multiply(probs, outer), columns, -inner, 1, "add")
        projection_grad = _transposed_by(hidden.reshape(-1, hidden.shape[-1]), logits_grad)
        return hidden_grad.reshape(hidden.shape), projection_grad, ops.zeros_like(labels)

    def flat(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Labels (B, T) -> 1.0 where one is no padding, and the label's column among the logits, both (B T, 1)."""
        labels = cast(labels.reshape(-1, 1), ms.int32)
        return cast(labels != self.pad_id, ms.float32), labels


def count_labels(labels: Tensor, pad_id: int = PAD_ID) -> Tensor:
    return total(cast(labels != pad_id, ms.float32))


def contrastive_loss(image: Tensor, text: Tensor, logit_scale: Tensor) -> Tensor:
    """The symmetric cross-entropy of one batch's features (B, D), of unit length; its gradient is MindSpore's."""
    scale = ops.exp(logit_scale)
    logits = scale * _by_transposed(image, text)  # (B, B)
    totals = log_sum_exp(logits) + log_sum_exp(_transpose(logits, (1, 0)))  # (B, 1)
    return (total(totals) - 2 * scale * total(image * text)) / (2 * image.shape[0])


class ContrastiveLoss(nn.Cell):
    """Symmetric cross-entropy over the global batch and its gradients. Source: open_clip.loss.ClipLoss.

    `construct` takes this device's features (b, D), of unit length, and returns the part of the loss that its rows
    make up (the loss is the sum over devices), the gradients of the whole loss with respect to its image features and
    text features (b, D), and its part of that with respect to the logarithm of the temperature. A bias added to all
    logits changes neither the loss nor any gradient and has itself the gradient 0, so it is left out.
    """

    def __init__(self, gather: nn.Cell) -> None:
        super().__init__()
        self.gather = gather

    def construct(self, image: Tensor, text: Tensor, logit_scale: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        scale = ops.exp(logit_scale)
        all_image, all_text = self.gather(image), self.gather(text)  # (M, D)
        by_image = scale * _by_transposed(image, all_text)  # (b, M)
        by_text = scale * _by_transposed(text, all_image)
        image_total, text_total = log_sum_exp(by_image), log_sum_exp(by_text)  # (b, 1)
        norm = 1.0 / (2 * all_image.shape[0])
        pairs = scale * total(image * text, -1)  # (b,)
        loss = total(image_total[:, 0] + text_total[:, 0] - 2 * pairs) * norm
        # d loss / d logits, without the -2 of each pair: softmax over texts plus softmax over images
        weight = ops.exp(by_image - image_total) + ops.exp(by_image - _transpose(self.gather(text_total), (1, 0)))
        image_grad = (scale * norm) * (_product(weight, all_text) - 2 * text)
        weight = ops.exp(by_text - text_total) + ops.exp(by_text - _transpose(self.gather(image_total), (1, 0)))
        text_grad = (scale * norm) * (_product(weight, all_image) - 2 * image)
        return loss, image_grad, text_grad, total(image * image_grad)


def log_sum_exp(x: Tensor) -> Tensor:
    """(b, M) -> (b, 1), safe for large values."""
    highest = x.max(axis=1, keepdims=True)
    return highest + ops.log(total_kept(ops.exp(x - highest), 1))
