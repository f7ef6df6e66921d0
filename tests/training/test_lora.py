"""Adapters in a run: which layers get one, what is trained beside them, what dropout draws, and a run that goes on."""

import re
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from mindone_coca.errors import InputError
from mindone_coca.factory import create_model
from mindone_coca.model.open_clip.model import CoCa
from mindone_coca.tasks.settings import load_train_config
from mindone_coca.training.lora import Draws, Lora, linear_layers
from mindone_coca.training.settings import LoraConfig
from mindone_coca.weights.load import parameter_entries
from mindone_coca.weights.save import save_weights
from tests.models import CONFIGS, one_layer
from tests.training.runs import TINY, read_weights, train_here, write_config

SMALL = one_layer(CONFIGS["base"])


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
