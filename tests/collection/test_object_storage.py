"""Inputs and outputs in S3, through a real server on this machine of which some requests fail."""

import random
from pathlib import Path

import fsspec
import numpy as np
import pytest

from mindone_coca.data.loader import TrainingData
from mindone_coca.factory import find_config_and_weights
from mindone_coca.preprocess.tokenizer import Tokenizer
from mindone_coca.preprocess.transforms import create_train_transforms
from tests.collection.clips import make_good
from tests.collection.test_caption_files import run  # noqa: F401 a fixture
from tests.data.training_samples import open_one, write_layouts
from tests.storages import Server

pytest.importorskip("s3fs", reason="s3fs is not installed: pip install s3fs 'moto[server]' -c constraints-ray.txt")
pytest.importorskip("moto", reason="moto is not installed: pip install s3fs 'moto[server]' -c constraints-ray.txt")

pytestmark = pytest.mark.graphs


def objects(folder: str) -> dict[str, bytes]:
    """What an output folder in the bucket has, but for its journal."""
    system = fsspec.filesystem("s3")
    system.invalidate_cache()
    found = {path.removeprefix(f"bucket/{folder}/"): system.cat_file(path) for path in system.find(f"bucket/{folder}")}
    return {name: content for name, content in found.items() if not name.startswith("journal/")}


def test_inputs_and_outputs_while_requests_fail(server: Server, run, tmp_path):  # noqa: F811
    files = make_good(tmp_path / "in", 5)
    (tmp_path / "in/broken.mp4").write_bytes(b"no video")
    fsspec.filesystem("s3").put(f"{tmp_path}/in/", "bucket/in/", recursive=True)
    arguments = ["--video_path", "s3://bucket/in", "--output_format", "json", "csv", "--save_features", "--output_dir"]
    code, _, errors, seen = run(*arguments, "s3://bucket/quiet")
    assert code == 1 and "error: s3://bucket/in/broken.mp4: cannot be read" in errors
    assert {Path(path).name for path in seen} == {path.name for path in files}
    quiet = objects("quiet")
    assert {"captions.json", "captions.csv", "features/img_emb/img_emb_0.npy", "features/model.json"} <= quiet.keys()

    chance = random.Random(3)
    server.fails = lambda method, path: chance.random() < 0.05
    before, server.failed = server.requests, 0
    code, _, errors, _ = run(*arguments, "s3://bucket/again")
    assert code == 1 and server.failed > 0.01 * (server.requests - before)
    assert objects("again") == quiet and "a-secret" not in errors

    # nothing is done twice, also on a machine that knows nothing of it yet
    code, _, errors, seen = run(*arguments, "s3://bucket/again")
    assert (code, seen) == (1, []) and "6 of 6 files were done before" in errors

    # an upload that breaks off: one line, nothing half, and the same command goes on
    server.fails = lambda method, path: method in ("PUT", "POST") and path.endswith("captions.csv")
    code, _, errors, _ = run(*arguments, "s3://bucket/broken")
    assert code == 2 and "error: s3://bucket/broken/captions.csv: cannot be reached" in errors
    assert "captions.csv" not in objects("broken")
    server.fails = lambda method, path: False
    assert run(*arguments, "s3://bucket/broken")[0] == 1
    assert objects("broken") == quiet


def test_training_reads_its_data_while_requests_fail(server: Server, tmp_path, model_folder):
    """All layouts give the batches of the files here, also in processes that are forked; weights come with their
    config."""
    here, _ = write_layouts(tmp_path / "data", 12)
    fsspec.filesystem("s3").put(f"{tmp_path}/data/", "bucket/data/", recursive=True)
    there = {
        kind: {key: value.replace(f"{tmp_path}", "s3://bucket") for key, value in source.items()}
        for kind, source in here.items()
    }
    fsspec.filesystem("s3").put(f"{model_folder}/", "bucket/model/", recursive=True)
    chance = random.Random(3)
    server.fails = lambda method, path: chance.random() < 0.05
    before, server.failed = server.requests, 0

    def batches(sources: dict[str, dict], workers: int) -> list:
        data = TrainingData(
            [open_one(source) for source in sources.values()],
            Tokenizer(),
            create_train_transforms(16),
            batch_size=6,
            context_length=12,
            seed=5,
            num_workers=workers,
        )
        return list(data.epoch(1))

    expected = batches(here, 0)
    assert len(expected) == 10
    for workers in (0, 2):
        for ours, theirs in zip(batches(there, workers), expected, strict=True):
            assert np.array_equal(ours.images, theirs.images) and np.array_equal(ours.text, theirs.text)
    config, weights = find_config_and_weights("s3://bucket/model/config.yaml", "s3://bucket/model")
    assert weights.read_bytes() == (model_folder / "coca.safetensors").read_bytes()
    assert config == find_config_and_weights(model_folder / "config.yaml", model_folder)[0]
    assert server.failed > 0.01 * (server.requests - before)
