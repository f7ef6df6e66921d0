"""The graphs of training: features, losses, gradients, accumulation, update, validation.

Without accumulation the whole step is one graph. With it there are three: features of each micro-batch, the
contrastive loss over all of them, then forward and backward of each micro-batch with the gradients at its features
given, so that the result is the large batch's; the update is the fourth.

What is below the lowest trained layer has no part in a backward pass: the compiler leaves out the gradients that
nobody asks for, and what they alone would need. An image tower of which nothing is trained is run before all of these,
once for each micro-batch, in a graph of its own; they read what it said.
"""

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from mindone_coca.config import Fusion
from mindone_coca.distributed import Gather, Ranks, Sum
from mindone_coca.losses import CaptionLossSums, ContrastiveLoss, count_labels
from mindone_coca.model.base import ImageTextModel
from mindone_coca.model.video import VideoEncoder
from mindone_coca.tensors import cast, normalize, total
from mindone_coca.training.optim import Optimizer
from mindone_coca.training.settings import LossConfig


class Encode(nn.Cell):
    """What an image tower of which nothing is trained says of images: its feature and its tokens for the decoder, side
    by side (b, E + K D), float32."""

    def __init__(self, model: ImageTextModel, fusion: Fusion) -> None:
        super().__init__(auto_prefix=False)
        self.visual = VideoEncoder(model, fusion)
        self.graph_tag = self.visual.graph_tag

    def construct(self, images: Tensor) -> Tensor:
        latent, tokens = self.visual(images)
        return ops.concat((cast(latent, ms.float32), cast(tokens, ms.float32).reshape(tokens.shape[0], -1)), 1)


class Encoded(nn.Cell):
    """Stands in the image tower's place for images that `Encode` has read: -> (b, E) and (b, K, D) again."""

    def __init__(self, model: ImageTextModel) -> None:
        super().__init__(auto_prefix=False)
        self.feature_width, self.dtype = model.visual.feature_width, model.visual.dtype
        self.width = model.text_decoder.width

    def construct(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        tokens = encoded[:, self.feature_width :].reshape(encoded.shape[0], -1, self.width)
        return encoded[:, : self.feature_width], tokens.astype(self.dtype)


def image_reader(model: ImageTextModel, fusion: Fusion, encoded: bool) -> nn.Cell:
    """What the losses read images with: the tower, or `Encoded` where it has been run already."""
    return Encoded(model) if encoded else VideoEncoder(model, fusion)


class Features(nn.Cell):
    """Images and text (b, T) -> image features, text features (b, D) of unit length, and number of labels."""

    def __init__(self, model: ImageTextModel, visual: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.visual, self.text = visual, model.text
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
        # the total: logit_scale may have the shape (1,)
        loss, image_grad, text_grad, scale_grad = self.loss(image, text, total(self.logit_scale))
        return self.sum(loss), self.sum(count), image_grad, text_grad, scale_grad


class Loss(nn.Cell):
    """The scalar to differentiate for one micro-batch, and what to report of it.

    `labels` (b, L - 1) are those of `caption_labels`; the decoder, being causal, need not see what follows them.
    Its gradient is the loss's; its value is not, because the contrastive term enters through its gradients at the
    features. Given none of them (`image_grad` is None), they are computed here, from this micro-batch alone.

    Args:
        encoded: the images are those that `Encode` has read.
    Returns:
        the scalar; the contrastive loss over all devices, 0 where it is not computed here; the caption loss's part
        of this device; the number of labels over all devices.
    """

    def __init__(
        self, model: ImageTextModel, config: LossConfig, ranks: Ranks, fusion: Fusion = "mean", encoded: bool = False
    ) -> None:
        super().__init__(auto_prefix=False)
        self.visual = image_reader(model, fusion, encoded)
        self.text, self.text_decoder = model.text, model.text_decoder
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
        loss = ops.zeros((), ms.float32)
        if count is None:
            count = self.sum(count_labels(labels))
        if self.contrastive_weight:
            image_features, text_features = normalize(latent), normalize(text_latent)
            if image_grad is None:
                contrastive, _, image_grad, text_grad, scale_grad = self.contrast(
                    ops.stop_gradient(image_features), ops.stop_gradient(text_features), count
                )
            surrogate = total(image_features * ops.stop_gradient(image_grad))
            surrogate = surrogate + total(text_features * ops.stop_gradient(text_grad))
            surrogate = surrogate + total(self.logit_scale) * ops.stop_gradient(scale_grad)
            loss = loss + self.contrastive_weight * surrogate
        caption = ops.zeros((), ms.float32)
        if self.caption_weight:
            # position t predicts token t + 1
            hidden = self.text_decoder.hidden(image_embs, token_embs[:, : labels.shape[1]])  # (b, L - 1, D)
            caption, z_loss, _, _ = self.caption_sums(hidden, self.text_decoder.projection(), labels)
            number = ops.maximum(count, 1.0)
            caption = caption / number
            loss = loss + self.caption_weight * caption
            if self.z_loss_weight:
                loss = loss + self.z_loss_weight * z_loss / number
        return loss * loss_scale, contrastive, caption, count


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

    def __init__(self, loss: nn.Cell, optimiser: Optimizer) -> None:
        super().__init__(auto_prefix=False)
        self.loss, self.optimiser, self.sum = loss, optimiser, loss.sum
        self.gradients = ms.value_and_grad(loss, None, optimiser.parameters, has_aux=True)

    def construct(self, images: Tensor, text: Tensor, labels: Tensor, lr: Tensor) -> tuple[Tensor, ...]:
        values, grads = self.gradients(images, text, labels, self.optimiser.loss_scale)
        _, whole, part, count = values
        norm, good = self.optimiser(grads, lr)
        return whole, self.sum(part), count, norm, good


class Accumulate(nn.Cell):
    """Add one micro-batch's gradients to `sums`, new ones by default; `loss` as in WholeStep, of which the two values
    are returned."""

    def __init__(self, loss: nn.Cell, optimiser: Optimizer, sums: ParameterTuple | None = None) -> None:
        super().__init__(auto_prefix=False)
        # the loss, for a graph from the store takes the weights, frozen ones too, from among its cell's own
        self.loss, self.optimiser = loss, optimiser
        self.sums = optimiser.parameters.clone("accumulated", init="zeros") if sums is None else sums
        self.map = ops.Map()
        self.gradients = ms.value_and_grad(loss, None, optimiser.parameters, has_aux=True)

    def construct(
        self, images: Tensor, text: Tensor, labels: Tensor, count: Tensor, *feature_grads: Tensor
    ) -> tuple[Tensor, Tensor]:
        values, grads = self.gradients(images, text, labels, self.optimiser.loss_scale, count, *feature_grads)
        self.map(add_to, self.sums, grads)
        return values[1], values[2]


def add_to(added: Parameter, grad: Tensor) -> Tensor:
    return ops.assign_add(added, cast(grad, ms.float32))


def take(added: Parameter) -> Tensor:
    return added * 1.0


def clear(added: Parameter) -> Tensor:
    return ops.assign(added, ops.zeros_like(added))


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
