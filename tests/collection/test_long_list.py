"""Lists of a million files and more, here of some dozens: worked off by their lines, written in parts."""

import csv
import json
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
from pyarrow import parquet

from mindone_coca.captioning.options import CaptionOptions
from mindone_coca.collection import long_list
from mindone_coca.collection.jobs import Job, Jobs
from mindone_coca.collection.long_list import LineGroup, LongList
from mindone_coca.collection.long_run import LongRun
from mindone_coca.collection.parts import Bits, Parts
from mindone_coca.collection.plan import Shard
from mindone_coca.collection.run import Output, work_of
from mindone_coca.collection.search import best_moments
from mindone_coca.collection.work import Done, Work
from mindone_coca.model.families import load_model_config
from mindone_coca.outputs.schema import Provenance
from tests.collection.test_caption_files import picture, run  # noqa: F401 a fixture
from tests.collection.test_kills import output_files

PART = 16


@pytest.fixture
def short(monkeypatch) -> None:
    """Lists of 40 lines are long, their parts have 16."""
    monkeypatch.setattr(long_list, "LONG", 40)
    for module in ("long_list", "parts"):
        monkeypatch.setattr(f"mindone_coca.collection.{module}.PART_LINES", PART)


@pytest.mark.parametrize("end", ["\n", "", "\r\n"])
@pytest.mark.parametrize("length", [1, 15, 16, 17, 32, 41])
@pytest.mark.parametrize("at_once", [7, 1 << 24])
def test_a_list_is_cut_at_its_lines(short, monkeypatch, tmp_path, end, length, at_once):
    monkeypatch.setattr(long_list, "_READ", at_once)
    lines = [f"süß {number}.mp4" if number % 5 or number == length else "" for number in range(1, length + 1)]
    text = (end or "\n").join(lines) + end
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    listed = LongList(str(path))
    assert (len(listed), listed.parts) == (length, -(-length // PART))
    assert [entry for part in range(listed.parts) for entry in listed.entries(part)] == lines
    groups = [group for part in range(listed.parts) for group in listed.groups(part, 8)]
    found = {line: entry for group in groups for entry, numbers in group.lines.items() for line in numbers}
    assert found == {number: line for number, line in enumerate(lines) if line}
    assert all(len({line // 8 for numbers in group.lines.values() for line in numbers}) == 1 for group in groups)


def test_bits():
    bits = Bits(43)
    bits.set_range(range(16, 32))
    bits.set_range(range(40, 43))
    bits.set(3)
    assert [number for number in range(43) if bits[number]] == [3, *range(16, 32), 40, 41, 42]
    assert bits.count(range(0, 16)) == 1 and bits.count(range(32, 43)) == 3


@pytest.fixture
def listed(tmp_path) -> Path:
    """A list of 45 lines: pictures, one of them twice, one that cannot be read, one that is missing, an empty line."""
    names = [str(picture(tmp_path / "in" / f"{number:02}.png")) for number in range(42)]
    (tmp_path / "in" / "07.png").write_bytes(b"no picture")
    lines = [*names[:20], "", names[3], str(tmp_path / "in" / "missing.png"), *names[20:]]
    path = tmp_path / "list.txt"
    path.write_text("\n".join(lines))
    return path


def test_outputs_in_parts_whatever_the_history(short, listed, run, tmp_path, monkeypatch):  # noqa: F811
    arguments = [listed, "--output_format", "all", "--save_features", "--output_dir"]
    code, _, errors, seen = run(*arguments, tmp_path / "quiet")
    assert code == 1 and len(seen) == 42 and "in all: 44 files, 42 captions, 2 failed" in errors
    quiet = output_files(tmp_path / "quiet")
    names = [f"{kind}/captions_{part}.{kind}" for kind in ("jsonl", "csv") for part in range(3)]
    features = [f"features/img_emb/img_emb_{part}.npy" for part in range(3)]
    assert {*names, *features, "features/model.json"} <= quiet.keys()
    lines = listed.read_text().splitlines()
    rows = [json.loads(line) for part in range(3) for line in quiet[f"jsonl/captions_{part}.jsonl"].splitlines()]
    assert [row["path"] for row in rows] == [line for line in lines if line]  # the one that stands twice, too
    with open(tmp_path / "quiet/csv/captions_1.csv", newline="", encoding="utf-8-sig") as file:
        assert [row["path"] for row in csv.DictReader(file)] == [line for line in lines[16:32] if line]
    table = parquet.read_table(tmp_path / "quiet/features/metadata/metadata_2.parquet")
    assert table["image_path"].to_pylist() == lines[32:]
    assert json.loads(quiet["features/model.json"])["rows"] == 42

    # nothing is done twice, and nothing is left of the journals of parts
    code, _, errors, seen = run(*arguments, tmp_path / "quiet")
    assert (code, seen) == (1, []) and "45 of 45 lines were done before" in errors
    assert [path.name for path in (tmp_path / "quiet/journal").iterdir()] == ["done-0-of-1.jsonl"]

    # stopped in the midst of a part and while its outputs are written, then by shards
    keep, calls = Parts.keep, []

    def stop_at(count: int, at_end: bool):
        def stopping(self, group, records):
            calls.append(group)
            if len(calls) == count and not at_end:
                raise KeyboardInterrupt
            keep(self, group, records)

        return stopping

    out = tmp_path / "out"
    monkeypatch.setattr(Parts, "keep", stop_at(2, False))
    with pytest.raises(KeyboardInterrupt):
        run(*arguments, out)
    assert [path.name for path in sorted((out / "journal").iterdir())] == ["done-0-of-1.jsonl", "part-0.jsonl"]
    monkeypatch.setattr(Parts, "keep", keep)
    write = Parts._finish_if_whole

    def broken(self, part):
        write(self, part)
        if part == 1 and part in self.whole:
            raise KeyboardInterrupt

    monkeypatch.setattr(Parts, "_finish_if_whole", broken)
    with pytest.raises(KeyboardInterrupt):
        run(*arguments, out, "--shard", "1/2")
    monkeypatch.setattr(Parts, "_finish_if_whole", write)
    assert run(*arguments, out, "--shard", "0/2")[0] == 1
    assert run(*arguments, out, "--merge")[:2] == (1, [])
    assert output_files(out) == quiet


def test_a_part_is_whole_with_its_last_line(short, listed, tmp_path):
    long, settings = LongList(str(listed)), {"features": False, "thumbnails": False}
    parts = Parts(tmp_path / "out", long, Shard(), settings, (), ["jsonl"], Provenance("m", {}, "1"))
    [*before, last] = long.groups(1, 1)
    for group in before:
        parts.keep(group, _answers(Job(group)))
        assert not parts.whole and not (tmp_path / "out/jsonl").exists()
    parts.keep(last, _answers(Job(last)))
    parts.close()
    assert parts.whole == {1: {"files": len(before) + 1, "captions": len(before) + 1, "failed": 0}}
    assert len((tmp_path / "out/jsonl/captions_1.jsonl").read_text().splitlines()) == len(before) + 1


def test_a_part_that_was_written_and_not_marked_is_written_again(short, listed, run, tmp_path):  # noqa: F811
    arguments = [listed, "--output_dir"]
    run(*arguments, tmp_path / "quiet")
    run(*arguments, tmp_path / "out")
    index = tmp_path / "out/journal/done-0-of-1.jsonl"
    header, *parts = index.read_bytes().splitlines(keepends=True)
    index.write_bytes(header + parts[0] + parts[1][:9])  # the line of part 1 is torn, that of part 2 not there
    for part in (1, 2):
        (tmp_path / f"out/jsonl/captions_{part}.jsonl").unlink()
    code, _, _, seen = run(*arguments, tmp_path / "out")
    assert code == 1 and len(seen) == 27
    assert output_files(tmp_path / "out") == output_files(tmp_path / "quiet")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--output_format", "html"], "--output_format html: not for 45 files"),
        (["--retry_failed"], "--retry_failed: not for a list as long as"),
        (["--merge"], "3 parts of the list not done"),
    ],
)
def test_what_long_lists_have_not(short, listed, run, tmp_path, more, words):  # noqa: F811
    code, _, errors, seen = run(listed, "--output_dir", tmp_path / "out", *more)
    assert (code, seen) == (2, []) and words in errors


def test_a_list_that_changed_and_too_many_files_at_once(short, listed, run, tmp_path, monkeypatch):  # noqa: F811
    assert run(listed, "--output_dir", tmp_path / "out")[0] == 1
    listed.write_text(listed.read_text() + "\nmore.png")
    code, _, errors, _ = run(listed, "--output_dir", tmp_path / "out")
    assert code == 2 and "was begun with" in errors
    code, _, errors, _ = run(tmp_path / "in", "--output_dir", tmp_path / "other")
    assert code == 2 and "write their paths to a file, one a line" in errors
    monkeypatch.setattr(long_list, "LONG", 1000)
    monkeypatch.setattr("mindone_coca.cli.collections.MANY", 40)
    code, _, errors, _ = run(tmp_path / "in", "--output_dir", tmp_path / "other", "--output_format", "vtt")
    assert code == 2 and "--output_format vtt: below 40 files only" in errors
    assert run(tmp_path / "in", "--output_dir", tmp_path / "other", "--output_format", "all")[0] == 1
    written = {path.name for path in (tmp_path / "other").iterdir()}
    assert written == {"journal", "captions.txt", "captions.json", "captions.jsonl", "captions.csv"}


def test_a_long_list_behind_a_url(short, listed, run, tmp_path, memory, monkeypatch):  # noqa: F811
    monkeypatch.setenv("MINDONE_COCA_CACHE", str(tmp_path / "cache"))
    memory.pipe("/lists/list.txt", listed.read_bytes())
    code, _, errors, seen = run("memory://lists/list.txt", "--output_dir", tmp_path / "out")
    assert code == 1 and len(seen) == 42 and "in all: 44 files, 42 captions, 2 failed" in errors
    header = (tmp_path / "out/journal/done-0-of-1.jsonl").read_text().splitlines()[0]
    assert json.loads(header)["settings"]["list"] == "memory://lists/list.txt"
    memory.pipe("/lists/list.txt", listed.read_bytes()[:-30])
    code, _, errors, _ = run("memory://lists/list.txt", "--output_dir", tmp_path / "out")
    assert code == 2 and "was begun with" in errors


def test_dry_run(short, listed, run, tmp_path):  # noqa: F811
    code, lines, _, seen = run(listed, "--output_dir", tmp_path / "out", "--dry_run")
    assert (code, seen) == (0, []) and not (tmp_path / "out").exists()
    assert lines == ["files\t45", "done before\t0", "groups\t6", "workers\t1"]


def test_a_query_finds_the_same_in_any_parts(tmp_path):
    rng = np.random.default_rng(0)
    features = rng.standard_normal((100, 24)).astype(np.float32)
    features[60] = features[3]  # a tie
    query = rng.standard_normal(24).astype(np.float32)
    import pyarrow

    def write(folder: Path, sizes: list[int]) -> Path:
        start = 0
        for number, size in enumerate(sizes):
            rows = range(start, start + size)
            for name in ("img_emb", "metadata"):
                (folder / name).mkdir(parents=True, exist_ok=True)
            np.save(folder / f"img_emb/img_emb_{number:02}.npy", features[rows.start : rows.stop])
            names = {"image_path": [f"{row}.png" for row in rows], "caption": ["x"] * size}
            times = {name: [0.0] * size for name in ("start", "end")}
            parquet.write_table(pyarrow.table({**names, **times}), folder / f"metadata/metadata_{number:02}.parquet")
            start += size
        return folder

    whole = best_moments(write(tmp_path / "whole", [100]), query, 100)
    for sizes in ([1, 99], [33, 33, 34], [3] * 33 + [1], [7, 0, 93]):
        assert best_moments(write(tmp_path / str(sizes), sizes), query, 100) == whole


class AtOnce:
    """Workers that answer at once, and end the run after so many files."""

    def __init__(self, files: int, seen: Callable[[int], None]) -> None:
        self._files, self._seen = files, seen

    @contextmanager
    def open(self, work: Work) -> Iterator["AtOnce"]:
        yield self

    def run(self, groups: Iterable[LineGroup]) -> Generator[Done, None, None]:
        jobs, files = Jobs(groups), 0
        ready: deque[Job] = deque()
        while files < self._files:
            while len(ready) < 128 and (job := jobs.take(idle=True)) is not None:  # as many as 64 workers have
                ready.append(job)
            job = ready.popleft()
            for group, records in jobs.done(job, _answers(job)):
                yield Done(records, group, "node", 0.1)
            files += len(job.group)
            self._seen(files)
        raise KeyboardInterrupt

    def worker_seconds(self) -> float:
        return 1.0

    def workers(self) -> int:
        return 64


@pytest.mark.slow
def test_ten_million_lines(tmp_path, model_folder, monkeypatch):
    """A driver's memory through a run, the time to plan and the rate, with workers that answer at once."""
    path, count, files = tmp_path / "list.txt", 10_000_000, 1_000_000
    with open(path, "w") as file:
        for start in range(0, count, 100_000):
            file.writelines(f"/data/videos/{n % 1000:03}/clip_{n:08}.mp4\n" for n in range(start, start + 100_000))
    process, memory, begin, planned, used = psutil.Process(), [], time.perf_counter(), 0.0, 0.0

    def seen(done: int) -> None:
        nonlocal planned, used
        if not planned:
            planned, used = time.perf_counter() - begin, time.process_time()
        if done % 100_000 == 0:
            memory.append(process.memory_info().rss)

    monkeypatch.setattr("mindone_coca.collection.journal.file_size", lambda path: 1)
    config = load_model_config(model_folder / "config.yaml")
    output = Output(tmp_path / "out", ["jsonl", "csv"])
    work = work_of(config, model_folder / "coca.safetensors", None, CaptionOptions(batch_size=8), output)
    driver = LongRun(LongList(str(path)), work, output, AtOnce(files, seen), Shard())
    with pytest.raises(KeyboardInterrupt):
        driver.run()
    seconds, used = time.perf_counter() - begin - planned, time.process_time() - used
    print(
        f"{count:,} lines: first answer after {planned:.1f} s; {files:,} files kept at {files / seconds:,.0f} a "
        f"second, {files / used:,.0f} for each second of a core; MiB after each 100,000: "
        f"{', '.join(str(size >> 20) for size in memory)}"
    )
    assert planned < 60 and max(memory) < 1 << 30
    assert memory[-1] - memory[1] < 16 << 20
    os.remove(path)


def _answers(job: Job) -> list[dict]:
    segment = {"start": 0.0, "end": 1.0, "times": [0.5], "caption": "a caption", "score": -1.0}
    return [{"path": path, "size": 1, "error": None, "duration": 1.0, "segments": [segment]} for path in job.group]
