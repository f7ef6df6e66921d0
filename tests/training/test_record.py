"""A run's record: what a later start in the same folder may change, and that config.yaml stays true."""

import re
import warnings
from pathlib import Path

import pytest
import yaml

from mindone_coca import device
from mindone_coca.errors import InputError
from mindone_coca.tasks.job import open_job
from mindone_coca.tasks.settings import load_train_config
from mindone_coca.training.record import MAY_CHANGE, check_record, may_change, with_precision, write_record
from mindone_coca.training.settings import TrainConfig
from mindone_coca.training.trainer import Trainer

HEAD = {"queries": 1, "heads": None, "label_smoothing": 0.0, "frozen": None, "encoder_lr": None, "answers": 3129}
# how that version stored task coca: with a head at its defaults
OF_992461E = {"task": "coca", "head": {**HEAD, "cache": None, "views": 1}}


def settings(folder: Path, *overrides: str, **sections) -> TrainConfig:
    data = {
        "model": {"config": "coca_digits", "checkpoint": "start.safetensors"},
        "data": {"train": "a.csv"},
        "optim": {"lr": 1e-3},
        "train": {"batch_size": 8, "max_steps": 10},
        "output": {"dir": str(folder / "run")},
        **sections,
    }
    (folder / "given.yaml").write_text(yaml.safe_dump(data))
    return load_train_config(folder / "given.yaml", overrides)


def begin(folder: Path, *overrides: str, **sections) -> Path:
    """The folder of a run that was begun with these settings and has a checkpoint."""
    run = folder / "run"
    write_record(run, settings(folder, *overrides, **sections))
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "step_00000010.safetensors").write_bytes(b"")
    return run


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("data.train=b.csv", 'data.train was "a.csv", now "b.csv"'),
        ("data.train=[a.csv, b.csv]", 'data.train was "a.csv", now ["a.csv", "b.csv"]'),
        ("data.train={path: a.csv, caption_key: text}", 'data.train.caption_key was null, now "text"'),
        ("optim.lr=1e-2", "optim.lr was 0.001, now 0.01"),
        ("optim.betas=[0.9, 0.95]", "optim.betas was [0.9, 0.98], now [0.9, 0.95]"),
        ("model.checkpoint=other.safetensors", "model.checkpoint was"),
        ("model.checkpoint=null", 'model.checkpoint was "start.safetensors", now null'),
        ("train.batch_size=16", "train.batch_size was 8, now 16"),
        ("train.accumulate_steps=2", "train.accumulate_steps was 1, now 2"),
        ("train.freeze=['text.*']", 'train.freeze was [], now ["text.*"]'),
        ("train.seed=1", "train.seed was 0, now 1"),
        ("loss.z_loss_weight=0.1", "loss.z_loss_weight"),
        ("train.ema_decay=0.9", "train.ema_decay was null, now 0.9"),
    ],
)
def test_other_settings_are_refused_before_anything_is_opened(tmp_path, override, named):
    record = begin(tmp_path) / "config.yaml"
    before = record.read_bytes()
    with pytest.raises(InputError) as error:
        Trainer(settings(tmp_path, override), open_job)
    message = str(error.value)
    assert named in message and str(record) in message and "\n" not in message
    assert record.read_bytes() == before


def test_few_of_many_differences_are_named(tmp_path):
    run = begin(tmp_path)
    changes = ["optim.lr=1", "optim.eps=1", "optim.end_lr=1", "train.seed=3", f"data.train={'long' * 1000}.csv"]
    with pytest.raises(InputError, match="; and 2 more") as error:
        check_record(run, settings(tmp_path, *changes))
    assert len(str(error.value)) < 700


def test_one_source_of_several_is_named(tmp_path):
    run = begin(tmp_path, data={"train": [{"path": "a.csv", "weight": 1}, {"path": "b.csv", "weight": 1}]})
    with pytest.raises(InputError, match=r"data.train\[1\].weight was 1, now 2"):
        check_record(run, settings(tmp_path, "data.train=[{path: a.csv, weight: 1}, {path: b.csv, weight: 2}]"))


