"""Adapters against peft on open_clip's model, side by side for 50 updates, and against plain torch, live; the merged
weights are the same model; the base stays as it was."""

from dataclasses import dataclass, field
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from mindone_coca.factory import create_model
from mindone_coca.model.adapters import Adapter, SeededDropout, insert
from mindone_coca.model.attention import AttentionalPooler
from mindone_coca.model.base import ImageTextModel
from mindone_coca.model.coca_pytorch.family import COCA_PYTORCH
from mindone_coca.model.open_clip.family import OPEN_CLIP
from mindone_coca.tasks.heads import Classifier
from mindone_coca.tasks.settings import TaskCfg, load_train_config
from mindone_coca.training.checkpoints import entries_of
from mindone_coca.training.job import CocaJob
from mindone_coca.training.lora import Lora, is_adapter, weights_of
from mindone_coca.training.settings import LoraConfig, LossConfig
from mindone_coca.training.trainer import Trainer
from mindone_coca.weights.load import parameter_entries
from mindone_coca.weights.save import save_weights
from tests import parallel_models
from tests.models import eager, from_reference, relative_difference
from tests.reference import random_reference, torch
from tests.training.reference_training import make_batch, reference_losses, reference_optimiser
from tests.training.runs import TINY, write_config
from tests.training.test_step import Gradients, assert_gradients_match

PEFT_TARGETS = r".*(resblocks|cross_attn)\.\d+\.(attn|mlp\.c_fc|mlp\.c_proj)"
UPDATES, RATE, SETTINGS = 50, 1e-3, {"rank": 3, "alpha": 5.0, "use_rslora": True}


def keep_mask(shape: tuple[int, ...], rate: float, draw: int, layer: int) -> np.ndarray:
    """The factors of `SeededDropout`, by NumPy's unsigned numbers."""
    place, own = np.arange(np.prod(shape), dtype=np.uint32), np.uint32(layer * 668265263 & 0x7FFFFFFF)
    h = place * np.uint32(2654435761) + (np.uint32(draw * 2246822507 % 2**32) + own)
    for shift in (16, 13):
        h = (h ^ (h >> np.uint32(shift))) * np.uint32(3266489909)
    h ^= h >> np.uint32(16)
    kept = (h >> np.uint32(9)).astype(np.float32) * np.float32(2.0**-23) >= rate
    return (kept / np.float32(1 - rate)).astype(np.float32).reshape(shape)


class SharedMask(torch.nn.Module):
    """Dropout that drops what ours does in the pass that was drawn `number` for."""

    number = 0

    def __init__(self, rate: float, layer: int) -> None:
        super().__init__()
        self.rate, self.layer = rate, layer

    def forward(self, x):
        mask = keep_mask(tuple(x.shape), self.rate, SharedMask.number, self.layer)
        return x * torch.from_numpy(mask).to(x.dtype)


def peft_name(parameter: str) -> str:
    """The name in peft's model of an adapter's parameter of ours."""
    weight, _, side = parameter.rpartition(".lora_")
    module = (OPEN_CLIP.to_original(weight) or weight).removesuffix(".weight").removesuffix(".in_proj_weight")
    module = module.replace(".out_proj", ".base_layer.out_proj")
    return f"base_model.model.{module}.lora_{side.upper()}.default.weight"


def draw_adapters(model: nn.Cell, theirs: torch.nn.Module | None = None, seed: int = 5) -> None:
    """Give all matrices of our adapters values, and peft's the same."""
    rng = np.random.default_rng(seed)
    others = dict(theirs.named_parameters()) if theirs is not None else {}
    for parameter in model.get_parameters():
        if is_adapter(parameter.name):
            value = (rng.standard_normal(parameter.shape) * 0.1).astype(np.float32)
            parameter.set_data(ms.Tensor(value))
            if others:
                with torch.no_grad():
                    others[peft_name(parameter.name)].copy_(torch.from_numpy(value))


@dataclass
class Beside:
    """A training with adapters beside peft's of open_clip's model, on the same batches with the same masks."""

    job: CocaJob
    folder: Path
    base: dict[str, np.ndarray]
    base_file: bytes
    gradients: tuple[dict[str, np.ndarray], dict[str, torch.Tensor]] = ({}, {})
    losses: list[tuple[float, float]] = field(default_factory=list)


