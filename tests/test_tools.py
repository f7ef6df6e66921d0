"""Tools and programs that write say what, where and how much, and while they are at it that they are."""

import io
import json
import re
import sys
import time
from pathlib import Path

import mindspore as ms
import pytest

from examples.digits import make_digits
from mindone_coca import create_model, progress, waiting
from mindone_coca.cli import common, export
from mindone_coca.factory import save_model
from mindone_coca.weights.load import parameter_entries
from tests.models import make_config, one_layer
from tools import make_mindrecord

sys.path.insert(0, str(Path(__file__).parents[1] / "examples/demo"))
sys.path.insert(0, str(Path(__file__).parents[1] / "examples/digits"))

import make_demo_data
import make_digit_tasks


def said(capsys, code: int) -> list[str]:
    printed = capsys.readouterr()
    assert code == 0 and printed.out == "", printed
    return printed.err.splitlines()


def test_tools_say_what_they_wrote(tmp_path, capsys):
    digits = tmp_path / "digits"
    [line] = said(capsys, make_digits.main([str(digits), "--limit", "200"]))
    assert line.startswith(f"wrote train.csv of 160 scans and val.csv of 40 scans to {digits}: 202 files, ")

    lines = said(capsys, make_digit_tasks.main([str(tmp_path), "--tasks", "vqa", "nlvr2", "--count", "10"]))
    start = "wrote train.csv of 10 rows and val.csv of 2 to"
    assert [line.rpartition(" ")[0] + " " for line in lines] == [
        f"{start} {tmp_path / 'vqa'}: 14 files, ",
        f"{start} {tmp_path / 'nlvr2'}: 26 files, ",  # two pictures a row
    ]

    for shards, files in ((1, 2), (2, 4)):  # each with its index
        target = tmp_path / f"{shards}.mindrecord"
        code = make_mindrecord.main([str(digits / "train.csv"), str(target), "--shards", str(shards)])
        [line] = said(capsys, code)
        assert re.fullmatch(rf"wrote 160 samples to {re.escape(str(target))}: {files} files, [\d.]+[kM]B", line)

    counts = ("--train", "3", "--single", "2", "--held_out", "1", "--videos", "1", "--workers", "1")
    [line] = said(capsys, make_demo_data.main(["--target", str(tmp_path / "demo"), *counts]))
    assert line.startswith(f"wrote 3 and 2 training images, 1 held out, 1 videos to {tmp_path / 'demo'}: 8 files, ")


def test_export_says_what_it_wrote(tmp_path, monkeypatch, capsys):
    """And of several batch sizes it writes a folder for each."""
    monkeypatch.setattr(waiting, "PATIENCE", 0.02)

    def write(*_, file_name, file_format):
        time.sleep(0.1)
        Path(f"{file_name}.mindir").write_bytes(bytes(1_000_000))

    monkeypatch.setattr(ms, "export", write)
    model = create_model(one_layer(make_config()))
    save_model(tmp_path / "coca.ckpt", model.config, parameter_entries(model))
    target = tmp_path / "mindir"
    arguments = ["--model_path", str(tmp_path / "coca.ckpt"), "--target", str(target), "--cache_length", "8"]
    lines = said(capsys, export.main(arguments))
    names = ("image_encoder", "text_encoder", "decode_step")
    assert [line for line in lines if line.startswith("exporting")] == [f"exporting {name}" for name in names]
    assert lines[-1] == f"wrote three graphs and their manifest to {target}: 6 files, 3.00MB"
    arguments[3] = str(tmp_path / "several")
    lines = said(capsys, export.main([*arguments, "--batch_size", "8", "1", "8"]))
    assert lines[-1].startswith(f"wrote three graphs and their manifest, for batches of each of 2 sizes, to {tmp_path}")
    for size in (1, 8):
        manifest = json.loads((tmp_path / "several" / f"batch_{size}" / "manifest.json").read_text())
        assert manifest["graphs"]["image_encoder"]["inputs"][0]["shape"][0] == manifest["batch_size"] == size
    assert len(list((tmp_path / "several").iterdir())) == 2


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_a_bar_or_a_line(terminal, monkeypatch):
    monkeypatch.setattr(waiting, "PATIENCE", 0.02)
    monkeypatch.setattr(progress, "_DELAY", 0.0)
    waiting.show()
    stream = io.StringIO()
    stream.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", stream)
    for number in common.with_progress(range(3), 3, "writing them"):
        time.sleep(0.2 * (number == 0))
    printed = stream.getvalue()
    assert ("1/3" in printed) == terminal and (printed == "writing them\n") == (not terminal)
