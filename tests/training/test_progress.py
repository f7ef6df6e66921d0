"""What a run says on a terminal and elsewhere."""

import io
import json
import os
import sys

import pytest
from matplotlib.figure import Figure

from mindone_coca.errors import InputError
from mindone_coca.training.curves import draw_curves
from mindone_coca.training.progress import LeftOut, Metrics, Progress, read_metrics

VALUES = {"loss": 1.5, "contrastive_loss": 0.5, "caption_loss": 0.5, "lr": 1e-3, "samples_per_s": 12.0, "epoch": 0}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def show(monkeypatch, stream: io.StringIO) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    progress = Progress(2, 10)
    for step in (3, 4):
        progress.update()
        progress.show(step, VALUES)
    progress.say("validation at step 4")
    progress.close()
    return stream.getvalue()


def test_a_bar_on_a_terminal(monkeypatch):
    shown = show(monkeypatch, Terminal())
    last = shown.replace("\r", "\n").rstrip().splitlines()[-1]
    assert "4/10" in last and "loss 1.5000" in last and "lr 1.00e-03" in last and "samples/s 12.0" in last
    assert "validation at step 4\n" in shown


def test_plain_lines_elsewhere(monkeypatch):
    lines = show(monkeypatch, io.StringIO()).splitlines()
    assert len(lines) == 3 and "\r" not in "".join(lines)
    assert lines[0].startswith("step 3/10  loss 1.5000  contrastive_loss 0.5000") and "left 00:0" in lines[0]
    assert lines[2] == "validation at step 4"


@pytest.mark.parametrize(
    ("step", "scale", "updated", "said"),
    [
        (6, 1024.0, True, None),
        (6, 2048.0, True, None),  # grown after many good steps
        (6, 512.0, False, "step 6 left out: float16 overflowed; the loss scale is 512 now"),
        (6, 512.0, True, "1 of the steps 4 to 6 left out"),
        (6, 128.0, False, "3 of the steps 4 to 6 left out"),
        (4, 512.0, True, "step 4 left out"),
        (6, 1024.0, False, "step 6 left out"),  # it had grown in between
        (6, 0.0, False, "step 6 left out: float16 overflowed; the loss scale is 0 now; the model itself"),
    ],
)
def test_left_out_updates_are_said_once(step, scale, updated, said):
    left_out = LeftOut(3, 1024.0)
    line = left_out.line(step, scale, updated)
    assert (line is None) if said is None else line.startswith(said)
    assert left_out.line(step + 1, scale, True) is None


def test_what_is_not_finite_is_null(tmp_path, caplog):
    metrics = Metrics(tmp_path, 0)
    values = [{"loss": 2.0, "grad_norm": float("inf")}, {"loss": float("nan"), "grad_norm": 1.0}, {"loss": 1.0}]
    for step, value in enumerate(values, 1):
        metrics.write(step, "train", value)
    metrics.close()
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(name))
    assert [record["loss"] for record in read_metrics(tmp_path / "metrics.jsonl")] == [2.0, None, 1.0]
    assert "NaN or Inf" not in caplog.text
    assert draw_curves(tmp_path).exists()


def test_a_bar_keeps_its_width_in_120_columns(monkeypatch):
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((120, 40)))
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    progress = Progress(880, 8800)
    progress.show(880, {**VALUES, "samples_per_s": 100.0})
    progress.close()
    line = max(stream.getvalue().split("\r"), key=len)
    assert "samples/s 100.0" in line and line.count("|") == 2 and len(line.split("|")[1]) == 12
    assert len(line) <= 120


def test_small_values_can_be_read_beside_the_first_ones(tmp_path, monkeypatch):
    """A curve that falls from 20 to 2 in the first tenth, then to 1.9: that is not flat in the picture."""
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: figures.append(figure) or save(figure, *a, **k))
    losses = [20.0, 8.0, *(1.9 + 0.5 * 0.5**n for n in range(18))]
    lines = [
        {"step": n, "kind": "train", "loss": loss, "caption_loss": loss / 1000, "contrastive_loss": 0.0, "lr": loss}
        for n, loss in enumerate(losses)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    draw_curves(tmp_path)
    scales = {axes.get_title(): axes.get_yscale() for axes in figures[0].axes}
    assert scales == {"loss": "log", "caption loss": "log", "contrastive loss": "linear", "lr": "linear"}
    loss = figures[0].axes[0]
    heights = [loss.transData.transform((0, value))[1] for value in (20.0, 2.4, 1.9)]
    assert (heights[1] - heights[2]) / (heights[0] - heights[2]) > 0.08  # 0.03 on a linear scale
    labels = [text.get_text() for text in figures[0].axes[1].get_yticklabels() if text.get_text()]
    assert "0.01" in labels
    with pytest.raises(InputError, match=r"c.txt: a picture's name ends in"):
        draw_curves(tmp_path, tmp_path / "c.txt")