@pytest.fixture(scope="module")
def beside(tmp_path_factory) -> Beside:
    peft = pytest.importorskip("peft")
    folder = tmp_path_factory.mktemp("beside")
    reference = random_reference(TINY, seed=1)
    save_weights(folder / "base.safetensors", parameter_entries(from_reference(reference, TINY)))
    config = write_config(
        folder,
        model={"checkpoint": str(folder / "base.safetensors")},
        # next to no eps: Adam's updates then do not change with a factor of a gradient, of which there is one below
        optim={"lr": RATE, "eps": 1e-12, "weight_decay": 0.1},
        train={"lora": {**SETTINGS, "dropout": 0.25}, "batch_size": 4},
        loss={"contrastive_weight": 0.0},  # the caption's reaches all adapters, and compiles sooner
    )
    # so long that all passes are as wide as peft's, for places are what masks follow
    rows = [f'images/{i:04d}.png,"a scan of a handwritten number, {i} of them"' for i in range(96)]
    (folder / "digits" / "train.csv").write_text("\n".join(["filepath,title", *rows]) + "\n")
    trainer = Trainer(load_train_config(config))
    job = trainer.job
    assert isinstance(job, CocaJob) and job.lora is not None
    target = peft.LoraConfig(r=3, lora_alpha=5, lora_dropout=0.25, use_rslora=True, target_modules=PEFT_TARGETS)
    theirs = peft.get_peft_model(reference, target)
    draw_adapters(job.model, theirs)
    trained = {name: p for name, p in theirs.named_parameters() if p.requires_grad}
    assert {peft_name(p.name) for p in job.optimiser.parameters} == trained.keys()
    modules = dict(theirs.named_modules())
    for number, adapter in enumerate(job.lora.adapters):
        if ".mlp." in adapter.weight_name:
            module = modules[peft_name(adapter.weight_name + ".lora_a").removesuffix(".lora_A.default.weight")]
            module.lora_dropout["default"] = SharedMask(0.25, number)
    theirs.double().train()
    optimiser = reference_optimiser(theirs, trainer.config.optim)
    own = {p.name: p.asnumpy().copy() for p in job.weights if not is_adapter(p.name)}
    result = Beside(job, folder, own, (folder / "base.safetensors").read_bytes())
    epochs = (batch for epoch in range(UPDATES) for batch in job.data.epoch(epoch))
    for update, batch in zip(range(UPDATES), epochs):
        job.lora.draws.take(0)
        SharedMask.number = int(job.lora.draws.number.asnumpy())
        terms = reference_losses(theirs, batch.images.astype(np.float64), batch.text, trainer.config.loss)
        wanted = torch.stack(list(terms.values())).sum()
        optimiser.zero_grad()
        wanted.backward()
        result.losses.append((job.report(job.run([batch], RATE))["loss"], wanted.item()))
        if not update:  # Adam's first moment is a share of the first gradient
            share = 1 - trainer.config.optim.betas[0]
            moments = zip(job.optimiser.parameters, job.optimiser.first)
            ours = {peft_name(p.name): m.asnumpy().astype(np.float64) / share for p, m in moments}
            result.gradients = ours, {name: p.grad.clone() for name, p in trained.items()}
        optimiser.step()
    trainer._release()
    return result


@pytest.mark.graphs
def test_gradients_are_peft_s(beside):
    """Packed attention, c_fc and c_proj, these with dropout by the same masks."""
    ours, theirs = beside.gradients
    # the change of an output projection counts twice in peft's forward pass and once in its backward pass
    halved = {name: grad / (2 if ".out_proj." in name else 1) for name, grad in ours.items()}
    assert len(halved) == 32
    assert_gradients_match(halved, theirs)


@pytest.mark.graphs
def test_losses_of_50_updates_are_peft_s(beside):
    ours, theirs = np.array(beside.losses).T
    assert len(ours) == UPDATES and theirs[-5:].mean() < 0.95 * theirs[:5].mean()
    assert abs(ours[0] / theirs[0] - 1) < 1e-6
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


@pytest.mark.graphs
def test_the_base_stays_to_the_bit(beside):
    for parameter in beside.job.weights:
        if not is_adapter(parameter.name):
            np.testing.assert_array_equal(parameter.asnumpy(), beside.base[parameter.name], parameter.name)
    assert (beside.folder / "base.safetensors").read_bytes() == beside.base_file
    assert not beside.base.keys() & {p.name for p in beside.job.state}  # nor does a checkpoint hold it


