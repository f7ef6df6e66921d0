"""One update of training: the graphs of `training.graphs`, one after another."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
from mindspore import Tensor, nn, ops

from mindone_coca import batch_sizes, graph_cache
from mindone_coca.config import Fusion
from mindone_coca.distributed import Ranks, Sum
from mindone_coca.losses import PAD_ID
from mindone_coca.model.base import ImageTextModel
from mindone_coca.training.cache import FeatureCache
from mindone_coca.training.graphs import Accumulate, Apply, Contrast, Encode, Evaluate, Features, Loss, WholeStep
from mindone_coca.training.labels import CaptionLabels
from mindone_coca.training.optim import Optimizer, as_scalar
from mindone_coca.training.settings import LossConfig
from mindone_coca.waiting import Wait

LARGE = 2**30  # bytes of parameters from which on the memory that compiling takes is worth a second's look


def keep_graphs(
    cells: Iterable[nn.Cell], model: ImageTextModel, optimiser: Optimizer, ranks: Ranks, *settings: object
) -> None:
    """Allow the graphs of training to be kept, so that a run that is resumed or repeated compiles nothing.

    Args:
        settings: what the graphs depend on besides the model, the optimiser and the device's number.
    """
    tag = f"{model.graph_tag} {model.recomputes} {optimiser.graph_settings} {ranks} {settings}"
    for cell in cells:
        graph_cache.tag_cell(cell, tag)


def is_image_tower(name: str) -> bool:
    """Whether a parameter, by its name, is the image tower's."""
    return name.startswith("visual.")


def trains_images(optimiser: Optimizer) -> bool:
    """Whether anything of the image tower is trained."""
    return any(is_image_tower(parameter.name) for parameter in optimiser.parameters)


