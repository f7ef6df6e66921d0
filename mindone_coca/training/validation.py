"""Validation: the losses on held-out data, and a page of images with their current captions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mindone_coca.config import PreprocessCfg
from mindone_coca.data.loader import Batch, TrainingData
from mindone_coca.evaluation.reports import Example
from mindone_coca.evaluation.reports import write_page as write_examples
from mindone_coca.preprocess.transforms import to_pixels
from mindone_coca.training.settings import LossConfig
from mindone_coca.training.step import TrainStep


def evaluate(step: TrainStep, data: TrainingData, config: LossConfig) -> dict[str, float]:
    """The losses over the whole of `data`: the caption loss is the mean over all labels, the contrastive loss over
    batches, of which it depends on the size."""
    contrastive, captions, counted = [], 0.0, 0.0
    for batch in data.epoch(0):
        pair_loss, caption, count = step.evaluate(batch.images, batch.text)
        contrastive.append(pair_loss)
        captions, counted = captions + caption * count, counted + count
    losses = {}
    if config.contrastive_weight:
        losses["contrastive_loss"] = float(np.mean(contrastive))
    if config.caption_weight:
        losses["caption_loss"] = captions / max(counted, 1)
    weights = {"contrastive_loss": config.contrastive_weight, "caption_loss": config.caption_weight}
    losses["loss"] = sum(weights[name] * value for name, value in losses.items())
    return losses


def write_page(
    target: Path, step: int, losses: dict[str, float], batch: Batch, captions: Sequence[str], preprocess: PreprocessCfg
) -> None:
    """Write a page of examples: images as the model sees them, captions, references.

    Of a video, of which a batch holds (F, 3, H, W), the middle frame is shown.
    """
    examples = []
    for images, name, reference, caption in zip(batch.images, batch.names, batch.captions, captions):
        image = images if images.ndim == 3 else images[len(images) // 2]
        picture = Image.fromarray(to_pixels(image, preprocess))
        examples.append(Example(name, [picture], None, reference, caption, None))
    write_examples(target, f"Validation at step {step}", examples, losses)
