"""Folders of adapters both ways with the peft library on open_clip's model, live, and what cannot be merged."""

import json
from pathlib import Path

import numpy as np
import pytest

from mindone_coca.cli import convert
from mindone_coca.errors import InputError
from mindone_coca.model.coca_pytorch.family import COCA_PYTORCH
from mindone_coca.model.families import load_model_config
from mindone_coca.model.open_clip.family import OPEN_CLIP
from mindone_coca.weights.adapters import (
    OWN_WEIGHTS,
    absolute_adapters,
    merged,
    read_adapters,
    split_weight,
    write_adapters,
)
from mindone_coca.weights.fingerprint import model_name
from mindone_coca.weights.formats.entry import Entry
from mindone_coca.weights.formats.safetensors_file import read_safetensors
from tests.models import CONFIGS, one_layer
from tests.reference import numpy_state, random_reference, torch
from tests.training.reference_training import make_batch

SMALL = one_layer(CONFIGS["base"])
SETTINGS = {"r": 3, "lora_alpha": 5, "lora_dropout": 0.0, "use_rslora": True}


@pytest.fixture(scope="module")
def peft():
    return pytest.importorskip("peft")


def entry(array: np.ndarray) -> Entry:
    array = np.ascontiguousarray(array)
    return Entry(array.shape, str(array.dtype), lambda: array)


def matrices(weights: dict[str, tuple[int, int]], seed: int = 0) -> dict[str, Entry]:
    """Adapters of rank 3 for weights (out, in), by our names."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, (rows, columns) in weights.items():
        found[f"{name}.lora_a"] = entry((rng.standard_normal((3, columns)) * 0.1).astype(np.float32))
        found[f"{name}.lora_b"] = entry((rng.standard_normal((rows, 3)) * 0.1).astype(np.float32))
    return found


def merged_model(folder: str, dtype: str | None = None):
    """open_clip's model with the weights that we merge."""
    reference = random_reference(SMALL, seed=2)
    state = {name: entry(value) for name, value in numpy_state(reference).items()}
    result = merged(state, [read_adapters(folder, OPEN_CLIP)], OPEN_CLIP.to_mindspore, dtype)
    reference.load_state_dict({name: torch.from_numpy(value.read().copy()) for name, value in result.items()})
    return reference


def outputs(model) -> dict[str, np.ndarray]:
    images, text = make_batch(SMALL, 3)
    with torch.no_grad():
        found = model.double()(torch.from_numpy(images).double(), torch.from_numpy(text).long())
    return {name: found[name].numpy() for name in ("image_features", "text_features", "logits")}


def assert_same(ours, theirs, far=None) -> None:
    for name, wanted in outputs(theirs).items():
        assert np.abs(outputs(ours)[name] - wanted).max() < 1e-6 * np.abs(wanted).max(), name
        if far is not None:
            assert np.abs(outputs(far)[name] - wanted).max() > 1e-2 * np.abs(wanted).max(), name


def test_peft_loads_ours(tmp_path, peft):
    weights = {
        "visual.transformer.resblocks.0.attn.in_proj_weight": (144, 48),
        "visual.transformer.resblocks.0.attn.out_proj.weight": (48, 48),
        "text.transformer.resblocks.0.mlp.c_fc.weight": (128, 32),
        "text_decoder.cross_attn.0.attn.in_proj_weight": (96, 32),
        "text_decoder.cross_attn.0.attn.out_proj.weight": (32, 32),
        "text_decoder.cross_attn.0.mlp.c_proj.weight": (32, 128),
    }
    assert write_adapters(tmp_path / "lora", OPEN_CLIP, matrices(weights), SETTINGS, "base.bin") == []
    theirs = peft.PeftModel.from_pretrained(random_reference(SMALL, seed=2), str(tmp_path / "lora"))
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "base.bin" and len(config["target_modules"]) == 4
    ours = merged_model(str(tmp_path / "lora"))
    assert_same(ours, theirs, far=random_reference(SMALL, seed=2))
    assert_same(ours, theirs.merge_and_unload())


def test_we_load_peft_s(tmp_path, peft):
    config = peft.LoraConfig(
        r=3,
        lora_alpha=5,
        rank_pattern={r".*c_fc": 2},
        alpha_pattern={r".*c_fc": 7},
        target_modules=r".*(resblocks|cross_attn)\.\d+\.(attn|mlp\.c_fc)",
        init_lora_weights=False,
    )
    torch.manual_seed(0)
    theirs = peft.get_peft_model(random_reference(SMALL, seed=2), config).eval()
    theirs.save_pretrained(str(tmp_path / "lora"))
    assert_same(merged_model(str(tmp_path / "lora")), theirs, far=random_reference(SMALL, seed=2))


def test_what_peft_has_no_place_for_lies_beside(tmp_path):
    own = matrices({"visual.attn_pool.attn.q_proj_weight": (32, 32), "visual.attn_pool.attn.out_proj.weight": (32, 32)})
    own["logit_scale"] = entry(np.float32(1.25))
    trained = {**own, **matrices({"text.transformer.resblocks.0.mlp.c_fc.weight": (128, 32)}, seed=1)}
    assert write_adapters(tmp_path / "lora", OPEN_CLIP, trained, SETTINGS, None) == list(own)
    assert (tmp_path / "lora" / OWN_WEIGHTS).is_file()
    folder = read_adapters(str(tmp_path / "lora"), OPEN_CLIP)
    state = numpy_state(random_reference(SMALL, seed=2))
    result = merged({name: entry(value) for name, value in state.items()}, [folder], OPEN_CLIP.to_mindspore, None)
    assert result["logit_scale"].read() == np.float32(1.25)
    assert {pair.scale for pair in folder.pairs.values()} == {5 / 3**0.5}
    for name in ("visual.attn_pool.attn.q_proj_weight", "visual.attn_pool.attn.out_proj.weight"):
        change = 5 / 3**0.5 * trained[f"{name}.lora_b"].read() @ trained[f"{name}.lora_a"].read()
        np.testing.assert_allclose(result[name].read(), state[name] + change, atol=1e-6)