class TrainStep:
    """Train on a batch of `accumulate_steps` micro-batches; the gradient is that of the whole batch over all devices.

    Args:
        model: with float32 parameters; its compute type is the caller's choice (`CoCa.set_compute_dtype`).
        fusion: of the frames of videos, `mean` or `pool`.
        label_lengths: see `CaptionLabels`; the graphs for all of them are compiled before the first step. None: those
            of `batch_sizes.label_lengths`.
        draw: called with a micro-batch's number before each of its passes.
        cache: of what an image tower says of which nothing is trained.
    """

    def __init__(
        self,
        model: ImageTextModel,
        config: LossConfig,
        optimiser: Optimizer,
        ranks: Ranks,
        accumulate_steps: int = 1,
        fusion: Fusion = "mean",
        label_lengths: Sequence[int] = (),
        draw: Callable[[int], object] = lambda part: None,
        cache: FeatureCache | None = None,
    ) -> None:
        self.config, self.ranks, self.accumulate_steps = config, ranks, accumulate_steps
        self.encode = None if trains_images(optimiser) else Encode(model, fusion)
        self.loss = Loss(model, config, ranks, fusion, encoded=self.encode is not None)
        self.optimiser, self.draw, self.cache = optimiser, draw, cache
        self.large = sum(p.nbytes for p in model.get_parameters()) > LARGE
        lengths = label_lengths or batch_sizes.label_lengths(self.large)
        self.labels, self.compiled = CaptionLabels(ranks, lengths), False
        if accumulate_steps == 1:
            self.whole = WholeStep(self.loss, optimiser)
            self.twin: Callable[[], nn.Cell] = partial(WholeStep, self.loss, optimiser)
            cells: list[nn.Cell] = [self.whole]
        else:
            self.features, self.contrast = Features(model, self.loss.visual), Contrast(model, ranks)
            self.accumulate = Accumulate(self.loss, optimiser)
            self.twin = partial(Accumulate, self.loss, optimiser, self.accumulate.sums)
            self.apply = Apply(self.accumulate)
            self.label_sum = Sum(ranks)
            cells = [self.features, self.contrast, self.accumulate, self.apply]
        self.evaluation = Evaluate(self.loss)
        keep_graphs([*cells, self.evaluation], model, optimiser, ranks, config, fusion, self.encode is not None)

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
            (self.images(images), Tensor(text), Tensor(self.labels(np.asarray(text)))) for images, text in micro_batches
        ]
        if self.accumulate_steps == 1:
            self._compile(self.whole, batches[0], (as_scalar(lr),))
            self.draw(0)
            return graph_cache.call(self.whole, *batches[0], as_scalar(lr))
        return self._accumulated(batches, lr)

    def images(self, images: np.ndarray) -> Tensor:
        """Images (b, 3, H, W) or frames as the losses read them: as they are, or read by an image tower of which
        nothing is trained."""
        encode = self.encode
        if encode is None:
            return Tensor(images)
        if self.cache is None:
            return graph_cache.call(encode, Tensor(images))
        no_text = np.zeros((len(images), 0), np.int32)
        return Tensor(self.cache(lambda: graph_cache.call(encode, Tensor(images)).asnumpy(), images, no_text))

    def evaluate(self, images: np.ndarray, text: np.ndarray) -> tuple[float, ...]:
        """The contrastive loss, the caption loss and the number of labels over all devices."""
        inputs = self.images(images), Tensor(text), Tensor(self.labels(text)), as_scalar(1)
        contrastive, caption, count = (float(value.asnumpy()) for value in graph_cache.call(self.evaluation, *inputs))
        return contrastive, caption, count

    def _compile(self, cell: nn.Cell, batch: tuple[Tensor, Tensor, Tensor], others: tuple[Tensor, ...]) -> None:
        """Before the first step, in one order on all devices: the graphs for every length of labels that was given. A
        large model's are compiled aside, also for lengths that come later."""
        images, text, labels = batch
        lengths = [] if self.compiled else self.labels.of(text.shape[1])
        self.compiled = True
        for number, length in enumerate(lengths, 1):
            shape = (labels.shape[0], length - 1)
            with Wait(f"compiling for captions of {length} tokens, {number} of {len(lengths)}"):
                inputs = (images, text, Tensor(np.zeros(shape, np.int32)), *others)
                self._compile_aside(cell, *inputs)
                graph_cache.compile_ahead(cell, *inputs)
        self._compile_aside(cell, *batch, *others)

    def _compile_aside(self, cell: nn.Cell, *inputs: Tensor) -> None:
        if self.large:
            graph_cache.compile_aside(cell, self.twin, *inputs)

    def report(self, result: tuple[Tensor, ...]) -> dict[str, float]:
        names = ("contrastive_loss", "caption_loss", "labels", "grad_norm", "updated")
        report = {name: float(value.asnumpy()) for name, value in zip(names, result)}
        weights = {"contrastive_loss": self.config.contrastive_weight, "caption_loss": self.config.caption_weight}
        report["loss"] = sum(weight * report[name] for name, weight in weights.items())
        return {name: value for name, value in report.items() if weights.get(name, 1)}

    def _features(self, part: int, images: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features and number of labels of micro-batch number `part`."""
        self.draw(part)
        return graph_cache.call(self.features, images, text)

    def _accumulated(self, batches: Sequence[tuple[Tensor, Tensor, Tensor]], lr: float) -> tuple[Tensor, ...]:
        parts = len(batches)
        contrastive = caption = as_scalar(0)
        shares: list[tuple[Tensor, ...]] = [()] * parts
        if self.config.contrastive_weight:
            # cached features: pass one of two
            image, text, counts = zip(*(self._features(part, *batch[:2]) for part, batch in enumerate(batches)))
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

        for part, (batch, share) in enumerate(zip(batches, shares)):
            self._compile(self.accumulate, batch, (count, *share))
            self.draw(part)
            caption = caption + graph_cache.call(self.accumulate, *batch, count, *share)[1]
        caption, norm, good = graph_cache.call(self.apply, as_scalar(lr), caption)
        return contrastive, caption, count, norm, good
