"""What `make test-versions` runs, in an environment without torch: all that users do, against open_clip's numbers.

Also one of the slow tests, with the MindSpore that is installed.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mindone_coca import create_model
from mindone_coca.cli import convert, export
from mindone_coca.model.base import ImageTextModel
from tests.training.runs import train
from tests.versions import inputs

sys.path.insert(0, str(Path(__file__).parents[2] / "examples/demo"))

from demo_scenes import describe
from make_demo_data import demo_scene

pytestmark = [pytest.mark.slow, pytest.mark.graphs]

ROOT = Path(__file__).parents[2]
DEMO = ("-c", "configs/coca_tiny.yaml", "--video_path", "assets/demo.mp4")
NUMBERS = json.loads(inputs.NUMBERS.read_text())


def relative_difference(ours: np.ndarray, theirs: object) -> float:
    theirs = np.asarray(theirs)
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@pytest.fixture(scope="module")
def converted(tmp_path_factory) -> Path:
    """The checkpoint that the converter makes of open_clip's file, its config beside it."""
    folder = tmp_path_factory.mktemp("model")
    source = inputs.write_model(folder)
    assert convert.main(["--source", str(source), "--target", str(folder / "coca_model.ckpt")]) == 0
    return folder / "coca_model.ckpt"


@pytest.fixture(scope="module")
def model(converted) -> ImageTextModel:
    return create_model(converted.parent / "small.yaml", converted)


def test_the_environment_is_named():
    """In the environment of `make test-versions` there is no torch."""
    print("MindSpore", ms.__version__)
    if "mindspore-" in sys.prefix:
        assert ms.__version__ in sys.prefix
        assert not list(Path(sys.prefix).rglob("site-packages/torch"))


@pytest.mark.parametrize("name", ["image", "text"])
def test_features(model, name):
    ours = model.encode_image(inputs.images()) if name == "image" else model.encode_text(inputs.text())
    assert relative_difference(ours.asnumpy(), NUMBERS[f"{name}_features"]) < 1e-5


@pytest.mark.parametrize("name", ["beam", "greedy"])
def test_captions(model, name):
    options = inputs.BEAM if name == "beam" else inputs.GREEDY
    assert model.generate(inputs.images(), **options).asnumpy().tolist() == NUMBERS[name]


def test_the_demo_twice(tmp_path):
    """Two processes: the second takes its graphs from the store where this MindSpore has one."""
    command = [sys.executable, "inference.py", *DEMO]
    environment = {**os.environ, "MINDONE_COCA_CACHE": str(tmp_path)}
    for _ in range(2):
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout == f"{describe(demo_scene())}\n"
    print(len(list(tmp_path.iterdir())), "graphs are kept")


@pytest.mark.parametrize(("workers", "parts"), [(1, 1), (2, 1), (1, 2)])
def test_training(converted, tmp_path, workers, parts):
    """On one rank, on two, and with accumulation: the losses of each step are those of open_clip's whole batch."""
    shutil.copy(converted.parent / "small.yaml", tmp_path)
    inputs.write_pairs(tmp_path)
    size = inputs.BATCH // workers // parts
    config = inputs.write_training(tmp_path, converted, batch_size=size, accumulate_steps=parts)
    train(config, workers=workers)
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for record, wanted in zip(records, NUMBERS["steps"], strict=True):
        print(record["loss"], wanted["loss"])
        for name, value in wanted.items():
            assert abs(record[name] - value) < 1e-4 * value, name


def test_export(converted, tmp_path):
    """The exported image encoder, run through GraphCell."""
    target = tmp_path / "mindir"
    options = ["-c", str(converted.parent / "small.yaml"), "--model_path", str(converted), "--target", str(target)]
    assert export.main([*options, "--batch_size", "2", "--cache_length", "12"]) == 0
    entry = json.loads((target / "manifest.json").read_text())["graphs"]["image_encoder"]
    features = nn.GraphCell(ms.load(str(target / entry["file"])))(Tensor(inputs.images()))[0]
    assert relative_difference(features.asnumpy(), NUMBERS["image_features"]) < 1e-5
