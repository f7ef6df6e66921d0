"""Frozen weights in half precision, and outputs of a frozen image tower on disk."""

from collections import Counter
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest

from mindone_coca import graph_cache
from mindone_coca.errors import InputError
from mindone_coca.factory import create_model
from mindone_coca.model.base import ImageTextModel
from mindone_coca.tasks.settings import load_train_config
from mindone_coca.training.frozen import keep_frozen
from mindone_coca.training.job import CocaJob
from mindone_coca.training.optim import freeze
from mindone_coca.training.record import may_change
from mindone_coca.training.trainer import Trainer
from mindone_coca.weights.formats.dtypes import cast
from mindone_coca.weights.load import parameter_entries
from mindone_coca.weights.save import save_weights
from tests.models import eager, make_config, one_layer, relative_difference
from tests.parallel_models import SMALL as PARALLEL
from tests.parallel_models import make_inputs
from tests.tasks.runs import write_config as write_task
from tests.tasks.runs import write_data
from tests.training.reference_training import make_batch
from tests.training.runs import TINY, read_weights, write_config

SMALL = one_layer(make_config())
HALVES = ("float16", "bfloat16")


def save_base(folder: Path, config: dict) -> Path:
    path = folder / "base.safetensors"
    if not path.exists():
        ms.set_seed(3)
        save_weights(path, parameter_entries(create_model(config)))
    return path


def make_run(folder: Path, **sections: dict) -> Path:
    """A config of a run that trains the decoder's last norm and its projection, on trained weights."""
    settings: dict[str, dict[str, Any]] = {
        "model": {"checkpoint": str(save_base(folder, TINY))},
        "data": {"random_crop": False},
        "optim": {"name": "adafactor", "lr": 1e-2, "schedule": "constant"},
        "loss": {"contrastive_weight": 0.0},
        "train": {"freeze": ["visual.*", "text.*", "text_decoder.resblocks.*", "text_decoder.cross_attn.*"]},
    }
    return write_config(folder, **{name: {**part, **sections.get(name, {})} for name, part in settings.items()})


def rounded(array: np.ndarray, dtype: str) -> np.ndarray:
    return cast(cast(np.ascontiguousarray(array), "float32", dtype), dtype, "float32")


def kept(folder: Path, config: dict, dtype: str) -> tuple[ImageTextModel, dict]:
    """A model of which all but the projection to logits is frozen and kept so, and what `keep_frozen` returned."""
    base = save_base(folder, config)
    model = create_model(config, base)
    for parameter in model.get_parameters():
        parameter.requires_grad = parameter.name.startswith(("visual.proj", "visual.img_to_latents"))
    settings = load_train_config(make_run(folder, model={"checkpoint": str(base)}, train={"frozen_dtype": dtype}))
    return model, keep_frozen(model, settings)


@pytest.mark.graphs
@pytest.mark.parametrize("dtype, config", [(HALVES[0], SMALL), (HALVES[1], SMALL), (HALVES[0], PARALLEL)])
def test_frozen_matrices_are_stored_so_and_cast_where_they_are_used(tmp_path, dtype, config):
    base = save_base(tmp_path, config)
    whole = read_weights(base)
    model, originals = kept(tmp_path, config, dtype)
    plain = create_model(config, base)
    for parameter, other in zip(model.get_parameters(), plain.get_parameters(), strict=True):
        value = whole[parameter.name]
        if parameter.name in originals:
            assert str(parameter.dtype).lower() == dtype and parameter.nbytes == value.nbytes / 2
            np.testing.assert_array_equal(parameter.astype(ms.float32).asnumpy(), rounded(value, dtype))
            np.testing.assert_array_equal(originals[parameter.name].read(), value)  # to the bit
            other.set_data(ms.Tensor(rounded(value, dtype)))
        else:
            assert parameter.dtype == ms.float32
    halved = sum(p.size for p in model.get_parameters() if p.name in originals)
    assert halved > 0.9 * sum(p.size for p in model.get_parameters())
    assert model.graph_tag != plain.graph_tag
    if config is PARALLEL:
        inputs = make_inputs(config)
        images, text = inputs.images, inputs.text
    else:
        images, text = make_batch(config, 2)
    with eager():  # the run below has graphs
        wanted, found = plain.outputs(images, text), model.outputs(images, text)
    for name, value in found.items():
        if name not in ("logit_scale", "labels"):
            assert relative_difference(value, wanted[name].asnumpy()) < 1e-6, name