def test_several_with_weights_add_up_and_types_stay(tmp_path):
    name = "text_decoder.text_projection"  # whole parameters are blended towards what they became
    first, second = (tmp_path / folder for folder in ("first", "second"))
    weight = "text.transformer.resblocks.0.mlp.c_fc.weight"
    write_adapters(
        first, OPEN_CLIP, {**matrices({weight: (128, 32)}), name: entry(np.ones((2, 2), np.float32))}, SETTINGS, None
    )
    write_adapters(second, OPEN_CLIP, matrices({weight: (128, 32)}, seed=4), SETTINGS, None)
    state = {weight: entry(np.zeros((128, 32), np.float16)), name: entry(np.full((2, 2), 3, np.float32))}
    folders = [read_adapters(f"{first}=0.5", OPEN_CLIP), read_adapters(f"{second}=-1", OPEN_CLIP)]
    result = merged(state, folders, OPEN_CLIP.to_mindspore, None)
    assert result[weight].dtype == "float16" and (result[name].read() == 2).all()
    wanted = 0.5 * folders[0].pairs[weight].change() - folders[1].pairs[weight].change()
    np.testing.assert_allclose(result[weight].read(), wanted, atol=2e-3)
    assert merged(state, folders, OPEN_CLIP.to_mindspore, "float32")[weight].dtype == "float32"


def test_what_cannot_be_merged_is_refused_by_name(tmp_path):
    weight = "text.transformer.resblocks.0.mlp.c_fc.weight"
    folder = tmp_path / "lora"
    with pytest.raises(InputError, match="no folder of adapters"):
        read_adapters(str(folder), OPEN_CLIP)
    write_adapters(folder, OPEN_CLIP, matrices({weight: (128, 32)}), SETTINGS, None)
    adapters = read_adapters(str(folder), OPEN_CLIP)
    with pytest.raises(InputError, match=rf"{weight} \(128, 32\) belongs to other weights \(\(9, 9\) there\)"):
        merged({weight: entry(np.zeros((9, 9), np.float32))}, [adapters], OPEN_CLIP.to_mindspore, None)
    with pytest.raises(InputError, match="no linear layer of coca-pytorch's CoCa"):
        read_adapters(str(folder), COCA_PYTORCH)
    for key, value in {"use_dora": True, "bias": "all", "peft_type": "LOHA", "modules_to_save": ["visual"]}.items():
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**config, key: value}))
        with pytest.raises(InputError, match=f"adapter_config.json: {key} is "):
            read_adapters(str(folder), OPEN_CLIP)
        (folder / "adapter_config.json").write_text(json.dumps(config))


def test_a_weight_stands_behind_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=2").mkdir()
    assert split_weight("a=2") == ("a=2", 1.0) and split_weight("b=0.5") == ("b", 0.5)
    assert absolute_adapters("b=0.5") == f"{Path.cwd() / 'b'}=0.5"
    with pytest.raises(InputError, match="'much' is no weight of adapters"):
        split_weight("b=much")


def test_the_converter_merges(tmp_path, capsys):
    weight = "text.transformer.resblocks.0.mlp.c_fc.weight"
    write_adapters(tmp_path / "lora", OPEN_CLIP, matrices({weight: (128, 32)}), SETTINGS, None)
    state = numpy_state(random_reference(SMALL, seed=2))
    torch.save({name: torch.from_numpy(value) for name, value in state.items()}, tmp_path / "model.pt")
    (tmp_path / "model.json").write_text(json.dumps(SMALL))
    command = ["--source", str(tmp_path / "model.pt"), "--config", str(tmp_path / "model.json")]
    command += ["--target", str(tmp_path / "merged.safetensors"), "--lora", f"{tmp_path / 'lora'}=2"]
    assert convert.main(command) == 0
    assert f"note: merged {tmp_path / 'lora'}=2" in capsys.readouterr().err
    change = read_adapters(str(tmp_path / "lora"), OPEN_CLIP).pairs[weight].change()
    found = read_safetensors(tmp_path / "merged.safetensors")
    for name, value in state.items():
        wanted = value + 2 * change if name == weight else value
        np.testing.assert_array_equal(found[OPEN_CLIP.to_mindspore(name)].read(), wanted.astype(np.float32), name)
    assert convert.main([*command[:-1], str(tmp_path / "none"), "--force"]) == 2
    assert "none: no folder of adapters" in capsys.readouterr().err


def test_another_adapter_is_another_model(tmp_path):
    """By the name under which journals and features know a model."""
    weight = "text.transformer.resblocks.0.mlp.c_fc.weight"
    (tmp_path / "weights").write_bytes(bytes(100))
    names = set()
    for number in range(2):
        write_adapters(tmp_path / f"lora{number}", OPEN_CLIP, matrices({weight: (128, 32)}, number), SETTINGS, None)
        for share in ("", "=0.5"):
            config = load_model_config({**SMALL, "lora": [f"{tmp_path / f'lora{number}'}{share}"]})
            names.add(model_name(config, tmp_path / "weights"))
    names.add(model_name(load_model_config(SMALL), tmp_path / "weights"))
    assert len(names) == 5
    (tmp_path / "lora0").rename(tmp_path / "moved")
    moved = load_model_config({**SMALL, "lora": [str(tmp_path / "moved")]})
    assert model_name(moved, tmp_path / "weights") in names
