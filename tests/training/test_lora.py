"""Adapters: gradients against peft on open_clip's model and against plain torch, live; which layers get one;
runs with them."""

import re
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from mindone_coca.errors import InputError
from mindone_coca.factory import create_model
from mindone_coca.model.adapters import Adapter, SeededDropout, insert
from mindone_coca.model.layers import AttentionalPooler
from mindone_coca.model.open_clip.family import OPEN_CLIP
from mindone_coca.model.open_clip.model import CoCa
from mindone_coca.tasks.settings import load_train_config
from mindone_coca.training.lora import Draws, Lora, is_adapter, linear_layers
from mindone_coca.training.settings import LoraConfig, LossConfig
from mindone_coca.training.trainer import Trainer
from mindone_coca.weights.load import parameter_entries
from mindone_coca.weights.save import save_weights
from tests.models import CONFIGS, from_reference, one_layer, relative_difference
from tests.reference import random_reference, torch
from tests.training.reference_training import make_batch, reference_losses
from tests.training.runs import TINY, read_weights, train_here, write_config
from tests.training.test_step import Gradients, assert_gradients_match

SMALL = one_layer(CONFIGS["base"])
PEFT_TARGETS = r".*(resblocks|cross_attn)\.\d+\.(attn|mlp\.c_fc|mlp\.c_proj)"


@pytest.fixture(scope="module")
def peft():
    return pytest.importorskip("peft")


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
    """Dropout that drops what ours does."""

    def __init__(self, rate: float, draw: int, layer: int) -> None:
        super().__init__()
        self.settings = rate, draw, layer

    def forward(self, x):
        shape = tuple(x.shape)
        return x * torch.from_numpy(keep_mask(shape, *self.settings)).to(x.dtype)


def peft_name(parameter: str) -> str:
    """The name in peft's model of an adapter's parameter of ours."""
    weight, _, side = parameter.rpartition(".lora_")
    module = (OPEN_CLIP.to_original(weight) or weight).removesuffix(".weight").removesuffix(".in_proj_weight")
    module = module.replace(".out_proj", ".base_layer.out_proj")
    return f"base_model.model.{module}.lora_{side.upper()}.default.weight"


def draw_adapters(model: CoCa, theirs: torch.nn.Module | None = None, seed: int = 5) -> None:
    """Give all matrices of our adapters values, and peft's the same."""
    rng = np.random.default_rng(seed)
    others = dict(theirs.named_parameters()) if theirs is not None else {}
    for parameter in model.get_parameters():
        if is_adapter(parameter.name):
            value = (rng.standard_normal(parameter.shape) * 0.3).astype(np.float32)
            parameter.set_data(ms.Tensor(value))
            if others:
                with torch.no_grad():
                    others[peft_name(parameter.name)].copy_(torch.from_numpy(value))


@pytest.mark.graphs
def test_gradients_are_peft_s(peft):
    """Packed attention, c_fc and c_proj, these with dropout by the same masks; and 50 steps beside each other."""
    reference = random_reference(SMALL, seed=1)
    model = from_reference(reference, SMALL)
    settings = LoraConfig(rank=3, alpha=5.0, dropout=0.25, use_rslora=True)
    lora = Lora(model, model, settings, keep_open=False)
    config = peft.LoraConfig(r=3, lora_alpha=5, lora_dropout=0.25, use_rslora=True, target_modules=PEFT_TARGETS)
    theirs = peft.get_peft_model(reference, config)
    draw_adapters(model, theirs)
    trained = {peft_name(p.name) for p in model.trainable_params()}
    assert trained == {name for name, p in theirs.named_parameters() if p.requires_grad}
    lora.draws.number.set_data(ms.Tensor(77, ms.int32))
    modules = dict(theirs.named_modules())
    dropped = 0
    for number, adapter in enumerate(lora.adapters):
        if ".mlp." in adapter.weight_name:
            module = modules[peft_name(adapter.weight_name + ".lora_a").removesuffix(".lora_A.default.weight")]
            module.lora_dropout["default"] = SharedMask(0.25, 77, number)
            dropped += 1
    assert dropped == 8
    theirs.double().train()
    images, text = make_batch(SMALL, 4)
    losses = reference_losses(theirs, images.astype(np.float64), text, LossConfig())
    torch.stack(list(losses.values())).sum().backward()
    wanted = {name: p.grad for name, p in theirs.named_parameters() if p.requires_grad}
    values, grads = Gradients(model, LossConfig())(images, text)
    assert abs(float(values[2].asnumpy()) * 2 / losses["caption_loss"].item() - 1) < 1e-6
    # the change of an output projection counts twice in peft's forward pass and once in its backward pass
    halved = {peft_name(name): grad / (2 if ".out_proj." in name else 1) for name, grad in grads.items()}
    assert_gradients_match(halved, wanted)