def test_what_cannot_be_kept_so_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"train\.frozen_dtype: bfloat16 keeps trained weights so; name them with"):
        load_train_config(write_config(tmp_path, train={"frozen_dtype": "bfloat16"}))
    base = save_base(tmp_path, TINY)
    config = load_train_config(make_run(tmp_path, train={"frozen_dtype": "float16"}))
    model = create_model(TINY, base)
    with pytest.raises(InputError, match=r"train\.frozen_dtype: float16, but no matrix is frozen"):
        keep_frozen(model, config)
    freeze(model, ["visual.*"])
    model.visual.proj.set_data(model.visual.proj * 0 + 7e4)
    with pytest.raises(InputError, match=r"visual\.proj holds numbers above 65504, too large for train\.frozen_dtype"):
        keep_frozen(model, config)


def run_to(config: Path, step: int, folder: str) -> tuple[Trainer, Counter]:
    """Train to a step in a folder of its own; returns the run and how often each graph was called."""
    overrides = [f"train.max_steps={step}", f"output.dir={config.parent / folder}"]
    trainer = Trainer(load_train_config(config, overrides))
    called: Counter = Counter()
    original = graph_cache.call

    def call(cell: ms.nn.Cell, *inputs: object) -> object:
        called[type(cell).__name__] += 1
        return original(cell, *inputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph_cache, "call", call)
        trainer.run()
    return trainer, called


@pytest.mark.graphs
def test_a_run_on_halves_and_cached_outputs_goes_on_bitwise(tmp_path):
    """By adafactor. Each picture is encoded once, and what the run exports has the frozen weights bit for bit."""
    cache = tmp_path / "cache"
    config = make_run(tmp_path, train={"frozen_dtype": "float16", "batch_size": 8}, data={"cache": str(cache)})
    base = read_weights(tmp_path / "base.safetensors")
    before = (tmp_path / "base.safetensors").read_bytes()
    whole, called = run_to(config, 14, "whole")  # 12 steps are an epoch
    assert called == Counter(Encode=12, WholeStep=14)
    assert isinstance(whole.job, CocaJob) and whole.job.step.cache is not None
    assert len(whole.job.step.cache.rows) == 96 and len(list(cache.iterdir())) == 1
    frozen = {p.name: p.astype(ms.float32).asnumpy() for p in whole.job.weights if p.name in whole.job.originals}
    assert all(np.array_equal(value, rounded(base[name], "float16")) for name, value in frozen.items())  # in memory
    _, called = run_to(config, 5, "parts")
    assert called == Counter(WholeStep=5)
    _, called = run_to(config, 14, "parts")
    assert called == Counter(WholeStep=9)
    first, again = (read_weights(tmp_path / folder / "final.safetensors") for folder in ("whole", "parts"))
    changed = {name for name, value in first.items() if not np.array_equal(value, base[name])}
    assert changed == {"text_decoder.ln_final.gamma", "text_decoder.ln_final.beta", "text_decoder.text_projection"}
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name], name)
    assert (tmp_path / "base.safetensors").read_bytes() == before
    [checkpoint] = sorted((tmp_path / "whole" / "checkpoints").iterdir())
    assert not frozen.keys() & read_weights(checkpoint).keys()  # they are read from model.checkpoint again


def test_only_a_frozen_tower_without_crops_has_a_cache(tmp_path):
    cache = {"cache": str(tmp_path / "cache")}
    for varying in ({"random_crop": True}, {"random_crop": False, "augment": {"num_ops": 1}}):
        with pytest.raises(
            InputError, match=r"data\.cache: random crops and augmented pictures are never the same twice"
        ):
            load_train_config(make_run(tmp_path, data={**cache, **varying}))
    with pytest.raises(InputError, match=r"data\.cache: s3://bucket/cache: must be on this machine"):
        load_train_config(make_run(tmp_path, data={"cache": "s3://bucket/cache", "random_crop": False}))
    trained = make_run(tmp_path, data=cache, train={"freeze": ["visual.transformer.*"]})
    with pytest.raises(
        InputError, match=r"data\.cache: keeps the outputs of a frozen image tower, but visual\.\S+ is tr"
    ):
        Trainer(load_train_config(trained))
    write_data(tmp_path)
    with pytest.raises(InputError, match=r"data\.cache: .* task classification has head\.cache for that"):
        load_train_config(write_task(tmp_path, "task", data={**cache, "random_crop": False}))
    assert may_change("data.cache")