@pytest.mark.graphs
def test_merged_weights_and_the_folder_of_adapters_are_the_same_model(beside):
    job, run = beside.job, beside.folder / "exported"
    run.mkdir()
    final = job.export(run, "final", entries_of(job.weights))
    images, text = make_batch(TINY, 2)
    base = beside.folder / "base.safetensors"
    with eager():
        adapted = job.model.outputs(images, text)
        merged = create_model(str(final)).outputs(images, text)
        loaded = create_model({**TINY, "lora": [str(run / "final_lora")]}, base).outputs(images, text)
        plain = create_model(TINY, base).outputs(images, text)
    for name, wanted in adapted.items():
        assert relative_difference(merged[name], wanted.asnumpy()) < 1e-6, name
        assert relative_difference(loaded[name], wanted.asnumpy()) < 1e-6, name
        moved = relative_difference(plain[name], wanted.asnumpy()) > 1e-2
        assert moved or name in ("logit_scale", "labels"), name


@pytest.mark.graphs
@pytest.mark.parametrize("family", ["open_clip", "coca_pytorch"])
def test_merging_changes_no_output(family, tmp_path):
    """Of every linear layer that there is, a task's head among them."""
    model, images, text = FAMILIES[family]()
    classifier = Classifier(model, TaskCfg("vqa", list("abc"), heads=model.pooler_heads))
    lora = Lora(classifier, model, LoraConfig(**SETTINGS, targets=["*"]), keep_open=False)
    assert any(adapter.weight_name.startswith("head.") for adapter in lora.adapters)
    kinds = {adapter.weight_name.rpartition(".")[2] for adapter in lora.adapters}
    assert kinds >= ({"weight", "q_proj_weight", "in_proj_weight"} if family == "open_clip" else {"weight"})
    draw_adapters(classifier)
    own = {p.name: p for p in weights_of(classifier)}
    arrays = ms.Tensor(images[:, None]), ms.Tensor(text.astype(np.int32))
    with eager():
        adapted = classifier(*arrays)
        merged = lora.export(tmp_path / "lora", model.config, entries_of(own.values()))
        for adapter in lora.adapters:  # in the same model, whose adapters then add 0
            weight = own[adapter.weight_name]
            assert relative_difference(weight, merged[weight.name].read()) > 1e-2, weight.name
            weight.set_data(ms.Tensor(merged[weight.name].read()))
            adapter.b.set_data(ms.Tensor(np.zeros(adapter.b.shape, np.float32)))
        again = classifier(*arrays)
    assert relative_difference(again, adapted.asnumpy()) < 1e-6


def open_clip_example() -> tuple[ImageTextModel, np.ndarray, np.ndarray]:
    return from_reference(random_reference(TINY, seed=2), TINY), *make_batch(TINY, 3)


def coca_pytorch_example() -> tuple[ImageTextModel, np.ndarray, np.ndarray]:
    small = parallel_models.SMALL
    inputs = parallel_models.make_inputs(small)
    return parallel_models.from_reference(parallel_models.random_reference(small), small), inputs.images, inputs.text


FAMILIES = {"open_clip": open_clip_example, "coca_pytorch": coca_pytorch_example}


