"""What long work says while it goes: a bar on a terminal, plain lines now and then elsewhere."""

import io
import sys

import pytest

from mindone_coca import progress
from mindone_coca.progress import Progress, say


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when the test says so."""
    seconds = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: seconds[0])
    return seconds


def test_plain_lines_now_and_then(monkeypatch, clock):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress(200, "captioning", "files") as shown:
        for _ in range(200):
            clock[0] += 0.5
            shown.update()
    say("200 files")
    assert stream.getvalue().splitlines() == [
        "captioning 60/200 files  left 01:10",
        "captioning 120/200 files  left 00:40",
        "captioning 180/200 files  left 00:10",
        "200 files",
    ]


def test_short_work_says_nothing(monkeypatch, clock):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    assert list(progress.progress(range(5), 5, "encoding", "images")) == [0, 1, 2, 3, 4]
    assert stream.getvalue() == ""


def test_bytes(monkeypatch, clock):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress(2_500_000_000, "converting", "B") as shown:
        clock[0] += 31
        shown.update(1_200_000_000)
    assert stream.getvalue() == "converting 1.20GB/2.50GB  left 00:33\n"


def test_a_bar_that_goes_before_the_summary(monkeypatch):
    monkeypatch.setattr(progress, "_DELAY", 0)
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress(40, "captioning", "files") as shown:
        shown.update(10)
        say("error: x.png: cannot be read")
        shown.update(10)
        shown.show()
    say("40 files")
    text = stream.getvalue()
    assert "captioning 20/40 files  50%|######      | left" in text
    assert "\rerror: x.png: cannot be read\n" in text  # what stood there was wiped out
    assert text.endswith("\r40 files\n") or text.splitlines()[-1].rpartition("\r")[2] == "40 files"