def test_the_documented_list_may_change(tmp_path):
    run = begin(tmp_path, "optim.schedule=constant")
    output = ["log_every=3", "save_every=3", "keep_last=9", "val_every=7", "val_images=0", "profile=[1, 2]"]
    rest = ["device.target=CPU", "device.jit_level=O1", "data.num_workers=0", "data.max_bad_share=0.5"]
    free = [*(f"output.{change}" for change in output), f"output.dir={tmp_path / 'moved'}", *rest]
    free += ["train.max_steps=20", "train.epochs=3", "train.recompute=true"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_record(run, settings(tmp_path, "optim.schedule=constant", *free))
    assert all(may_change(override.partition("=")[0]) for override in free)
    page = (Path(__file__).parents[2] / "docs" / "train.md").read_text(encoding="utf-8")
    assert all(f"`{pattern}`" in page for pattern in MAY_CHANGE)


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.batch_size=4", "train.accumulate_steps=2"],  # the same batch in more parts
        ["data.train={path: a.csv}"],
        ["data.train=[a.csv]"],
        ["data.train=[{path: a.csv, label_prefix: ''}]"],
        ["optim.lr=1e-3"],
    ],
)
def test_the_same_settings_in_other_words(tmp_path, overrides):
    check_record(begin(tmp_path), settings(tmp_path, *overrides))


def test_a_longer_cosine_is_said(tmp_path):
    run = begin(tmp_path)
    with pytest.warns(UserWarning, match="train.max_steps was 10, now 20: the cosine"):
        check_record(run, settings(tmp_path, "train.max_steps=20"))


def test_records_of_earlier_versions(tmp_path):
    run = begin(tmp_path)
    stored = yaml.safe_load((run / "config.yaml").read_text())
    del stored["optim"]["layer_decay"], stored["data"]["random_crop"]  # settings that came later
    (run / "config.yaml").write_text(yaml.safe_dump({**stored, **OF_992461E}))
    check_record(run, settings(tmp_path))
    with pytest.raises(InputError, match=r"optim.layer_decay was 1\.0, now 0\.5"):
        check_record(run, settings(tmp_path, "optim.layer_decay=0.5"))
    (run / "config.yaml").write_text(yaml.safe_dump({**stored, "task": "nlvr2"}))
    with pytest.raises(InputError, match='task was "nlvr2", now "coca"'):
        check_record(run, settings(tmp_path))


def test_a_task_s_head_is_compared(tmp_path):
    task = {"task": "classification"}
    run = begin(tmp_path, **task)
    check_record(run, settings(tmp_path, "output.log_every=2", **task))
    with pytest.raises(InputError, match=r"head.label_smoothing was 0\.0, now 0\.1"):
        check_record(run, settings(tmp_path, "head.label_smoothing=0.1", **task))


def test_a_record_that_is_gone_is_said(tmp_path):
    run = begin(tmp_path)
    (run / "config.yaml").unlink()
    with pytest.warns(UserWarning, match="is gone"):
        check_record(run, settings(tmp_path, "optim.lr=1"))


def test_resume_never_keeps_out_of_the_folder(tmp_path):
    begin(tmp_path)
    with pytest.raises(InputError, match="holds the checkpoints of another run"):
        Trainer(settings(tmp_path, "output.resume=never"), open_job)


@pytest.mark.parametrize(
    ("product", "chosen"), [("A2", "bf16"), ("A3", "bf16"), ("910A", "fp16"), ("CPU", "fp32"), ("GPU", "fp32")]
)
def test_precision_auto_is_the_device_s(tmp_path, monkeypatch, product, chosen):
    monkeypatch.setattr(device, "product", lambda: product)
    given = settings(tmp_path, "train.precision=auto")
    assert with_precision(given, tmp_path / "run").train.precision == chosen and given.train.precision == "auto"
    assert with_precision(settings(tmp_path), tmp_path / "run").train.precision == "fp32"


def test_a_run_that_goes_on_keeps_its_precision(tmp_path):
    """As one of a recipe that said fp16 before it said auto."""
    run = begin(tmp_path, "train.precision=fp16")
    given = settings(tmp_path, "train.precision=auto")
    check_record(run, given)
    assert with_precision(given, run).train.precision == "fp16"
    with pytest.raises(InputError, match=re.escape('train.precision was "fp16", now "fp32"')):
        check_record(run, settings(tmp_path, "train.precision=fp32"))


@pytest.mark.parametrize("recipe", ["pretrain", "finetune_captioning", "finetune_contrastive"])
def test_the_recipes_leave_the_precision_to_the_device(recipe):
    assert load_train_config(recipe).train.precision == "auto"