class Weighted(nn.Cell):
    """The sum of a cell's outputs, each with a weight."""

    def __init__(self, cell: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.cell = cell

    def construct(self, x, weights):
        return (self.cell(x) * weights).sum()


def torch_linear(x, weight, bias, a, b, scale):
    return torch.nn.functional.linear(x, weight + scale * b @ a, bias)


def test_gradients_of_a_pooler_with_separate_matrices():
    """Against ten lines of torch: peft refuses such poolers."""
    rng = np.random.default_rng(0)
    width, context, heads = 8, 12, 2
    pooler = AttentionalPooler(width, context, heads, 3, ms.float32)
    attn = pooler.attn
    for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight"):
        insert(attn, name, Adapter(getattr(attn, name), 2, 1.5))
    insert(attn.out_proj, "weight", Adapter(attn.out_proj.weight, 2, 1.5))
    for p in pooler.get_parameters():
        p.set_data(ms.Tensor(rng.standard_normal(p.shape).astype(np.float32) * 0.5))
        p.requires_grad = is_adapter(p.name)
    x, up = rng.standard_normal((2, 5, context)), rng.standard_normal((2, 3, width))
    t = {p.name: torch.tensor(p.asnumpy(), dtype=torch.float64, requires_grad=True) for p in pooler.get_parameters()}

    def adapted(y, name, part=None):
        weight = t[f"attn.{name}"]
        bias = t["attn.out_proj.bias"] if part is None else t["attn.in_proj_bias"][part * width : (part + 1) * width]
        return torch_linear(y, weight, bias, t[f"attn.{name}.lora_a"], t[f"attn.{name}.lora_b"], 1.5)

    def norm(y, name):
        return torch.nn.functional.layer_norm(y, y.shape[-1:], t[f"{name}.gamma"], t[f"{name}.beta"])

    tokens = norm(torch.from_numpy(x), "ln_k")
    query = adapted(norm(t["query"], "ln_q").expand(2, -1, -1), "q_proj_weight", 0)
    parts = (query, adapted(tokens, "k_proj_weight", 1), adapted(tokens, "v_proj_weight", 2))
    q, k, v = (y.unflatten(2, (heads, -1)).transpose(1, 2) for y in parts)
    pooled = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    out = adapted(pooled, "out_proj.weight")
    (out * torch.from_numpy(up)).sum().backward()
    parameters = ms.ParameterTuple(pooler.trainable_params())
    x32, up32 = (ms.Tensor(y.astype(np.float32)) for y in (x, up))
    with eager():
        ours, grads = ms.value_and_grad(Weighted(pooler), None, parameters)(x32, up32)
    assert len(parameters) == 8 and abs(float(ours.asnumpy()) / (out * torch.from_numpy(up)).sum().item() - 1) < 1e-5
    assert_gradients_match(
        {p.name: g.asnumpy().astype(np.float64) for p, g in zip(parameters, grads)},
        {p.name: t[p.name].grad for p in parameters},
    )


@pytest.mark.graphs
def test_gradients_of_the_other_family_s_matrices():
    """From the gradients G of coca-pytorch's weights W + s B A: those of A and B are s B^T G and s G A^T."""
    small = parallel_models.SMALL
    inputs = parallel_models.make_inputs(small, batch=4)
    reference = parallel_models.random_reference(small)
    model = parallel_models.from_reference(reference, small)
    lora = Lora(model, model, LoraConfig(rank=3, alpha=1.5), keep_open=False)
    draw_adapters(model)
    weights = {COCA_PYTORCH.to_mindspore(name): p for name, p in reference.named_parameters()}
    for adapter in lora.adapters:
        with torch.no_grad():
            weights[adapter.weight_name] += torch.from_numpy(adapter.scale * adapter.b.asnumpy() @ adapter.a.asnumpy())
    arrays = torch.from_numpy(inputs.text), torch.from_numpy(inputs.images)
    loss = reference.double()(arrays[0], arrays[1].double(), return_loss=True)
    loss.backward()
    wanted = {}
    for adapter in lora.adapters:
        a, b = (torch.from_numpy(side.asnumpy()).double() for side in (adapter.a, adapter.b))
        gradient = adapter.scale * weights[adapter.weight_name].grad
        wanted[adapter.a.name], wanted[adapter.b.name] = b.T @ gradient, gradient @ a.T
    with eager():
        values, ours = Gradients(model, LossConfig(1.0, 1.0))(inputs.images, inputs.text.astype(np.int32))
    assert abs(float((values[1] + values[2]).asnumpy()) / loss.item() - 1) < 1e-6
    assert ours.keys() == wanted.keys() and len(ours) >= 16
    assert_gradients_match(ours, wanted)


def test_dropout_keeps_its_share_and_follows_the_draw():
    first, again, other = (keep_mask((50, 40), 0.25, *draw) for draw in ((7, 1), (7, 1), (8, 1)))
    np.testing.assert_array_equal(first, again)
    assert set(np.unique(first)) == {0.0, np.float32(1 / 0.75)}
    assert 0.2 < (first == 0).mean() < 0.3 and 0.2 < (other == 0).mean() < 0.3
    agree = (first == other).mean()  # by chance 0.75^2 + 0.25^2
    assert 0.57 < agree < 0.68 and not (keep_mask((50, 40), 0.25, 7, 2) == first).all()
    number = ms.Parameter(ms.Tensor(7, ms.int32), name="draw")
    cell, ones = SeededDropout(0.25, number, 1), ms.Tensor(np.ones((50, 40), np.float32))
    np.testing.assert_array_equal(cell(ones).asnumpy(), first)
    number.set_data(ms.Tensor(0, ms.int32))
    np.testing.assert_array_equal(cell(ones).asnumpy(), 1)
