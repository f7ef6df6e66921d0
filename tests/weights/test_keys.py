"""Which tensors of a file are taken, and under which names: --key, prefixes on all entries, wrappers in names."""

import mindspore as ms
import numpy as np
import pytest
from safetensors.torch import save_file

from mindone_coca.errors import InputError
from mindone_coca.factory import create_model
from mindone_coca.weights.source import open_weights
from tests.models import CONFIGS
from tests.reference import random_reference, torch
from tests.weights.common import STATE, Net

KEYED = {
    "net": {"net": STATE},
    "a.b": {"a": {"b": STATE}},
    "a.b.c": {"a.b": {"c": STATE, "d": {}}},
    "1": [3, STATE],
    "runs.0.weights": {"runs": [{"weights": STATE}]},
    "trainer": {"trainer": {"state_dict": STATE}},
    "with space": {"with space": STATE, "model": {"other": torch.ones(2)}},
    "7": {7: STATE},
}


@pytest.mark.parametrize("key", KEYED)
def test_a_key_picks_a_state_dict(key, tmp_path):
    torch.save(KEYED[key], tmp_path / "t.pt")
    weights = open_weights(tmp_path / "t.pt", key=key)
    assert list(weights) == list(STATE)
    assert weights.notes[0].startswith(f"took {key}")


def test_keys_that_lead_nowhere(tmp_path):
    torch.save({"net": STATE, "whole": {"model": Net()}, "n": 3}, tmp_path / "t.pt")
    for key in ("nett", "net.vis", "n", "net.", "", "whole.x"):
        with pytest.raises(InputError, match=r"no state dict under the key .*'net' \(3\)"):
            open_weights(tmp_path / "t.pt", key=key)
    with pytest.raises(InputError, match=r"whole pickled model.*\['whole'\]\['model'\]\.state_dict\(\)"):
        open_weights(tmp_path / "t.pt", key="whole.model")
    with pytest.raises(InputError, match="--key or --ema, not both"):
        open_weights(tmp_path / "t.pt", key="net", ema=True)
    save_file(STATE, tmp_path / "t.safetensors")
    for options, said in (
        ({"key": "net"}, "no entry's name begins with 'net.'"),
        ({"ema": True}, "--ema is for torch"),
    ):
        with pytest.raises(InputError, match=said):
            open_weights(tmp_path / "t.safetensors", **options)


def test_the_converter_takes_a_key(convert, capsys, tmp_path):
    model = random_reference(CONFIGS["base"])
    path = tmp_path / "my run.pt"
    torch.save({"net": {"module.network." + name: tensor for name, tensor in model.state_dict().items()}}, path)
    assert convert("--source", path, "--target", tmp_path / "out.ckpt") == 2
    assert f"coca_convert.py --source '{path}' --key net" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"coca_convert\.py --source .* --key net"):
        create_model(CONFIGS["base"], path)
    assert convert("--source", path, "--key", "net", "--list") == 0
    assert convert("--source", path, "--key", "net", "--target", tmp_path / "out.ckpt") == 0
    assert "took net" in capsys.readouterr().err
    proj = create_model(CONFIGS["base"], tmp_path / "out.ckpt").visual.proj.asnumpy()
    np.testing.assert_array_equal(proj, model.state_dict()["visual.proj"].numpy())


PREFIXES = (
    "model.",
    "network.",
    "clip_model.",
    "module.",
    "_orig_mod.",
    "_backbone.",
    "module.model.",
    "model.module.",
    "_orig_mod.model.coca.",
    "student.0.",
    "a.b.c.d.",
    "visual.",
    "network.network.",
    "head.",
)


@pytest.mark.parametrize("suffix", [".bin", ".safetensors", ".ckpt"])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_on_all_entries_comes_off(prefix, suffix, model, checkpoint, convert, capsys, tmp_path):
    plain = dict(model.state_dict())
    path = tmp_path / f"prefixed{suffix}"
    if suffix == ".ckpt":
        assert convert("--source", checkpoint, "--target", tmp_path / "plain.ckpt") == 0
        parameters = ms.load_checkpoint(str(tmp_path / "plain.ckpt"))
        saved = [{"name": prefix + name, "data": value} for name, value in parameters.items()]
        saved += [{"name": "learning_rate", "data": ms.Tensor(0.1)}, {"name": "moments.x", "data": ms.Tensor(0.1)}]
        ms.save_checkpoint(saved, str(path))
    elif suffix == ".bin":
        state = {prefix + name: tensor for name, tensor in plain.items()}
        torch.save({**state, prefix + "text_decoder.attn_mask": torch.ones(2), "n_averaged": torch.tensor(1)}, path)
    else:
        save_file({prefix + name: tensor for name, tensor in plain.items()}, path)
    assert convert("--source", path, "--reverse", "--target", tmp_path / "out.bin") == 0
    written = torch.load(tmp_path / "out.bin", weights_only=True)
    assert written.keys() == plain.keys() and all(torch.equal(written[name], plain[name]) for name in plain)
    if prefix not in ("module.", "_orig_mod."):
        assert "off the names of all entries" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".bin", ".safetensors", ".ckpt"])
@pytest.mark.parametrize("other", ["criterion.weight", "teacher.", "loss.logit_scale", "metrics.train.visual"])
def test_one_of_several_things_in_a_file(other, suffix, model, convert, capsys, tmp_path):
    """As Lightning saves all modules of a run."""
    plain = dict(model.state_dict())
    state = {f"student.coca.{name}": tensor for name, tensor in plain.items()}
    state |= {f"teacher.{n}": t * 2 for n, t in plain.items()} if other == "teacher." else {other: torch.ones(2)}
    path = tmp_path / f"lightning{suffix}"
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "hyper_parameters": {"lr": np.float64(1)}}, path)
    assert convert("--source", path, "--target", tmp_path / "out") == 2
    err = capsys.readouterr().err
    assert f"--source {path} --key student.coca\n" in err and err.count("\n") == 1
    assert ("'teacher'" in err) == (other == "teacher.")
    for key in ("student.coca", "student"):
        target = tmp_path / f"{key}.bin"
        assert convert("--source", path, "--key", key, "--reverse", "--target", target) == 0
        written = torch.load(target, weights_only=True)
        assert all(torch.equal(written[name], tensor) for name, tensor in plain.items())


def test_wrappers_within_names_come_off(tmp_path):
    names = {
        "_fsdp_wrapped_module.visual._fsdp_wrapped_module.proj": "visual.proj",
        "_fsdp_wrapped_module.text._checkpoint_wrapped_module.cls_emb": "text.cls_emb",
        "_fsdp_wrapped_module._orig_mod.logit_scale": "logit_scale",
    }
    torch.save({name: STATE[plain] for name, plain in names.items()}, tmp_path / "t.pt")
    assert list(open_weights(tmp_path / "t.pt")) == list(names.values())


def test_a_prefix_of_some_entries_stays(tmp_path):
    for names in (["model.visual.proj", "text.cls_emb"], ["encoder.layer.0", "encoder.layer.1"], ["visual.proj"]):
        torch.save({name: torch.ones(2) for name in names}, tmp_path / "t.pt")
        weights = open_weights(tmp_path / "t.pt")
        assert list(weights) == names and not weights.notes
