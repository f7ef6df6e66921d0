"""Loading into the MindSpore model, strictly, and out of it again."""

import json

import mindspore as ms
import numpy as np
import pytest
from mindspore.nn.utils import no_init_parameters

from mindone_coca import device
from mindone_coca.errors import InputError
from mindone_coca.model.open_clip.family import OPEN_CLIP
from mindone_coca.model.open_clip.model import CoCa
from mindone_coca.weights.load import load_weights, parameter_entries
from mindone_coca.weights.save import save_weights
from tests.models import CONFIGS, relative_difference
from tests.reference import numpy_state, random_reference, torch


def empty_model(config, **changes):
    with no_init_parameters():
        return CoCa(**{**config, **changes})


def inputs(config):
    rng = np.random.default_rng(0)
    size = config["vision_cfg"]["image_size"]
    image = rng.standard_normal((2, 3, *(size if isinstance(size, tuple) else (size, size))), dtype=np.float32)
    text = rng.integers(1, config["text_cfg"]["vocab_size"], (2, config["text_cfg"]["context_length"]))
    return image, text.astype(np.int32)


@pytest.mark.graphs
@pytest.mark.parametrize("suffix", [".bin", ".safetensors", ".ckpt"])
@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_loads_and_base_gives_open_clips_numbers(name, suffix, convert, tmp_path):
    reference = random_reference(CONFIGS[name])
    path = tmp_path / "source.bin"
    torch.save(reference.state_dict(), path)
    if suffix != ".bin":  # open_clip's file is loaded as it is, too
        (tmp_path / "source.json").write_text(json.dumps(CONFIGS[name]))
        assert convert("--source", path, "--target", tmp_path / f"out{suffix}") == 0
        path = tmp_path / f"out{suffix}"
    model = empty_model(CONFIGS[name])
    load_weights(model, path)
    state = numpy_state(reference)
    entries = parameter_entries(model)
    assert {OPEN_CLIP.to_mindspore(key) for key in state} == entries.keys()
    for key, value in state.items():
        np.testing.assert_array_equal(entries[OPEN_CLIP.to_mindspore(key)].read(), value)
    if suffix == ".safetensors" and name == "base":
        image, text = inputs(CONFIGS[name])
        with torch.no_grad():
            want = reference(torch.from_numpy(image), torch.from_numpy(text).long())
        out = model(image, text)
        assert relative_difference(out["logits"], want["logits"]) < 1e-5
        theirs = want["image_features"].reshape(2, -1)  # (N, 1, D) with two poolers
        assert relative_difference(out["image_features"], theirs) < 1e-5


def test_loading_casts_to_the_parameters_type(checkpoint, model):
    with device.half_on_cpu():
        ours = empty_model(CONFIGS["base"], cast_dtype="float16")
    load_weights(ours, checkpoint)
    value = model.state_dict()["visual.proj"]
    assert ours.visual.proj.dtype == ms.float16
    np.testing.assert_array_equal(ours.visual.proj.asnumpy(), value.half().numpy())
    assert ours.visual.ln_post.gamma.dtype == ms.float32


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt", ".bin"])
def test_saved_parameters_load_again(suffix, checkpoint, tmp_path):
    ours = empty_model(CONFIGS["base"])
    load_weights(ours, checkpoint)
    save_weights(tmp_path / f"saved{suffix}", parameter_entries(ours))
    again = empty_model(CONFIGS["base"])
    load_weights(again, tmp_path / f"saved{suffix}")
    for name, entry in parameter_entries(ours).items():
        np.testing.assert_array_equal(parameter_entries(again)[name].read(), entry.read())


def test_training_after_loading_leaves_the_file_alone(checkpoint, tmp_path):
    ours = empty_model(CONFIGS["base"])
    load_weights(ours, checkpoint)
    save_weights(tmp_path / "w.safetensors", parameter_entries(ours))
    before = (tmp_path / "w.safetensors").read_bytes()
    load_weights(ours, tmp_path / "w.safetensors")
    ms.ops.assign(ours.visual.proj, ours.visual.proj * 2)
    ours.visual.proj.asnumpy()
    assert (tmp_path / "w.safetensors").read_bytes() == before


def test_strict_errors_change_nothing(checkpoint, tmp_path):
    ours = CoCa(**CONFIGS["quick_gelu"])  # two pooler queries, the checkpoint has nine
    before = {name: entry.read().copy() for name, entry in parameter_entries(ours).items()}
    with pytest.raises(InputError) as caught:
        load_weights(ours, checkpoint)
    message = str(caught.value)
    assert "visual.attn_pool.query [9, 32] instead of [2, 32]" in message and "\n" not in message
    for name, entry in parameter_entries(ours).items():
        np.testing.assert_array_equal(entry.read(), before[name])


def test_nan_is_found_on_request(checkpoint, tmp_path):
    ours = empty_model(CONFIGS["base"])
    load_weights(ours, checkpoint, check_finite=True)
    entries = parameter_entries(ours)
    broken = entries["text.cls_emb"].read().copy()
    broken[0] = np.nan
    ours.text.cls_emb.set_data(ms.Tensor(broken))
    save_weights(tmp_path / "nan.ckpt", parameter_entries(ours))
    with pytest.raises(InputError, match=r"text\.cls_emb holds 1 values that are NaN"):
        load_weights(empty_model(CONFIGS["base"]), tmp_path / "nan.ckpt", check_finite=True)


def test_other_files_are_named(tmp_path):
    ours = empty_model(CONFIGS["base"])
    for name, content, said in (("text.ckpt", b"hello, world", "damaged"), ("zero.safetensors", b"", "empty")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}.*{said}"):
            load_weights(ours, tmp_path / name)
    with pytest.raises(InputError, match="no such file"):
        load_weights(ours, tmp_path / "absent.ckpt")
