"""AdamW, schedule, clipping, groups, loss scaling and EMA against torch and open_clip's training code, live."""

from dataclasses import dataclass

import mindspore as ms
import numpy as np
import pytest

from mindone_coca import graph_cache
from mindone_coca.distributed import Ranks
from mindone_coca.errors import InputError
from mindone_coca.model.open_clip.family import OPEN_CLIP
from mindone_coca.model.open_clip.model import CoCa
from mindone_coca.training import step as training_step
from mindone_coca.training.optim import (
    MAX_LOGIT_SCALE,
    AdamW,
    freeze,
    freeze_matching,
    has_weight_decay,
    learning_rate,
)
from mindone_coca.training.settings import LossConfig, OptimConfig
from mindone_coca.training.step import TrainStep
from tests.models import CONFIGS, from_reference, make_config, one_layer, relative_difference
from tests.reference import random_reference, torch
from tests.training.reference_training import make_batch, reference_losses, reference_optimiser


def test_schedule_is_open_clips():
    from open_clip_train.scheduler import const_lr, cosine_lr

    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    config = OptimConfig(lr=3e-4, warmup_steps=7)
    cosine = cosine_lr(optimiser, config.lr, 7, 40)
    assert [learning_rate(config, i, 40) for i in range(40)] == pytest.approx([cosine(i) for i in range(40)], rel=1e-12)
    config.schedule = "constant"
    constant = const_lr(optimiser, config.lr, 7, 40)
    assert [learning_rate(config, i, 40) for i in range(40)] == pytest.approx([constant(i) for i in range(40)])
    assert learning_rate(OptimConfig(lr=1.0, end_lr=0.25), 40, 40) == 0.25


@pytest.mark.parametrize("name", ["odd_sizes", "bias"])
def test_weight_decay_groups_are_open_clips(name):
    reference = random_reference(CONFIGS[name])
    decayed = {id(p) for p in reference_optimiser(reference, OptimConfig()).param_groups[1]["params"]}
    by_name = dict(reference.named_parameters())
    for parameter in from_reference(reference, CONFIGS[name]).trainable_params():
        theirs = id(by_name[OPEN_CLIP.to_original(parameter.name)]) in decayed
        assert has_weight_decay(parameter.name, parameter.shape) == theirs, parameter.name


SMALL = one_layer(CONFIGS["base"])
EMA_DECAY = 0.75
TRAJECTORIES = {
    "plain": ("base", LossConfig(), OptimConfig(lr=1e-3, warmup_steps=10), None, 1),
    "clipped": (
        *("packed_pooler", LossConfig(1.0, 0.0), OptimConfig(lr=5e-4, weight_decay=0.1, schedule="constant"), 1.0, 1),
    ),
    "accumulated": ("base", LossConfig(), OptimConfig(lr=5e-4), None, 2),
}


def graphs_from_the_store(monkeypatch) -> list[bool]:
    """Of each graph that is compiled or loaded from now on, whether it was in the store."""
    kept = []
    enter = graph_cache._Graph.__enter__

    def noting(graph):
        wait = enter(graph)
        kept.append(graph.found)
        return wait

    monkeypatch.setattr(graph_cache._Graph, "__enter__", noting)
    return kept


@pytest.mark.graphs
@pytest.mark.parametrize("case", TRAJECTORIES)
def test_fifty_steps_follow_torch(case, monkeypatch):
    """Same weights, batches and schedule: losses at each step, and the outputs at the end. One case is taken for
    that of a large model, whose graph comes from the store at once."""
    kept = graphs_from_the_store(monkeypatch)
    if case == "clipped":
        monkeypatch.setattr(training_step, "LARGE", 0)
    name, loss_config, config, clip, parts = TRAJECTORIES[case]
    model_config = one_layer(CONFIGS[name])
    reference = random_reference(model_config, seed=5).train()
    model = from_reference(reference, model_config)
    freeze_matching(model, model.unused_parameters(loss_config.caption_weight, loss_config.contrastive_weight))
    optimiser = reference_optimiser(reference, config)
    ours = AdamW(model, config, Ranks(), clip, ema_decay=EMA_DECAY if case == "plain" else None)
    step = TrainStep(model, loss_config, ours, Ranks(), parts)
    average = model.visual.proj.asnumpy().copy()
    for i in range(50):
        images, text = make_batch(model_config, 4, seed=i % 10)
        rate = learning_rate(config, i, 50)
        size = 4 // parts
        report = step([(images[k : k + size], text[k : k + size]) for k in range(0, 4, size)], rate)
        losses = reference_losses(reference, images, text, loss_config)
        total = sum(losses.values())
        assert abs(report["loss"] / total.item() - 1) < 1e-4, i
        if case == "clipped":
            assert kept[-1], kept
        average = EMA_DECAY * average + (1 - EMA_DECAY) * model.visual.proj.asnumpy()
        if ours.ema and i == 2:
            [ema] = [p for p in ours.ema if p.name == "ema.visual.proj"]
            assert relative_difference(ema, average) < 1e-6
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad()
        total.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(reference.parameters(), clip)
        optimiser.step()
        with torch.no_grad():
            reference.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
    with torch.no_grad():
        want = reference.eval()(torch.from_numpy(images), torch.from_numpy(text).long())
    output = model(images, text)
    for key in ("image_features", "text_features", "logits", "logit_scale"):
        assert relative_difference(output[key], want[key]) < 1e-3, key


