"""Whole runs of train.py on a few digits: what they write, and how they end when something is wrong."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import mindone_coca
import train as program
from mindone_coca.factory import create_model, find_config_and_weights
from mindone_coca.preprocess.tokenizer import Tokenizer
from mindone_coca.training.curves import draw_curves
from mindone_coca.training.progress import read_metrics
from tests.models import relative_difference
from tests.training.runs import read_weights, start_training, train, train_here, write_config

PAGES = Path(mindone_coca.__file__).parent / "outputs"


@pytest.mark.graphs
def test_a_run_and_what_it_leaves(tmp_path):
    config = write_config(tmp_path)
    val = tmp_path / "digits" / "val.csv"
    printed = train(
        config,
        f"data.val={val}",
        "output.val_every=5",
        "output.save_every=4",
        "train.ema_decay=0.5",
        "train.recompute=true",
        "train.grad_clip_norm=1",
        "train.freeze=['text.*']",
        "optim.layer_decay=0.5",
    )
    run = tmp_path / "run"
    assert "step 10/10" in printed and "validation at step 5" in printed
    total = sum(value.size for value in read_weights(tmp_path / "run" / "final.safetensors").values())
    assert f"model: {tmp_path / 'tiny.yaml'}, fresh weights; {total:,} parameters, " in printed
    assert "of them trained; fp32 on CPU\n" in printed
    assert "data: 96 samples for training, 24 for validation\n" in printed
    assert f"{tmp_path / 'run'}: begins at step 0 of 10\n" in printed
    records = read_metrics(run / "metrics.jsonl")
    assert [r["step"] for r in records if r["kind"] == "train"] == list(range(1, 11))
    assert [r["step"] for r in records if r["kind"] == "val"] == [5, 10]
    assert records[-1]["loss"] < records[0]["loss"]
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == [
        "step_00000008.safetensors",
        "step_00000010.safetensors",
    ]
    assert Image.open(run / "curves.png").size[0] > 1000
    events = b"".join(p.read_bytes() for p in (run / "tensorboard").iterdir())
    assert b"train/caption_loss" in events and b"val/contrastive_loss" in events
    page = (run / "validation" / "step_00000010.html").read_text()
    assert page.count("<article") == 8 and "a handwritten" in page
    assert "<h1>Validation at step 10</h1>" in page and (PAGES / "page.css").read_text() in page
    assert not re.search(r'(src|href)="http', page)

    # the exported weights are the moving averages, and inference finds them
    loaded, path = find_config_and_weights(run / "final.yaml", None)
    model = create_model(loaded, path)
    state = read_weights(run / "checkpoints" / "step_00000010.safetensors")
    name = "visual.proj"
    np.testing.assert_array_equal(dict(model.parameters_and_names())[name].asnumpy(), state[f"ema.{name}"])
    assert relative_difference(state[name], state[f"ema.{name}"]) > 1e-4
    ids = model.generate(np.zeros((1, 3, 16, 16), np.float32), generation_type="top_k", seq_len=8)
    assert isinstance(Tokenizer().decode(ids.asnumpy()[0]), str)


@pytest.mark.graphs
def test_captions_and_labels_train_together_in_half_precision(tmp_path, capfd):
    config = write_config(tmp_path)
    table = tmp_path / "digits" / "train.csv"
    sources = [
        {"path": str(table), "weight": 1},
        {
            "path": str(table),
            "weight": 1,
            "label_key": "label",
            "label_template": ["the number {}", "a {}"],
            "label_prefix": "label: ",
        },
    ]
    losses = {}
    for precision in ("fp32", "fp16"):
        out = tmp_path / precision
        train_here(config, f"data.train={json.dumps(sources)}", f"train.precision={precision}", f"output.dir={out}")
        printed = capfd.readouterr().err
        records = read_metrics(out / "metrics.jsonl")
        losses[precision] = np.array([r["loss"] for r in records if r["updated"]])
        left_out = [r["step"] for r in records if not r["updated"]]
        assert [step for step in range(1, 11) if f"step {step} left out: float16 overflowed" in printed] == left_out
        assert "NaN or Inf found" not in printed
        assert (np.array([r["updated"] for r in records]) == 1).sum() >= 5
    assert losses["fp32"][-1] < losses["fp32"][0]
    # float16 may leave out its first updates while it looks for a loss scale: compare the first of each
    assert abs(losses["fp16"][0] / losses["fp32"][0] - 1) < 0.02


def snapshot(run: Path) -> dict[str, tuple[int, bytes]]:
    """All files of a run, with the time they were written."""
    files = (path for path in run.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.mark.graphs
def test_longer_epochs_continue_a_finished_run(tmp_path, capfd):
    config = write_config(tmp_path)
    train_here(config, "train.max_steps=null", "train.epochs=1")
    before = snapshot(tmp_path / "run")
    train_here(config, "train.max_steps=null", "train.epochs=1")
    assert "already at step 12 of 12: nothing to do" in capfd.readouterr().err
    changed = ("train.max_steps=null", "train.epochs=2", "optim.lr=1e-2", "train.batch_size=4")
    assert program.main(["-c", str(config), *changed]) == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "optim.lr was 0.001, now 0.01" in errors[0] and "train.batch_size was 8, now 4" in errors[0]
    assert snapshot(tmp_path / "run") == before
    train_here(config, "train.max_steps=null", "train.epochs=2")
    said = capfd.readouterr().err
    assert "the cosine of the learning rate now ends" in said
    assert f"{tmp_path / 'run'}: goes on from step_00000012.safetensors at step 12 of 24\n" in said
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["train"]["epochs"] == 2
    steps = [r["step"] for r in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    assert steps == list(range(1, 25))  # 96 digits in batches of 8, twice


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.train=nowhere.csv", "nowhere.csv"),
        ("model.config=coca_digit", "did you mean 'coca_digits'"),
        ("model.checkpoint=nothing.safetensors", "nothing.safetensors"),
        ("train.freeze=['vision.*']", "matches no parameter"),
        ("train.batch_size=1000", "batch_size"),
        ("output.dir=train.yaml/run", "train.yaml/run: cannot be written"),
        ("train.accumulate_steps=100", "train.accumulate_steps"),
        ("train.precision=bf16", "bfloat16"),
    ],
)
def test_mistakes_end_in_one_line(tmp_path, override, message, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = program.main(["-c", str(write_config(tmp_path)), override])
    output = capfd.readouterr()
    printed = output.out + output.err
    lines = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert code == 2 and len(lines) == 1 and message in lines[0], printed
    assert "Traceback" not in printed


@pytest.mark.graphs
def test_another_model_s_checkpoint_is_refused(tmp_path):
    config = write_config(tmp_path)
    train_here(config, "train.max_steps=1")
    tiny = yaml.safe_load((tmp_path / "tiny.yaml").read_text())
    tiny["vision_cfg"]["layers"] = 2
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    process = start_training(config, "train.max_steps=2")
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 2 and "not a checkpoint of this config" in printed
    assert printed.count("error: ") == 1 and "Traceback" not in printed  # in a whole process too


def test_curves_of_nothing_are_refused(tmp_path):
    from mindone_coca.errors import InputError

    with pytest.raises(InputError, match="no such file"):
        draw_curves(tmp_path)
