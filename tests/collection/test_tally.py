"""What a run over several machines says of itself."""

import re

from mindone_coca import progress
from mindone_coca.collection.tally import Tally
from mindone_coca.collection.work import Done
from mindone_coca.progress import Progress


def done(node: str, captions: list[int], busy: float = 0.0) -> Done:
    """A group of files with so many captions each; -1: it failed."""
    records: list[dict] = [
        {"path": f"{node}{number}", "error": "bad" if count < 0 else None, "segments": [{}] * max(count, 0)}
        for number, count in enumerate(captions)
    ]
    return Done(records, (), node, busy, busy / 4)


def test_files_and_captions_of_each_machine_idle_share_and_failures():
    tally = Tally()
    for one in (done("b", [3, 1], 4), Done([]), done("a", [2, -1, 2], 8), done("b", [1], 4)):
        tally.add(one)
    assert tally.brief(2.0, 20.0) == "3.0 files/s, idle 20 %, 1 failed"
    machines = "a: 1.50 files/s, 2.00 captions/s; b: 1.50 files/s, 2.50 captions/s"
    assert tally.line(2.0, 20.0) == f"3.0 files/s, idle 20 %, 1 failed; {machines}"
    assert tally.summary(2.0, 20.0) == (
        "6 files, 9 captions, 1 failed; 2.0 s, 3.00 files/s; device idle 20 %, waiting for frames 20 %; " + machines
    )


def test_only_what_was_to_be_done_counts_and_one_process_names_no_machine():
    tally = Tally({"0", "2"})
    assert [record["path"] for record in tally.add(done("", [1, 5, -1]))] == ["0", "2"]
    assert (tally.files, tally.captions, tally.failed) == (2, 1, 1)
    assert tally.line(1.0, 1.0) == tally.brief(1.0, 1.0)


def test_the_line_now_and_then_has_it(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS", 0)
    with Progress(4, "captioning", "files") as shown:
        shown.update(1, "3.0 files/s; a: 1.00 files/s", "3.0 files/s")
    assert re.fullmatch(
        r"captioning 1/4 files  3\.0 files/s; a: 1\.00 files/s  left \d\d:\d\d\n", capsys.readouterr().err
    )
