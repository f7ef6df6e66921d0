"""What a run says on a terminal and elsewhere."""

import io
import sys

from mindone_coca.training.progress import Progress

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
    assert "4/10" in last and "loss 1.5000" in last and "lr 1.00e-03" in last and "samples_per_s 12.0" in last
    assert "validation at step 4\n" in shown


def test_plain_lines_elsewhere(monkeypatch):
    lines = show(monkeypatch, io.StringIO()).splitlines()
    assert len(lines) == 3 and "\r" not in "".join(lines)
    assert lines[0].startswith("step 3/10  loss 1.5000  contrastive_loss 0.5000") and "left 00:0" in lines[0]
    assert lines[2] == "validation at step 4"
