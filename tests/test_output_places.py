"""Results that cannot be written: refused in one line before the work, and in one line when the disk fills up later."""

import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from PIL import Image

import evaluate
import inference
import train
from mindone_coca.cli import convert, export
from mindone_coca.collection.journal import Journal
from mindone_coca.collection.plan import Shard
from mindone_coca.errors import OutputError
from mindone_coca.training.progress import Metrics
from tests.training.runs import TINY, write_config

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
sys.path.insert(0, str(Path(__file__).parents[1] / "examples/demo"))
sys.path.insert(0, str(Path(__file__).parents[1] / "examples/digits"))

import make_demo_data
import make_digit_tasks
import make_digits
import make_mindrecord
import make_random_model

WEIGHTS = Path(__file__).parents[1] / "models" / "coca_tiny.safetensors"
Program = Callable[[list[str]], int]


def options(folder: Path) -> dict[str, tuple[Program, list[str]]]:
    """Each program with arguments that only lack the place for its results."""
    Image.new("RGB", (48, 48)).save(folder / "a.png")
    (folder / "rows.csv").write_text("filepath,title,label\na.png,a thing,thing\n")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    model, rows = ["--model_path", str(WEIGHTS)], str(folder / "rows.csv")
    task = ["classification", "-c", str(WEIGHTS.with_suffix(".yaml")), "--data", rows, "--output_dir"]
    return {
        "inference": (inference.main, [*model, "--video_path", str(folder / "a.png"), "--output_dir"]),
        "evaluate": (evaluate.main, ["captioning", *model, "--data", rows, "--output_dir"]),
        "evaluate a task": (evaluate.main, task),
        "train": (train.main, ["-c", str(write_config(folder))]),
        "convert": (convert.main, ["--source", str(WEIGHTS), "--target"]),
        "export": (export.main, [*model, "--target"]),
        "make_digits": (make_digits.main, ["--limit", "300"]),
        "make_digit_tasks": (make_digit_tasks.main, []),
        "make_demo_data": (make_demo_data.main, ["--target"]),
        "the demo video": (make_demo_data.main, ["--demo_video"]),
        "make_mindrecord": (make_mindrecord.main, [rows]),
        "make_random_model": (make_random_model.main, ["-c", str(folder / "tiny.yaml"), "--target"]),
    }


FILES = {"the demo video": "x.mp4", "make_mindrecord": "x.mindrecord", "make_random_model": "x.safetensors"}
PROGRAMS = (
    "inference",
    "evaluate",
    "evaluate a task",
    "train",
    "convert",
    "export",
    *("make_digits", "make_digit_tasks", "make_demo_data", "the demo video", "make_mindrecord", "make_random_model"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("places")


@pytest.fixture(scope="module")
def programs(folder) -> dict[str, tuple[Program, list[str]]]:
    return options(folder)


@pytest.fixture
def no_work(monkeypatch) -> None:
    """What takes long fails the test."""

    def work(*_: object, **__: object) -> None:
        pytest.fail("the work was begun")

    for place in (
        "mindone_coca.captioning.captioner.VideoCaptioner",
        "mindone_coca.factory.create_model",
        "mindone_coca.tasks.evaluate.load_task_model",
        "mindone_coca.tasks.job.open_job",
        "mindone_coca.cli.convert.write",
    ):
        monkeypatch.setattr(place, work)
    monkeypatch.setattr(make_digits, "load_scans", work)
    monkeypatch.setattr(make_digit_tasks, "Scans", work)
    monkeypatch.setattr(make_demo_data, "make_image", work)
    monkeypatch.setattr(make_demo_data, "write_video", work)
    monkeypatch.setattr(make_mindrecord, "write_mindrecord", work)
    monkeypatch.setattr(make_random_model, "create_model", work)


def run(programs, name: str, place: str) -> int:
    main, arguments = programs[name]
    return main([*arguments, f"output.dir={place}" if name == "train" else place])


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("where", ["in a file", "in a folder that takes none"])
def test_a_place_that_cannot_be_written_is_one_line_before_the_work(folder, programs, name, where, no_work, capsys):
    before = sorted(folder.rglob("*"))
    place = str(folder / "a.png" / "out" if where == "in a file" else "/proc/self/out")
    place = f"{place}/{FILES[name]}" if name in FILES else place
    code = run(programs, name, place)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert code == 2 and len(lines) == 1 and lines[0].startswith(f"error: {place}") and "cannot be written" in lines[0]
    assert sorted(folder.rglob("*")) == before


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """Files take no more than so many bytes, as on a disk that is full then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", ["convert", "make_digits", "make_mindrecord", "make_random_model"])
def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing(folder, programs, name, capsys):
    before = sorted(folder.rglob("*"))  # the probe of the place goes well
    target = folder / "new" / FILES.get(name, "out")
    with full_disk(5000):
        code = run(programs, name, str(target))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert code == 2 and len(lines) == 1 and f"{target}" in lines[0] and "cannot be written (" in lines[0]
    assert not [path for path in folder.rglob("*") if path not in before and not path.is_dir()]


def test_a_journal_and_metrics_meet_a_full_disk(tmp_path):
    journal, metrics = Journal(tmp_path / Shard().file), Metrics(tmp_path, 0)
    journal._file = open("/dev/full", "ab", buffering=0)  # noqa: SIM115 closed with the journal
    with pytest.raises(OutputError, match=r"0-of-1.jsonl: cannot be written \(No space left on device\); make room"):
        journal.begin({})
    journal.close()
    metrics.path = Path("/dev/full")
    with pytest.raises(OutputError, match="No space left on device"):
        metrics.write(1, "train", {"loss": 1.0})
    metrics.close()
