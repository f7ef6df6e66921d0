"""Adafactor against transformers' and torch's, live; what it keeps; how it goes on."""

import numpy as np
import pytest
from mindspore import Parameter, Tensor, mutable, nn

from mindone_coca import device
from mindone_coca.distributed import Ranks
from mindone_coca.errors import InputError
from mindone_coca.tasks.settings import load_train_config
from mindone_coca.training.adafactor import Adafactor, open_optimizer
from mindone_coca.training.checkpoints import Checkpoints, Position
from mindone_coca.training.optim import AdamW
from mindone_coca.training.settings import OptimConfig
from tests.models import relative_difference
from tests.reference import torch
from tests.training.runs import write_config

SHAPES = {
    "matrix": (5, 7),
    "table": (9, 4),  # some rows have no gradient, as tokens have that do not occur
    "fresh": (6, 2),  # 0 at first, as an adapter's second matrix
    "patches": (2, 3, 4, 5),
    "bias": (6,),
    "logit_scale": (),
}
RATES = (1e-2, 3e-2, 1e-3, 2e-2, 5e-3, 1e-2)


class Several(nn.Cell):
    """What an optimizer asks of a model."""

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        device.ensure_configured()
        rng = np.random.default_rng(0)
        for name, shape in SHAPES.items():
            value = np.float32(2.0) if not shape else rng.standard_normal(shape).astype(np.float32)
            setattr(self, name, Parameter(Tensor(value * (name != "fresh")), name=name))

    def blocks_after(self, name: str) -> int:
        return 0


def gradients(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(step + 1)
    grads = {name: np.asarray(rng.standard_normal(shape), np.float32) for name, shape in SHAPES.items()}
    grads["table"][[1, 4]] = 0
    grads["bias"] *= 0.03 if step % 2 else 30  # updates that are clipped, and others
    return grads


def inputs_of(optimiser: Adafactor, grads: dict[str, np.ndarray], scale: float = 1.0) -> tuple[Tensor, ...]:
    """Mutable, because another tuple of tensors is another constant, whose graph is compiled anew."""
    return mutable(tuple(Tensor(grads[p.name] * np.float32(scale)) for p in optimiser.parameters))


def compare(optimiser: Adafactor, model: Several, theirs: torch.optim.Optimizer, tensors: dict, scale: float) -> None:
    """Six updates by both, after each of which parameters are compared."""
    for step, rate in enumerate(RATES):
        grads = gradients(step)
        optimiser(inputs_of(optimiser, grads, scale), Tensor(np.float32(rate)))
        for group in theirs.param_groups:
            group["lr"] = rate
        for name, tensor in tensors.items():
            tensor.grad = torch.from_numpy(grads[name])
        theirs.step()
        for name, tensor in tensors.items():
            assert relative_difference(getattr(model, name), tensor.detach().numpy()) < 2e-6, (step, name)


def copies(model: Several) -> dict[str, torch.nn.Parameter]:
    return {p.name: torch.nn.Parameter(torch.from_numpy(p.asnumpy().copy())) for p in model.get_parameters()}


@pytest.mark.graphs
def test_updates_are_those_of_transformers():
    transformers = pytest.importorskip("transformers")
    model = Several()
    tensors = copies(model)
    theirs = transformers.Adafactor(tensors.values(), lr=1.0, scale_parameter=True, relative_step=False)
    ours = Adafactor(model, OptimConfig(name="adafactor", weight_decay=0.0), Ranks())
    compare(ours, model, theirs, tensors, 1.0)
    held = sum(p.size for p in ours.state()) - 3  # without the number of updates, the scale and the good steps
    assert held == (5 + 7) + (9 + 4) + (6 + 2) + 2 * 3 * (4 + 5) + 6 + 1
    assert sum(p.size for p in AdamW(model, OptimConfig(), Ranks()).state()) - 4 == 2 * sum(
        int(np.prod(shape)) for shape in SHAPES.values()
    )


@pytest.mark.graphs
def test_updates_with_weight_decay_are_those_of_torch(tmp_path):
    """With a scaled loss: the very first update overflows. And a run that goes on from a checkpoint goes on bitwise."""
    model = Several()
    tensors = copies(model)
    config = OptimConfig(name="adafactor", weight_decay=0.3)
    ours = Adafactor(model, config, Ranks(), loss_scaling=True)
    parameters = [*model.get_parameters(), *ours.state()]
    before = {p.name: p.asnumpy().copy() for p in parameters}
    bad = {p.name: np.full(p.shape, np.inf, np.float32) for p in ours.parameters}
    assert float(ours(inputs_of(ours, bad), Tensor(np.float32(0.1)))[1].asnumpy()) == 0
    for p in parameters:
        assert p.name == "optimiser.loss_scale" or np.array_equal(p.asnumpy(), before[p.name]), p.name
    groups = [
        {"params": [t for t in tensors.values() if t.ndim > 1], "weight_decay": 0.3},
        {"params": [t for t in tensors.values() if t.ndim < 2], "weight_decay": 0.0},
    ]
    theirs = torch.optim.Adafactor(groups, lr=1.0)  # with its epsilon 1, for the paper's gives NaN in rows of 0
    compare(ours, model, theirs, tensors, float(ours.loss_scale.asnumpy()))

    checkpoints = Checkpoints(tmp_path, parameters, 1)
    path = checkpoints.save(Position(step=6))

    def go_on() -> dict[str, np.ndarray]:
        for step in (6, 7):
            ours(inputs_of(ours, gradients(step)), Tensor(np.float32(1e-2)))
        return {p.name: p.asnumpy().copy() for p in (*parameters, *ours.columns)}

    first = go_on()
    for p in parameters:
        p.set_data(p * 0 + 1)
    checkpoints.load(path)
    again = go_on()
    assert any(not np.array_equal(first[name], value) for name, value in before.items())
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name], name)


def test_the_setting_chooses_and_refuses(tmp_path):
    config = load_train_config(write_config(tmp_path, optim={"name": "adafactor"}))
    assert isinstance(open_optimizer(Several(), config, Ranks()), Adafactor)
    assert type(open_optimizer(Several(), load_train_config(write_config(tmp_path)), Ranks())) is AdamW
    for key, value in {"betas": [0.9, 0.9], "eps": 1e-8}.items():
        with pytest.raises(InputError, match=rf"optim\.{key}: is adamw's, adafactor has none; remove it"):
            load_train_config(write_config(tmp_path, optim={"name": "adafactor", key: value}))
    with pytest.raises(InputError, match="must be one of adamw, adafactor"):
        load_train_config(write_config(tmp_path, optim={"name": "adafactory"}))
