"""The compiled training step: losses, gradients, accumulation, update.

Without accumulation the whole step is one graph. With it there are three: features of each micro-batch, the
contrastive loss over all of them, then forward and backward of each micro-batch with the gradients at its features
given, so that the result is the large batch's; the update is the fourth.
"""

from collections.abc import Iterable, Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from mindone_coca import graph_cache
from mindone_coca.config import Fusion
from mindone_coca.distributed import Gather, Ranks, Sum
from mindone_coca.losses import PAD_ID, CaptionLossSums, ContrastiveLoss, count_labels
from mindone_coca.model.base import ImageTextModel
from mindone_coca.model.video import VideoEncoder
from mindone_coca.tensors import normalize
from mindone_coca.training.labels import CaptionLabels
from mindone_coca.training.optim import AdamW, as_scalar
from mindone_coca.training.settings import LossConfig
from mindone_coca.waiting import Wait


class Features(nn.Cell):
    """Images and text (b, T) -> image features, text features (b, D) of unit length, and number of labels."""

    def __init__(self, model: ImageTextModel, fusion: Fusion) -> None:
        super().__init__(auto_prefix=False)
        self.visual, self.text = VideoEncoder(model, fusion), model.text
        self.text_reads_all = model.text_reads_all

    def construct(self, images: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        latent, _ = self.visual(images)
        text_latent, _ = self.text(text if self.text_reads_all else text[:, :-1])
        return normalize(latent), normalize(text_latent), count_labels(text[:, 1:])


class Contrast(nn.Cell):
    """The contrastive loss and the number of labels over all devices, and the gradients at this device's features."""

    def __init__(self, model: ImageTextModel, ranks: Ranks) -> None:
        super().__init__(auto_prefix=False)
        self.logit_scale = model.logit_scale
        self.loss = ContrastiveLoss(Gather(ranks))
        self.sum = Sum(ranks)

    def construct(self, image: Tensor, text: Tensor, count: Tensor) -> tuple[Tensor, ...]:
        # .sum(): logit_scale may have the shape (1,)
        loss, image_grad, text_grad, scale_grad = self.loss(image, text, self.logit_scale.sum())
        return self.sum(loss), self.sum(count), image_grad, text_grad, scale_grad


class Loss(nn.Cell):
    """The scalar to differentiate for one micro-batch, and what to report of it.

    `labels` (b, L - 1) are those of `caption_labels`; the decoder, being causal, need not see what follows them.
    Its gradient is the loss's; its value is not, because the contrastive term enters through its gradients at the
    features. Given none of them (`image_grad` is None), they are computed here, from this micro-batch alone.

    Returns:
        the scalar; the contrastive loss over all devices, 0 where it is not computed here; the caption loss's part
        of this device; the number of labels over all devices.
    """

    def __init__(self, model: ImageTextModel, config: LossConfig, ranks: Ranks, fusion: Fusion = "mean") -> None:
        super().__init__(auto_prefix=False)
        self.visual, self.text, self.text_decoder = VideoEncoder(model, fusion), model.text, model.text_decoder
        self.text_reads_all = model.text_reads_all
        self.logit_scale = model.logit_scale
        self.contrast, self.caption_sums = Contrast(model, ranks), CaptionLossSums()
        self.caption_weight, self.contrastive_weight = config.caption_weight, config.contrastive_weight
        self.z_loss_weight = config.z_loss_weight
        self.sum = Sum(ranks)

    def construct(
        self,
        images: Tensor,
        text: Tensor,
        labels: Tensor,
        loss_scale: Tensor,
        count: Tensor | None = None,
        image_grad: Tensor | None = None,
        text_grad: Tensor | None = None,
        scale_grad: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        latent, image_embs = self.visual(images)
        text_latent, token_embs = self.text(text if self.text_reads_all else text[:, :-1])
        contrastive = ops.zeros((), ms.float32)
        total = ops.zeros((), ms.float32)
        if count is None:
            count = self.sum(count_labels(labels))
        if self.contrastive_weight:
            image_features, text_features = normalize(latent), normalize(text_latent)
            if image_grad is None:
                contrastive, _, image_grad, text_grad, scale_grad = self.contrast(
                    ops.stop_gradient(image_features), ops.stop_gradient(text_features), count
                )
            surrogate = (image_features * ops.stop_gradient(image_grad)).sum()
            surrogate = surrogate + (text_features * ops.stop_gradient(text_grad)).sum()
            surrogate = surrogate + self.logit_scale.sum() * ops.stop_gradient(scale_grad)
            total = total + self.contrastive_weight * surrogate
        caption = ops.zeros((), ms.float32)
        if self.caption_weight:
            # position t predicts token t + 1
            hidden = self.text_decoder.hidden(image_embs, token_embs[:, : labels.shape[1]])  # (b, L - 1, D)
            caption, z_loss, _, _ = self.caption_sums(hidden, self.text_decoder.projection(), labels)
            number = ops.maximum(count, 1.0)
            caption = caption / number
            total = total + self.caption_weight * caption
            if self.z_loss_weight:
                total = total + self.z_loss_weight * z_loss / number
        return total * loss_scale, contrastive, caption, count


class Evaluate(nn.Cell):
    """Images and text of this device -> contrastive loss, caption loss, number of labels over all devices."""

    def __init__(self, loss: Loss) -> None:
        super().__init__(auto_prefix=False)
        self.loss, self.sum = loss, loss.sum

    def construct(self, images: Tensor, text: Tensor, labels: Tensor, one: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        _, contrastive, caption, count = self.loss(images, text, labels, one)
        return contrastive, self.sum(caption), count


class WholeStep(nn.Cell):
    """One batch, one update, one graph.

    Args:
        loss: a cell with a `sum` over devices: (the batch's tensors, factor of the loss, and optionally the number of
            labels over all devices) -> the scalar to differentiate, a value over all devices, a value of this device's
            part, and the number of labels over all devices.
    """

    def __init__(self, loss: nn.Cell, optimiser: AdamW) -> None:
        super().__init__(auto_prefix=False)
        self.loss, self.optimiser, self.sum = loss, optimiser, loss.sum
        self.gradients = ms.value_and_grad(loss, None, optimiser.parameters, has_aux=True)

    def construct(self, images: Tensor, text: Tensor, labels: Tensor, lr: Tensor) -> tuple[Tensor, ...]:
        values, grads = self.gradients(images, text, labels, self.optimiser.loss_scale)
        _, whole, part, count = values
        norm, good = self.optimiser(grads, lr)
        return whole, self.sum(part), count, norm, good


class Accumulate(nn.Cell):
    """Add one micro-batch's gradients to `sums`; `loss` as in WholeStep, of which the two values are returned."""

    def __init__(self, loss: nn.Cell, optimiser: AdamW) -> None:
        super().__init__(auto_prefix=False)
        self.optimiser = optimiser
        self.sums = optimiser.parameters.clone("accumulated", init="zeros")
        self.map = ops.Map()
        self.gradients = ms.value_and_grad(loss, None, optimiser.parameters, has_aux=True)

    def construct(
        self, images: Tensor, text: Tensor, labels: Tensor, count: Tensor, *feature_grads: Tensor
    ) -> tuple[Tensor, Tensor]:
        values, grads = self.gradients(images, text, labels, self.optimiser.loss_scale, count, *feature_grads)
        self.map(add_to, self.sums, grads)
        return values[1], values[2]


def add_to(total: Parameter, grad: Tensor) -> Tensor:
    return ops.assign_add(total, grad.astype(ms.float32))


def take(total: Parameter) -> Tensor:
    return total * 1.0


def clear(total: Parameter) -> Tensor:
    return ops.assign(total, ops.zeros_like(total))


class Apply(nn.Cell):
    """Update by the accumulated gradients and clear them."""

    def __init__(self, accumulate: Accumulate) -> None:
        super().__init__(auto_prefix=False)
        self.sums, self.optimiser = accumulate.sums, accumulate.optimiser
        self.sum, self.map = accumulate.optimiser.sum, ops.Map()

    def construct(self, lr: Tensor, part: Tensor) -> tuple[Tensor, ...]:
        norm, good = self.optimiser(self.map(take, self.sums), lr)
        self.map(clear, self.sums)
        return self.sum(part), norm, good


def keep_graphs(
    cells: Iterable[nn.Cell], model: ImageTextModel, optimiser: AdamW, ranks: Ranks, *settings: object
) -> None:
    """Allow the graphs of training to be kept, so that a run that is resumed or repeated compiles nothing.

    Args:
        settings: what the graphs depend on besides the model, the optimiser and the device's number.
    """
    tag = f"{model.graph_tag} {model.recomputes} {optimiser.graph_settings} {ranks} {settings}"
    for cell in cells:
        graph_cache.tag_cell(cell, tag)


class TrainStep:
    """Train on a batch of `accumulate_steps` micro-batches; the gradient is that of the whole batch over all devices.

    Args:
        model: with float32 parameters; its compute type is the caller's choice (`CoCa.set_compute_dtype`).
        fusion: of the frames of videos, `mean` or `pool`.
        label_lengths: see `CaptionLabels`; the graphs for all of them are compiled before the first step.
    """

    def __init__(
        self,
        model: ImageTextModel,
        config: LossConfig,
        optimiser: AdamW,
        ranks: Ranks,
        accumulate_steps: int = 1,
        fusion: Fusion = "mean",
        label_lengths: Sequence[int] = (),
    ) -> None:
        self.config, self.ranks, self.accumulate_steps = config, ranks, accumulate_steps
        self.labels, self.compiled = CaptionLabels(ranks, label_lengths), False
        self.loss = Loss(model, config, ranks, fusion)
        self.optimiser = optimiser
        if accumulate_steps == 1:
            self.whole = WholeStep(self.loss, optimiser)
            cells: list[nn.Cell] = [self.whole]
        else:
            self.features, self.contrast = Features(model, fusion), Contrast(model, ranks)
            self.accumulate = Accumulate(self.loss, optimiser)
            self.apply = Apply(self.accumulate)
            self.label_sum = Sum(ranks)
            cells = [self.features, self.contrast, self.accumulate, self.apply]
        self.evaluation = Evaluate(self.loss)
        keep_graphs([*cells, self.evaluation], model, optimiser, ranks, config, fusion)

    def __call__(self, micro_batches: Sequence[tuple[np.ndarray, np.ndarray]], lr: float) -> dict[str, float]:
        """Make one update from pairs of images (b, 3, H, W) and ids (b, T), one pair for each accumulation step.

        Returns:
            loss (the weighted sum), contrastive_loss, caption_loss, labels (all over the whole batch), grad_norm
            before clipping, and updated: 1, or 0 where float16 overflowed and the update was left out.
        """
        return self.report(self.run(micro_batches, lr))

    def run(self, micro_batches: Sequence[tuple[np.ndarray, np.ndarray]], lr: float) -> tuple[Tensor, ...]:
        """As a call, without waiting for the device: `report` reads the result."""
        batches = [
            (Tensor(images), Tensor(text), Tensor(self.labels(np.asarray(text)))) for images, text in micro_batches
        ]
        if self.accumulate_steps == 1:
            self._compile(self.whole, batches[0], (as_scalar(lr),))
            return graph_cache.call(self.whole, *batches[0], as_scalar(lr))
        return self._accumulated(batches, lr)

    def _compile(self, cell: nn.Cell, batch: tuple[Tensor, Tensor, Tensor], others: tuple[Tensor, ...]) -> None:
        """Before the first step, in one order on all devices: the graphs for every length of labels that was given."""
        images, text, labels = batch
        lengths = [] if self.compiled else self.labels.of(text.shape[1])
        self.compiled = True
        for number, length in enumerate(lengths, 1):
            shape = (labels.shape[0], length - 1)
            with Wait(f"compiling for captions of {length} tokens, {number} of {len(lengths)}"):
                graph_cache.compile_ahead(cell, images, text, Tensor(np.zeros(shape, np.int32)), *others)

    def report(self, result: tuple[Tensor, ...]) -> dict[str, float]:
        names = ("contrastive_loss", "caption_loss", "labels", "grad_norm", "updated")
        report = {name: float(value.asnumpy()) for name, value in zip(names, result)}
        weights = {"contrastive_loss": self.config.contrastive_weight, "caption_loss": self.config.caption_weight}
        report["loss"] = sum(weight * report[name] for name, weight in weights.items())
        return {name: value for name, value in report.items() if weights.get(name, 1)}

    def _accumulated(self, batches: Sequence[tuple[Tensor, Tensor, Tensor]], lr: float) -> tuple[Tensor, ...]:
        parts = len(batches)
        contrastive = caption = as_scalar(0)
        shares: list[tuple[Tensor, ...]] = [()] * parts
        if self.config.contrastive_weight:
            # cached features: pass one of two
            image, text, counts = zip(*(graph_cache.call(self.features, images, text) for images, text, _ in batches))
            contrastive, count, image_grad, text_grad, scale_grad = graph_cache.call(
                self.contrast, ops.concat(image), ops.concat(text), sum(counts[1:], counts[0])
            )
            size = image[0].shape[0]
            shares = [
                (image_grad[i : i + size], text_grad[i : i + size], scale_grad / parts)
                for i in range(0, size * parts, size)
            ]
        else:
            count = self.label_sum(
                as_scalar(sum(np.count_nonzero(labels.asnumpy() != PAD_ID) for _, _, labels in batches))
            )

        self._compile(self.accumulate, batches[0], (count, *shares[0]))
        for batch, share in zip(batches, shares):
            caption = caption + graph_cache.call(self.accumulate, *batch, count, *share)[1]
        caption, norm, good = graph_cache.call(self.apply, as_scalar(lr), caption)
        return contrastive, caption, count, norm, good