class Weighted(ms.nn.Cell):
    """The sum of a cell's outputs, each with a weight."""

    def __init__(self, cell: ms.nn.Cell) -> None:
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
    ours, grads = ms.value_and_grad(Weighted(pooler), None, parameters)(x32, up32)
    assert len(parameters) == 8 and abs(float(ours.asnumpy()) / (out * torch.from_numpy(up)).sum().item() - 1) < 1e-5
    assert_gradients_match(
        {p.name: g.asnumpy().astype(np.float64) for p, g in zip(parameters, grads)},
        {p.name: t[p.name].grad for p in parameters},
    )


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


def test_draws_are_told_by_update_part_and_device():
    def take(part: int, updates: int = 0, **place: int) -> int:
        draws = Draws(**{"seed": 0, "rank": 0, **place})
        for _ in range(updates):
            draws.end()
        draws.take(part)
        return int(draws.number.asnumpy())

    numbers = [take(0), take(1), take(0, updates=1), take(0, seed=1), take(0, rank=1)]
    assert len({*numbers}) == 5 and take(1) == numbers[1] and min(numbers) > 0


@pytest.fixture(scope="module")
def plain() -> CoCa:
    return CoCa(**SMALL)


def test_targets(plain):
    layers = linear_layers(plain)
    assert len(layers["visual.attn_pool.attn"]) == 4  # three separate ones, and that of the output
    assert len(layers["text.transformer.resblocks.0.attn"]) == 2
    model = CoCa(**SMALL)
    lora = Lora(model, model, LoraConfig(targets=["text_decoder.*.attn", "*.attn_pool.attn"]), keep_open=True)
    adapted = {adapter.weight_name for adapter in lora.adapters}
    assert adapted == {
        f"text_decoder.{blocks}.0.attn.{weight}"
        for blocks in ("resblocks", "cross_attn")
        for weight in ("in_proj_weight", "out_proj.weight")
    } | {
        f"visual.attn_pool.attn.{weight}"
        for weight in ("q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight")
    }
    assert not any(p.requires_grad for p in model.get_parameters() if p.name in adapted)
    assert model.logit_scale.requires_grad and model.visual.proj.requires_grad  # left open


@pytest.mark.parametrize(
    "pattern, hint", [("*.c_fv", "'*.c_fc'"), ("text_decoder.resblock.*.attn", "text_decoder.resblocks.*.attn")]
)
def test_an_unknown_target_names_the_nearest(plain, pattern, hint):
    with pytest.raises(InputError, match=re.escape(hint)) as caught:
        Lora(plain, plain, LoraConfig(targets=[pattern]), keep_open=False)
    assert f"train.lora.targets: {pattern!r} matches no layer; did you mean" in str(caught.value)


def make_run(folder: Path, **train) -> Path:
    """A config of a run with adapters on tiny weights, which are made if they are not there."""
    if not (folder / "base.safetensors").exists():
        ms.set_seed(3)
        save_weights(folder / "base.safetensors", parameter_entries(create_model(TINY)))
    settings = {"lora": {"rank": 2, "alpha": 4}, **train}
    return write_config(folder, model={"checkpoint": str(folder / "base.safetensors")}, train=settings)


