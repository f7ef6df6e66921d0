"""Validation: the losses on held-out data, and a page of images with their current captions."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mindspore import Tensor, nn
from PIL import Image

from mindone_coca.config import PreprocessCfg
from mindone_coca.data.loader import Batch, TrainingData
from mindone_coca.files import atomic_path
from mindone_coca.losses import caption_labels
from mindone_coca.preprocess.transforms import to_pixels
from mindone_coca.training.optim import as_scalar
from mindone_coca.training.settings import LossConfig
from mindone_coca.training.step import Loss

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Step {step}</title><style>
body {{ font: 16px/1.4 system-ui, sans-serif; margin: 2rem; background: #fafafa; color: #222 }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem }}
figure {{ margin: 0; padding: .75rem; background: #fff; border: 1px solid #ddd; border-radius: .5rem }}
img {{ width: 100%; image-rendering: auto; border-radius: .25rem }} small {{ color: #666 }}
</style></head><body><h1>Validation at step {step}</h1><p>{losses}</p><main>
{figures}
</main></body></html>
"""
FIGURE = (
    '<figure><img alt="" src="data:image/png;base64,{image}"><figcaption><b>{caption}</b><br>'
    "<small>reference: {reference}<br>{name}</small></figcaption></figure>"
)


class Evaluate(nn.Cell):
    """Images and text of this device -> contrastive loss, caption loss, number of labels over all devices."""

    def __init__(self, loss: Loss) -> None:
        super().__init__(auto_prefix=False)
        self.loss, self.sum = loss, loss.sum

    def construct(self, images: Tensor, text: Tensor, labels: Tensor, one: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        _, contrastive, caption, count = self.loss(images, text, labels, one)
        return contrastive, self.sum(caption), count


def evaluate(evaluation: Evaluate, data: TrainingData, config: LossConfig) -> dict[str, float]:
    """The losses over the whole of `data`: the caption loss is the mean over all labels, the contrastive loss over
    batches, of which it depends on the size."""
    contrastive, captions, counted = [], 0.0, 0.0
    for batch in data.epoch(0):
        labels = Tensor(caption_labels(batch.text))
        values = evaluation(Tensor(batch.images), Tensor(batch.text), labels, as_scalar(1))
        pair_loss, caption, count = (float(value.asnumpy()) for value in values)
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
    """Write an HTML page without outside references: images as the model sees them, captions, references.

    Of a video, of which a batch holds (F, 3, H, W), the middle frame is shown.
    """
    figures = []
    for images, name, reference, caption in zip(batch.images, batch.names, batch.captions, captions):
        image = images if images.ndim == 3 else images[len(images) // 2]
        encoded = io.BytesIO()
        Image.fromarray(to_pixels(image, preprocess)).save(encoded, "PNG")
        figures.append(
            FIGURE.format(
                image=base64.b64encode(encoded.getvalue()).decode(),
                caption=html.escape(caption),
                reference=html.escape(reference),
                name=html.escape(name),
            )
        )
    shown = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in losses.items())
    with atomic_path(target) as partial:
        partial.write_text(PAGE.format(step=step, losses=shown, figures="\n".join(figures)), encoding="utf-8")