@dataclass(frozen=True)
class SmallStep:
    """A step of a small model, compiled once for all tests, and how its parameters and state were at first."""

    model: CoCa
    optimiser: AdamW
    step: TrainStep
    start: dict[str, np.ndarray]

    @property
    def states(self) -> list[ms.Parameter]:
        return [*self.model.get_parameters(), *self.optimiser.state()]

    def values(self) -> dict[str, np.ndarray]:
        return {p.name: p.asnumpy().copy() for p in self.states}


@pytest.fixture(scope="module")
def compiled_step() -> SmallStep:
    model = from_reference(random_reference(SMALL), SMALL)
    optimiser = AdamW(model, OptimConfig(), Ranks(), ema_decay=EMA_DECAY, loss_scaling=True)
    small = SmallStep(model, optimiser, TrainStep(model, LossConfig(), optimiser, Ranks()), {})
    small.start.update(small.values())
    return small


@pytest.fixture
def small_step(compiled_step) -> SmallStep:
    """The step with everything as at the start."""
    for parameter in compiled_step.states:
        parameter.set_data(ms.Tensor(compiled_step.start[parameter.name]))
    return compiled_step


@pytest.mark.graphs
def test_temperature_stays_below_its_limit(small_step):
    model = small_step.model
    model.logit_scale.set_data(model.logit_scale * 0 + 4.7)
    assert small_step.step([make_batch(SMALL, 2)], 0.0)["updated"] == 1
    assert model.logit_scale.asnumpy() == pytest.approx(np.log(100))


@pytest.mark.graphs
def test_moving_average(small_step):
    model = small_step.model
    average = model.visual.proj.asnumpy().copy()
    for seed in range(3):
        small_step.step([make_batch(SMALL, 2, seed=seed)], 1e-2)
        average = EMA_DECAY * average + (1 - EMA_DECAY) * model.visual.proj.asnumpy()
    ema = {p.name: p for p in small_step.optimiser.ema}["ema.visual.proj"]
    assert relative_difference(ema, average) < 1e-6
    assert relative_difference(model.visual.proj, average) > 1e-3


@pytest.mark.graphs
@pytest.mark.parametrize("first", [True, False])
def test_overflow_leaves_everything_and_halves_the_scale(small_step, first):
    optimiser, step = small_step.optimiser, small_step.step
    images, text = make_batch(SMALL, 2)
    if not first:
        assert step([(images, text)], 1e-3)["updated"] == 1
    before = small_step.values()
    assert step([(images * np.nan, text)], 1e-3)["updated"] == 0
    for parameter in small_step.states:
        if parameter.name == "optimiser.loss_scale":
            assert parameter.asnumpy() == before[parameter.name] / 2
        elif parameter.name != "optimiser.good_steps":
            np.testing.assert_array_equal(parameter.asnumpy(), before[parameter.name], parameter.name)
    optimiser.good_steps.set_data(optimiser.good_steps * 0 + 1999)
    assert step([(images, text)], 1e-3)["updated"] == 1
    assert optimiser.loss_scale.asnumpy() == before["optimiser.loss_scale"]


@pytest.mark.graphs
def test_frozen_parameters_stay():
    model = from_reference(random_reference(SMALL), SMALL)
    freeze(model, ["visual.transformer.*", "text.*"])
    before = {p.name: p.asnumpy().copy() for p in model.get_parameters()}
    step = TrainStep(model, LossConfig(), AdamW(model, OptimConfig(), Ranks()), Ranks())
    step([make_batch(SMALL, 2)], 1e-2)
    for parameter in model.get_parameters():
        same = np.array_equal(parameter.asnumpy(), before[parameter.name])
        assert same == parameter.name.startswith(("visual.transformer.", "text.")), parameter.name
    with pytest.raises(InputError, match="matches no parameter"):
        freeze(model, ["vision.*"])


def test_layer_multipliers():
    model = CoCa(**make_config(vision={"layers": 3}))
    expected = {
        "visual.transformer.resblocks.2.ln_1.gamma": 1,
        "visual.transformer.resblocks.0.mlp.c_fc.weight": 0.25,
        "visual.conv1.weight": 0.125,
        "visual.proj": 1,
        "logit_scale": 1,
        "text.cls_emb": 0.25,
        "text_decoder.cross_attn.0.attn.in_proj_weight": 0.5,
        "text_decoder.text_projection": 1,
    }
    assert {name: 0.5 ** model.blocks_after(name) for name in expected} == expected