@pytest.mark.graphs
def test_a_run_trains_the_adapters_and_nothing_else(tmp_path):
    config = make_run(tmp_path, max_steps=3)
    before = (tmp_path / "base.safetensors").read_bytes()
    trainer = Trainer(load_train_config(config))
    own = {p.name: p.asnumpy().copy() for p in trainer.job.weights if not is_adapter(p.name)}
    trainer.run()
    for parameter in trainer.job.weights:  # bitwise, in memory and on disk
        if parameter.name in own:
            np.testing.assert_array_equal(parameter.asnumpy(), own[parameter.name], parameter.name)
    assert (tmp_path / "base.safetensors").read_bytes() == before
    run = tmp_path / "run"
    held = read_weights(run / "checkpoints" / "step_00000003.safetensors")
    assert not own.keys() & held.keys()  # a checkpoint holds what is trained
    moved = [name for name, value in held.items() if name.endswith(".lora_b") and value.any()]
    assert len([name for name in moved if not name.startswith("optimiser.")]) == 16
    # the merged weights and the folder of adapters are the same model
    images, text = make_batch(TINY, 2)
    adapted = trainer.job.model.outputs(images, text)
    merged = create_model(str(run / "final.yaml")).outputs(images, text)
    loaded = create_model({**TINY, "lora": [str(run / "final_lora")]}, tmp_path / "base.safetensors")
    plain = create_model(TINY, tmp_path / "base.safetensors").outputs(images, text)
    for name, wanted in adapted.items():
        assert relative_difference(merged[name], wanted.asnumpy()) < 1e-6, name
        assert relative_difference(loaded.outputs(images, text)[name], wanted.asnumpy()) < 1e-6, name
        moved = relative_difference(plain[name], wanted.asnumpy()) > 1e-4
        assert moved or name in ("logit_scale", "labels"), name


@pytest.mark.slow
@pytest.mark.graphs
def test_a_run_with_dropout_ema_and_accumulation_goes_on_bitwise(tmp_path):
    """Parts of the base are trained beside the adapters."""
    train = {
        "lora": {"rank": 2, "dropout": 0.3, "targets": ["*.mlp.*"]},
        "freeze": ["visual.[!p]*", "text*"],
        "ema_decay": 0.9,
        "accumulate_steps": 2,
        "batch_size": 4,
    }
    constant = "optim.schedule=constant"
    train_here(make_run(tmp_path, **train, max_steps=4), constant)
    whole = read_weights(tmp_path / "run" / "final.safetensors")
    config = make_run(tmp_path, **train, max_steps=2)
    train_here(config, constant, f"output.dir={tmp_path / 'parts'}")
    train_here(config, constant, f"output.dir={tmp_path / 'parts'}", "train.max_steps=4")
    resumed = read_weights(tmp_path / "parts" / "final.safetensors")
    base = read_weights(tmp_path / "base.safetensors")
    changed = {name for name in whole if not np.array_equal(whole[name], base[name])}
    beside = {"visual.proj", "visual.positional_embedding", "logit_scale"}
    assert beside == {name for name in changed if ".mlp." not in name}
    assert len(changed) == 3 + 8
    for name in whole:
        np.testing.assert_array_equal(whole[name], resumed[name], name)
    assert read_weights(tmp_path / "run" / "final_lora" / "mindone_coca.safetensors").keys() == beside


def test_adapters_need_trained_weights(tmp_path):
    with pytest.raises(InputError, match=r"train\.lora: adapts trained weights; name them with model\.checkpoint"):
        load_train_config(write_config(tmp_path, train={"lora": {}}))
    for key, value in {"rank": 0, "alpha": -1, "dropout": 1.0, "targets": []}.items():
        with pytest.raises(InputError, match=rf"train\.lora\.{key}: "):
            load_train_config(make_run(tmp_path, lora={key: value}))
