"""Whole runs of tasks: what is trained and what is not, the cache of features, resuming, and what comes out."""

import json
from pathlib import Path
from unittest.mock import NonCallableMock

import numpy as np
import pytest
import yaml
from mindspore import Tensor
from PIL import Image

from mindone_coca.errors import InputError
from mindone_coca.factory import create_model, find_config_and_weights
from mindone_coca.tasks.evaluate import evaluate_task
from mindone_coca.tasks.job import TaskJob
from mindone_coca.tasks.load import load_task_model
from mindone_coca.training.overview import overview
from mindone_coca.training.progress import read_metrics
from mindone_coca.weights.load import parameter_entries
from mindone_coca.weights.save import save_weights
from mindone_coca.weights.source import open_weights
from tests.tasks.runs import TRAIN, VAL, open_run, values_of, write_data
from tests.training.runs import read_weights

pytestmark = pytest.mark.graphs

UNCROPPED = {"random_crop": False}
FROZEN = {"label_smoothing": 0.1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tasks")
    write_data(path)
    return path


@pytest.fixture(scope="module")
def frozen(folder) -> dict[str, np.ndarray]:
    """CoCa's weights before a run with a frozen model, whose results are in `folder / "frozen"`."""
    trainer = open_run(folder, "frozen", data=UNCROPPED, head=FROZEN)
    assert isinstance(trainer.job, TaskJob)
    before = values_of(trainer.job.classifier.get_parameters())
    trainer.run()
    return before


def assert_same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], name)


def test_a_frozen_model_stays_bit_for_bit(folder, frozen):
    after = read_weights(folder / "frozen" / "final.safetensors")
    assert after.keys() == frozen.keys()
    for name, value in after.items():
        assert np.array_equal(value, frozen[name]) != name.startswith("head."), name
    records = read_metrics(folder / "frozen" / "metrics.jsonl")
    losses = [record["loss"] for record in records if record["kind"] == "train"]
    assert len(losses) == 12 and losses[-1] < losses[0]
    page = (folder / "frozen" / "validation" / "step_00000012.html").read_text()
    assert page.count("<article") == 4


def test_exported_models_predict_and_caption(folder, frozen):
    run = folder / "frozen"
    assert yaml.safe_load((run / "final.yaml").read_text())["task_cfg"] == {
        "task": "classification",
        "labels": ["left", "right"],
        "heads": 2,
        "queries": 1,
        "num_frames": 1,
    }
    metrics = evaluate_task(
        "classification", run / "final.yaml", str(folder / "val.csv"), run / "report", batch_size=4, num_workers=0
    )
    validation = read_metrics(run / "metrics.jsonl")[-1]
    assert metrics["samples"] == VAL and metrics["accuracy"] == pytest.approx(validation["accuracy"], abs=1e-6)
    assert set(metrics) == {"samples", "accuracy"}
    report = json.loads((run / "report" / "metrics.json").read_text())
    assert report["task"] == "classification" and report["metrics"]["accuracy"] == metrics["accuracy"]
    predictions = (run / "report" / "predictions.csv").read_bytes()
    assert "<span>probability " in (run / "report" / "examples.html").read_text()
    assert predictions.startswith(b"\xef\xbb\xbfname,")  # by which Excel knows UTF-8
    assert len(predictions.splitlines()) == VAL + 1
    assert {"examples.html", "confusion.png"} <= {path.name for path in (run / "report").iterdir()}
    # the CoCa in it is a CoCa as any other
    model = create_model(*find_config_and_weights(run / "final.yaml", None))
    ours = values_of(model.get_parameters())
    assert_same(ours, {name: frozen[name] for name in ours})
    assert open_weights(run / "final.safetensors").notes == ["15 entries of a task's head left out"]
    save_weights(folder / "headless.safetensors", parameter_entries(model))
    with pytest.raises(InputError, match="missing: 15"):
        load_task_model(run / "final.yaml", folder / "headless.safetensors")


def run_cached(folder: Path, name: str, max_steps: int = 12, encodes: bool = True) -> None:
    head = {**FROZEN, "cache": str(folder / "cache")}
    trainer = open_run(
        folder, name, data=UNCROPPED, head=head, train={"max_steps": max_steps}, output={"save_every": 5}
    )
    if not encodes:
        assert isinstance(trainer.job, TaskJob)
        trainer.job.predictor.features = NonCallableMock()  # calling it fails
    trainer.run()


@pytest.fixture(scope="module")
def cached(folder) -> Path:
    """The folder of cached features, filled by the run in `folder / "cached"`."""
    run_cached(folder, "cached")
    return folder / "cache"


