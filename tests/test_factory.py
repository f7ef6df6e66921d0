"""Which weights a model gets: one rule for the library and the programs, and nothing drawn at random in silence."""

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import yaml

from mindone_coca import VideoCaptioner, create_model
from mindone_coca.errors import InputError
from mindone_coca.factory import find_config_and_weights, save_model
from mindone_coca.model.base import ImageTextModel
from mindone_coca.model.families import load_model_config
from mindone_coca.model.open_clip.family import OPEN_CLIP
from mindone_coca.training.job import open_model
from mindone_coca.training.settings import ModelSection, TrainConfig
from mindone_coca.weights.adapters import write_adapters
from mindone_coca.weights.formats.safetensors_file import read_safetensors
from mindone_coca.weights.load import parameter_entries
from tests.models import make_config, one_layer
from tests.training.runs import TINY
from tools import make_random_model

ROOT = Path(__file__).parent.parent
CONFIG = one_layer(make_config())
WEIGHTS = ROOT / "models" / "coca_tiny.safetensors"


def feature(model: ImageTextModel) -> np.ndarray:
    return model.parameters_dict()["visual.proj"].asnumpy()


@pytest.fixture
def saved(tmp_path) -> tuple[Path, np.ndarray]:
    """A config that names weights beside it, and one parameter of these."""
    model = create_model(CONFIG)
    config = save_model(tmp_path / "home" / "best.safetensors", model.config, parameter_entries(model))
    return config, feature(model)


def test_a_config_s_checkpoint_is_loaded(saved, tmp_path, monkeypatch):
    config, want = saved
    monkeypatch.chdir(tmp_path)
    for given in (config, str(config), "home/best.yaml"):
        np.testing.assert_array_equal(feature(create_model(given)), want)
    assert find_config_and_weights(config, None)[1] == config.with_suffix(".safetensors")
    monkeypatch.chdir(config.parent)  # a dict has no folder: from the working directory
    np.testing.assert_array_equal(feature(create_model(yaml.safe_load(config.read_text()))), want)
    np.testing.assert_array_equal(feature(create_model(load_model_config(config))), want)


def test_given_weights_come_before_the_config_s(saved, tmp_path):
    config, _ = saved
    other = create_model(CONFIG)
    save_model(tmp_path / "other.safetensors", other.config, parameter_entries(other))
    loaded = create_model(config, tmp_path / "other.safetensors")
    np.testing.assert_array_equal(feature(loaded), feature(other))


def test_converted_weights_need_no_option(saved, tmp_path, monkeypatch):
    """models/coca_model.*, where the converter writes, by itself; but not for a config of another model."""
    config, want = saved
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^models/coca_model.ckpt: no weights there; convert some .* --model_path$"):
        find_config_and_weights(None, None)
    own = create_model(config)
    save_model(tmp_path / "models" / "coca_model.safetensors", own.config, parameter_entries(own))
    loaded, weights = find_config_and_weights(None, None)
    np.testing.assert_array_equal(feature(create_model(loaded, weights)), want)
    message = r"^coca_digits: names no weights, and models/coca_model.safetensors, .* is another model"
    with pytest.raises(InputError, match=message):
        find_config_and_weights("coca_digits", None)
    with pytest.raises(InputError, match=r"coca_model.yaml: a config, no weights; give it with -c"):
        find_config_and_weights(None, tmp_path / "models" / "coca_model.yaml")


def test_the_packaged_demo_model_is_the_one_that_ships():
    stored = read_safetensors(WEIGHTS)["visual.proj"].read().astype(np.float32)
    np.testing.assert_array_equal(feature(create_model("coca_tiny")), stored)
    np.testing.assert_array_equal(feature(VideoCaptioner("coca_tiny").model), stored)


def test_a_checkpoint_that_is_not_there_is_named(saved):
    config, _ = saved
    config.with_suffix(".safetensors").unlink()
    for run in (create_model, VideoCaptioner, lambda given: find_config_and_weights(given, None)):
        if run is VideoCaptioner:
            config.write_text(yaml.safe_dump({**TINY, "checkpoint": "best.safetensors"}))
        with pytest.raises(InputError, match=r"best.yaml: checkpoint: best.safetensors is not there") as caught:
            run(config)
        assert "\n" not in str(caught.value)


def test_weights_are_not_drawn_in_silence(tmp_path):
    path = tmp_path / "new.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    with pytest.warns(UserWarning, match="new.yaml: names no weights, so they are drawn at random"):
        create_model(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        create_model(CONFIG)  # who writes a model down here asks for a new one
        create_model(load_model_config(path))


def test_a_captioner_needs_weights():
    with pytest.raises(InputError, match=r"^model_path: give weights, as the config names none"):
        VideoCaptioner(TINY)


def test_training_starts_where_its_own_config_says(tmp_path):
    """A model config's checkpoint is that of the model as it is used; train.py's `model.checkpoint` may be empty."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({**TINY, "checkpoint": "nowhere.safetensors"}))
    config, model, _ = open_model(TrainConfig(ModelSection(str(path)), None))
    assert config.checkpoint is None and feature(model).std() > 0


@pytest.mark.parametrize("target", ["random/", "random/coca.ckpt"])
def test_a_random_model_has_its_config_beside_it(tmp_path, target, capsys):
    shutil.copy(ROOT / "configs" / "coca_tiny.yaml", tmp_path)  # whose checkpoint is not there
    config = tmp_path / "coca_tiny.yaml"
    config.write_text(yaml.safe_dump({**CONFIG, "checkpoint": "nowhere.safetensors"}))
    assert make_random_model.main(["-c", str(config), "--target", str(tmp_path / target)]) == 0
    name = "coca_model.safetensors" if target == "random/" else "coca.ckpt"
    assert f"random weights and their config to {tmp_path / 'random' / name}: 2 files" in capsys.readouterr().err
    _, weights = find_config_and_weights(None, tmp_path / "random")
    assert weights == tmp_path / "random" / name
    first = feature(create_model(find_config_and_weights(None, tmp_path / "random")[0], weights))
    make_random_model.main(["-c", str(config), "--target", str(tmp_path / target), "--seed", "1"])
    second = feature(create_model(weights.with_suffix(".yaml")))
    assert not np.array_equal(first, second)


def test_adapters_go_with_the_config_and_are_looked_for_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(CONFIG))
    (tmp_path / "weights.safetensors").write_bytes(b"not read")
    with pytest.raises(InputError, match="lora: no folder of adapters"):
        find_config_and_weights("model.yaml", "weights.safetensors", ["lora"])
    write_adapters(tmp_path / "lora", OPEN_CLIP, {}, {"r": 2, "lora_alpha": 2}, None)
    config, _ = find_config_and_weights("model.yaml", "weights.safetensors", ["lora", "lora=0.5"])
    assert config.lora == [f"{tmp_path / 'lora'}", f"{tmp_path / 'lora'}=0.5"]
    assert find_config_and_weights("model.yaml", "weights.safetensors")[0].lora == []
    with pytest.raises(InputError, match="adapters belong to trained weights"):
        create_model({**CONFIG, "lora": ["lora"]})
