"""Two processes train a task as one does, and float16 trains too."""

import pytest

from mindone_coca.training.progress import read_metrics
from tests.models import relative_difference
from tests.tasks.runs import write_config, write_data
from tests.training.runs import read_weights, train


@pytest.mark.slow
def test_two_processes_give_one_process_s_weights(tmp_path):
    write_data(tmp_path)
    sections = {
        "data": {"random_crop": False},
        "head": {"frozen": False},
        "optim": {"lr": 1e-4, "schedule": "constant"},
    }
    train(write_config(tmp_path, "one", train={"batch_size": 8, "max_steps": 6}, **sections))
    train(
        write_config(tmp_path, "two", train={"batch_size": 2, "accumulate_steps": 2, "max_steps": 6}, **sections),
        workers=2,
    )
    one, two = (read_weights(tmp_path / name / "final.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    # biases of keys have no effect and no gradient but rounding, which Adam makes steps of
    worst = {name: relative_difference(two[name], one[name]) for name in one if not name.endswith("in_proj_bias")}
    assert max(worst.values()) < 1e-5, max(worst.items(), key=lambda item: item[1])
    val = [read_metrics(tmp_path / name / "metrics.jsonl")[-1] for name in ("one", "two")]
    assert val[0]["accuracy"] == pytest.approx(val[1]["accuracy"], abs=1e-6)
    assert val[0]["loss"] == pytest.approx(val[1]["loss"], rel=1e-5)


@pytest.mark.slow
def test_half_precision(tmp_path):
    write_data(tmp_path)
    records = {}
    for precision in ("fp32", "fp16"):
        train(write_config(tmp_path, precision, "entailment", train={"precision": precision}))
        records[precision] = [r for r in read_metrics(tmp_path / precision / "metrics.jsonl") if r["kind"] == "train"]
    assert sum(record["updated"] for record in records["fp16"]) >= 6
    # of the first step, before any update; the scale of fp16 begins so high that it is left out
    assert records["fp16"][0]["step"] == records["fp32"][0]["step"] == 1
    assert records["fp16"][0]["loss"] == pytest.approx(records["fp32"][0]["loss"], rel=0.02)