def test_cached_features_and_resuming_give_the_same_training(folder, frozen, cached):
    whole, filling = (read_weights(folder / name / "final.safetensors") for name in ("frozen", "cached"))
    assert_same(filling, whole)
    files = sorted(cached.rglob("*.npy"))
    assert len(list(cached.iterdir())) == 1
    run_cached(folder, "parts", max_steps=5, encodes=False)
    run_cached(folder, "parts", encodes=False)
    assert sorted(cached.rglob("*.npy")) == files
    assert_same(read_weights(folder / "parts" / "final.safetensors"), whole)
    checkpoint = "checkpoints/step_00000012.safetensors"
    assert_same(*(read_weights(folder / name / checkpoint) for name in ("parts", "frozen")))
    metrics = [read_metrics(folder / name / "metrics.jsonl") for name in ("parts", "frozen")]
    losses = [[r["loss"] for r in records if r["kind"] == "train"] for records in metrics]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)  # a sum over threads, which is only reported
    assert metrics[0][-1]["accuracy"] == metrics[1][-1]["accuracy"]


def test_nothing_stale_comes_from_the_cache(folder, cached):
    head = {**FROZEN, "cache": str(cached)}
    assert not open_run(folder, "weights", data=UNCROPPED, head=head, train={"seed": 1}).job.predictor.cache.rows
    trainer = open_run(folder, "data", data=UNCROPPED, head=head)
    model, data = overview(trainer.config, trainer.job, trainer.ranks)
    trained = sum(p.size for p in trainer.job.classifier.head.get_parameters())
    assert "with a head for classification" in model and f", {trained:,} of them trained" in model
    assert data == f"data: {TRAIN} samples for training, {VAL} for validation"
    predictor = trainer.job.predictor
    known = len(predictor.cache.rows)
    assert known == TRAIN + VAL
    picture = folder / "train_3.png"
    content = picture.read_bytes()
    try:
        Image.new("RGB", (16, 16), (1, 2, 3)).save(picture)
        for batch in trainer.job.data.epoch(0):
            features, text, _ = trainer.job._inputs(batch)
            if str(picture) in batch.names:
                fresh = predictor.features(Tensor(batch.images), Tensor(text))
                np.testing.assert_array_equal(features.asnumpy(), fresh.asnumpy())
    finally:
        picture.write_bytes(content)
    assert len(predictor.cache.rows) == known + 1
    damaged = next(predictor.cache.folder.glob("*.npy"))
    damaged.write_bytes(b"no array")
    with pytest.raises(InputError, match="not a file of cached features"):
        open_run(folder, "damaged", data=UNCROPPED, head=head)


@pytest.mark.slow
def test_finetuning_resumes_bit_for_bit(folder):
    sections = {
        "head": {"encoder_lr": 1e-3},
        "optim": {"layer_decay": 0.9, "weight_decay": 0.1},
        "output": {"save_every": 3},
    }
    train = {"accumulate_steps": 2, "ema_decay": 0.9, "grad_clip_norm": 1.0}
    whole = open_run(folder, "whole", "entailment", train={**train, "max_steps": 5}, **sections)
    before = values_of(whole.job.classifier.get_parameters())
    trained = {p.name for p in whole.optimiser.parameters}
    whole.run()
    open_run(folder, "parts", "entailment", train={**train, "max_steps": 3}, **sections).run()
    open_run(folder, "parts", "entailment", train={**train, "max_steps": 5}, **sections).run()
    name = "checkpoints/step_00000005.safetensors"
    states = [read_weights(folder / run / name) for run in ("whole", "parts")]
    assert_same(*states)
    assert_same(*(read_weights(folder / run / "final.safetensors") for run in ("whole", "parts")))
    for name, value in before.items():
        assert np.array_equal(states[0][name], value) != (name in trained), name
    assert {"text_decoder.text_projection", "logit_scale", "visual.proj"}.isdisjoint(trained)
    # Adam's first updates are as large as the learning rate, the one of CoCa a tenth of the head's
    moved = {name: np.abs(states[0][name] - before[name]).max() for name in trained}
    assert 2e-2 < moved["head.classifier.weight"] < 6e-2 and 1e-4 < moved["text.positional_embedding"] < 6e-3
    assert load_task_model(folder / "whole" / "final.yaml")[1].cfg.labels == ["no", "yes"]


def test_evaluation_of_another_task_is_refused(folder, frozen):
    final = folder / "frozen" / "final.yaml"
    with pytest.raises(InputError, match="trained for task classification, not vqa"):
        evaluate_task("vqa", final, str(folder / "val.csv"))
    with pytest.raises(InputError, match="views: 3 clips need a model of videos"):
        evaluate_task("classification", final, str(folder / "val.csv"), views=3)
    with pytest.raises(InputError, match="no model trained for a task"):
        evaluate_task("vqa", folder / "tiny.yaml", str(folder / "val.csv"))
    with pytest.raises(InputError, match="the label 'yes' is none of the 2 classes"):
        evaluate_task("classification", final, str(folder / "val_said.csv"))
