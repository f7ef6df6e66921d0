"""A family that the package does not know is added by its record alone, and then does all that the others do."""

import csv
import json

import numpy as np
import pytest
import yaml
from mindspore import Tensor
from PIL import Image

from mindone_coca.cli import convert, evaluate, train
from mindone_coca.factory import create_model
from mindone_coca.model import families
from mindone_coca.training.progress import read_metrics
from tests.toy_family import TOY, ToyModel, torch

CONFIG = {"family": "toy", "width": 16}


@pytest.fixture(autouse=True)
def third_family():
    families.FAMILIES.append(TOY)
    yield
    families.FAMILIES.remove(TOY)


@pytest.fixture
def source(tmp_path):
    """A torch state dict of random numbers and its config."""
    generator = torch.Generator().manual_seed(0)
    shapes = TOY.shapes(TOY.config.from_dict({"width": 16}))
    state = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    torch.save(state, tmp_path / "toy.pt")
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(CONFIG))
    return state


def test_conversion_both_ways(source, tmp_path, capsys):
    converted = tmp_path / "ours.safetensors"
    arguments = ["--source", str(tmp_path / "toy.pt"), "--target", str(converted), "--verify", "forward"]
    assert convert.main(arguments) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("largest relative difference from toy: ")
    assert all(float(part.split()[-1]) < 1e-5 for part in line.split(": ")[1].split(", "))
    assert convert.main(["--source", str(converted), "--reverse", "--target", str(tmp_path / "back")]) == 0
    back = torch.load(tmp_path / "back" / "toy.pt")
    assert back.keys() == source.keys() and all(torch.equal(back[name], value) for name, value in source.items())


@pytest.mark.graphs
def test_cached_captions_are_those_of_an_uncached_loop(source, tmp_path):
    model = create_model(tmp_path / "toy.yaml", tmp_path / "toy.pt")
    assert isinstance(model, ToyModel)
    images = np.random.default_rng(1).standard_normal((3, 3, 16, 16)).astype(np.float32)
    options = {"generation_type": "top_k", "seq_len": 10, "min_seq_len": 9, "sot_token_id": 5, "eos_token_id": 6}
    captions = model.generate(images, **options).asnumpy()
    ids = np.full((3, 1), 5, np.int32)
    tokens = model.visual(Tensor(images))[1]
    for _ in range(8):
        logits = model.text_decoder(tokens, model.text(Tensor(ids))[1])[:, -1].asnumpy()
        logits[:, 6] = -np.inf
        ids = np.concatenate((ids, logits.argmax(1)[:, None].astype(np.int32)), 1)
    np.testing.assert_array_equal(captions[:, :9], ids)
    assert len(np.unique(ids)) > 5


@pytest.mark.graphs
def test_a_step_of_training_and_an_evaluation(source, tmp_path, capsys):
    with open(tmp_path / "rows.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("filepath", "title"))
        for number, caption in enumerate(("a dog", "a cat", "a red bird", "two fish")):
            Image.new("RGB", (20, 20), (60 * number, 90, 200 - 40 * number)).save(tmp_path / f"{number}.png")
            table.writerow((f"{number}.png", caption))
    settings = {
        "model": {"config": str(tmp_path / "toy.yaml"), "checkpoint": str(tmp_path / "toy.pt")},
        "data": {"train": str(tmp_path / "rows.csv"), "num_workers": 0},
        "train": {"batch_size": 4, "max_steps": 1},
        "output": {"dir": str(tmp_path / "run"), "log_every": 1},
    }
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(settings))
    assert train.main(["-c", str(tmp_path / "train.yaml")]) == 0
    [record] = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert record["updated"] == 1 and np.isfinite(record["loss"])
    capsys.readouterr()
    report = tmp_path / "report"
    arguments = ["-c", str(tmp_path / "run" / "final.yaml"), "--data", str(tmp_path / "rows.csv")]
    assert evaluate.main(["retrieval", *arguments, "--output_dir", str(report)]) == 0
    assert "image_to_text_R@1" in capsys.readouterr().out
    assert json.loads((report / "metrics.json").read_text())["metrics"]["images"] == 4
