"""A config of the other kind is named as such, with what to give instead; the folder of a training stands for its
final weights."""

import json
from pathlib import Path

import pytest

import evaluate
import inference
import train
from mindone_coca.cli import convert, export
from mindone_coca.errors import InputError
from mindone_coca.factory import create_model, find_config_and_weights
from mindone_coca.model.families import FAMILIES, is_model_config, load_model_config
from mindone_coca.typed_mapping import read_mapping
from mindone_coca.weights.source import open_weights

CONFIGS = Path(__file__).parents[1] / "configs"
WEIGHTS = CONFIGS.parent / "models" / "coca_tiny.safetensors"
DIGITS = str(CONFIGS / "train_digits.yaml")
INSTEAD = (
    f"{DIGITS}: is a config for train.py, not a model's; give coca_digits, which it trains, or "
    "outputs/digits/final.yaml, which it writes"
)
PROGRAMS = {
    "inference": (inference.main, ["-c", DIGITS, "--video_path", str(CONFIGS.parent / "assets" / "demo.mp4")]),
    "evaluate": (evaluate.main, ["zeroshot", "-c", DIGITS, "--data", "{folder}"]),
    "convert": (convert.main, ["--config", DIGITS, "--source", str(WEIGHTS), "--target", "{folder}"]),
    "export": (export.main, ["-c", DIGITS, "--model_path", str(WEIGHTS), "--target", "{folder}/new"]),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_training_config_is_named_where_a_model_s_is_wanted(tmp_path, name, capsys):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.png").write_bytes((CONFIGS.parent / "docs" / "images" / "demo_frames.png").read_bytes())
    main, arguments = PROGRAMS[name]
    code = main([argument.replace("{folder}", str(tmp_path)) for argument in arguments])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert code == 2 and lines == [f"error: {INSTEAD}"]


def test_in_the_library_too():
    with pytest.raises(InputError, match=r"train_digits.yaml: is a config for train.py"):
        create_model("train_digits")
    with pytest.raises(InputError, match=r"model config: is a config for train.py, not a model's; give a"):
        create_model({"model": 1, "data": None})


@pytest.mark.parametrize("config", ["coca_vit-l-14", "coca_parallel_digits", str(WEIGHTS.with_suffix(".yaml"))])
def test_a_model_config_is_named_where_a_training_s_is_wanted(config, capsys):
    assert train.main(["-c", config, "train.max_steps=1"]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "is a model's config, not one for train.py; give one of these, such as configs/train_digits.yaml" in line
    assert Path(config).stem in line


def test_every_packaged_config_is_of_one_kind():
    for path in CONFIGS.glob("*.yaml"):
        assert is_model_config(read_mapping(path)) == path.stem.startswith("coca_"), path
    assert len(FAMILIES) > 1


def test_an_open_clip_config_is_a_model_s(tmp_path, capsys):
    path = tmp_path / "open_clip_config.json"
    path.write_text(json.dumps({"model_cfg": {"embed_dim": 4}, "preprocess_cfg": {}}))
    assert train.main(["-c", str(path)]) == 2 and "is a model's config" in capsys.readouterr().err


@pytest.fixture
def run(tmp_path) -> Path:
    """The folder of a training, with all that one leaves there but weights of its own."""
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(Path(DIGITS).read_text())
    for stem in ("final", "best"):
        (folder / f"{stem}.safetensors").symlink_to(WEIGHTS)
        (folder / f"{stem}.yaml").write_text(WEIGHTS.with_suffix(".yaml").read_text())
    (folder / "checkpoints" / "step_00000010.safetensors").symlink_to(WEIGHTS)
    return folder


def test_a_training_s_folder_stands_for_its_final_weights(run, recwarn):
    config, weights = find_config_and_weights(None, run)
    assert weights == run / "final.safetensors" and config == load_model_config(run / "final.yaml")
    assert open_weights(run).path == run / "final.safetensors"  # for the converter
    assert not recwarn


def test_before_its_end_the_best_ones_are_taken_and_said(run):
    (run / "final.yaml").unlink()  # which is written last
    with pytest.warns(UserWarning, match=r"run: the training has no final.safetensors yet; taking best.safetensors"):
        assert find_config_and_weights(None, run)[1] == run / "best.safetensors"


def test_without_either_the_training_has_to_go_on(run):
    for path in run.glob("*.safetensors"):
        path.unlink()
    with pytest.raises(InputError, match=r"run: a training that has not ended.*the same train.py command goes on"):
        find_config_and_weights(None, run)
