"""Losses and gradients against open_clip's model, losses and torch's autograd, live.

open_clip runs in float64 here: in float32 its own rounding is off by up to 1e-5 in single gradients.
"""

import mindspore as ms
import numpy as np
import pytest

import mindone_coca.losses as losses_module
from mindone_coca.distributed import Ranks
from mindone_coca.losses import caption_labels, count_labels
from mindone_coca.model.open_clip.family import OPEN_CLIP
from mindone_coca.model.open_clip.model import CoCa
from mindone_coca.training.graphs import Loss
from mindone_coca.training.optim import AdamW
from mindone_coca.training.settings import LossConfig, OptimConfig
from mindone_coca.training.step import TrainStep
from tests.models import CONFIGS, from_reference, one_layer
from tests.reference import random_reference, torch
from tests.training.reference_training import make_batch, reference_losses


def reference_gradients(reference, images, text, config: LossConfig):
    reference = reference.double()
    losses = reference_losses(reference, images.astype(np.float64), text, config)
    reference.zero_grad()
    torch.stack(list(losses.values())).sum().backward()
    grads = {OPEN_CLIP.to_mindspore(name): p.grad for name, p in reference.named_parameters()}
    return {name: value.item() for name, value in losses.items()}, grads


def assert_gradients_match(ours: dict[str, np.ndarray], theirs: dict, tolerance: float = 1e-5) -> None:
    norm = np.sqrt(sum(float((g.double() ** 2).sum()) for g in theirs.values() if g is not None))
    worst = {}
    for name, grad in ours.items():
        want = theirs[name]
        want = np.zeros(grad.shape) if want is None else want.double().numpy()
        if name == "logit_bias":  # 0 in theory, rounding in open_clip
            assert np.abs(grad).max() == 0 and np.abs(want).max() < 1e-6 * norm
            continue
        difference = np.abs(grad - want).max() / max(np.abs(want).max(), 1e-6 * norm)
        worst[name] = difference
    name = max(worst, key=lambda one: worst[one])
    assert worst[name] < tolerance, (name, worst[name])


class Gradients:
    """Losses and gradients of one model, whose graph is compiled once for all batches of one size."""

    def __init__(self, model: CoCa, config: LossConfig) -> None:
        self.parameters = model.trainable_params()
        loss = Loss(model, config, Ranks())
        self.function = ms.value_and_grad(loss, None, ms.ParameterTuple(self.parameters), has_aux=True)

    def __call__(self, images: np.ndarray, text: np.ndarray) -> tuple[tuple[ms.Tensor, ...], dict[str, np.ndarray]]:
        values, grads = self.function(
            ms.Tensor(images), ms.Tensor(text), ms.Tensor(caption_labels(text)), ms.Tensor(1.0, ms.float32)
        )
        return values, {p.name: g.asnumpy().astype(np.float64) for p, g in zip(self.parameters, grads)}


# one layer a tower where the loss or one tower's kind is what matters
SMALL = one_layer(CONFIGS["base"])
# model, losses, whether captions are padded, and tokens of the longest where decoding shall end early
CASES = {
    "base": (CONFIGS["base"], LossConfig(), (True, False), None),
    "caption": (SMALL, LossConfig(caption_weight=1.0, contrastive_weight=0.0), (True,), None),
    "contrastive": (SMALL, LossConfig(caption_weight=0.0), (True,), None),
    "odd_sizes": (CONFIGS["odd_sizes"], LossConfig(z_loss_weight=0.5), (True,), None),
    "bias": (one_layer(CONFIGS["bias"]), LossConfig(), (True,), 7),
    "cascade": (one_layer(CONFIGS["cascade"]), LossConfig(), (False,), None),
}


@pytest.mark.graphs
@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradients(name, monkeypatch):
    """One case has shorter captions, after which decoding ends."""
    model_config, config, batches, longest = CASES[name]
    reference = random_reference(model_config, seed=1)
    gradients = Gradients(from_reference(reference, model_config), config)
    if longest:
        monkeypatch.setattr(losses_module, "LENGTH_STEP", 4)
    for padded in batches:
        images, text = make_batch(model_config, 6, padded=padded, longest=longest)
        assert (caption_labels(text).shape[1] < text.shape[1] - 1) == bool(longest)
        losses, grads = reference_gradients(reference, images, text, config)
        values, ours = gradients(images, text)
        _, contrastive, caption, _ = (float(v.asnumpy()) for v in values)
        if config.contrastive_weight:
            assert abs(contrastive * config.contrastive_weight / losses["contrastive_loss"] - 1) < 1e-6
        if config.caption_weight:
            assert abs(caption * config.caption_weight / losses["caption_loss"] - 1) < 1e-6
        assert_gradients_match(ours, grads)


def test_labels_end_after_the_longest_caption(monkeypatch):
    monkeypatch.setattr(losses_module, "LENGTH_STEP", 4)
    text = np.array([[9, 8, 7, 0, 0, 0, 0, 0, 0, 0], [9, 0, 6, 5, 4, 0, 0, 0, 0, 0]])
    assert caption_labels(text).tolist() == [[8, 7, 0, 0, 0, 0, 0], [0, 6, 5, 4, 0, 0, 0]]
    assert caption_labels(text[:, :3]).shape == (2, 2)  # the shorter ones in finer steps
    assert caption_labels(np.ones((2, 10), int)).shape == (2, 9)
    assert caption_labels(np.zeros((2, 10), int)).shape == (2, 1)


def test_labels_that_count_are_no_padding():
    labels = ms.Tensor(np.array([[5, 0, 7, 0], [0, 0, 0, 0]], np.int32))
    assert float(count_labels(labels).asnumpy()) == 2
    assert float(count_labels(labels, pad_id=7).asnumpy()) == 7


@pytest.mark.graphs
@pytest.mark.parametrize("config", [LossConfig(z_loss_weight=0.5), LossConfig(1.0, 0.0), LossConfig(0.0, 1.0)])
def test_accumulated_gradient_is_the_large_batch_s(config, monkeypatch):
    if config.caption_weight and config.contrastive_weight:
        monkeypatch.setattr(losses_module, "LENGTH_STEP", 4)  # micro-batches of two lengths
    reference = random_reference(SMALL, seed=1)
    images, text = make_batch(SMALL, 8)
    model = from_reference(reference, SMALL)
    losses, grads = reference_gradients(reference, images, text, config)
    step = TrainStep(model, config, AdamW(model, OptimConfig(), Ranks()), Ranks(), accumulate_steps=4)
    ours = {}

    def record(lr, caption):  # in place of the update
        ours.update({p.name.removeprefix("accumulated."): p.asnumpy().astype(np.float64) for p in step.accumulate.sums})
        return caption, caption, caption

    step.apply = record
    report = step([(images[i : i + 2], text[i : i + 2]) for i in range(0, 8, 2)], 1e-3)
    for name, value in losses.items():
        if value and name != "z_loss":  # it is not reported
            assert abs(report[name] * getattr(config, name.replace("loss", "weight")) / value - 1) < 1e-6
    assert_gradients_match(ours, grads)
