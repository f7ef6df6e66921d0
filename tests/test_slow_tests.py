"""The command that runs the slow tests one after another, in a repository of two of them."""

import platform
import subprocess
import tempfile
from pathlib import Path

import pytest

from tools import slow_tests

TESTS = """
import pathlib, pytest

@pytest.mark.slow
def test_right():
    print("97.5 % right")

@pytest.mark.slow
def test_mended_later():
    assert pathlib.Path("mended").exists()
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_two.py").write_text(TESTS)
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\nmarkers = ['slow: full figures']\n")
    (tmp_path / ".gitignore").write_text(".test-slow.jsonl\n__pycache__\n.pytest_cache\n")
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    monkeypatch.setattr(slow_tests, "ROOT", tmp_path)
    monkeypatch.setattr(slow_tests, "STATE", tmp_path / ".test-slow.jsonl")
    monkeypatch.setattr(slow_tests, "SHARED", tmp_path / ".test-slow")
    return tmp_path


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x@x", *arguments], cwd=folder, check=True)


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "x")


@pytest.mark.graphs
def test_what_passed_is_not_run_again(repository: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert slow_tests.main([]) == 1
    first = capfd.readouterr().out
    assert "| tests/test_two.py::test_right | passed |" in first and "97.5 % right" in first
    assert "| tests/test_two.py::test_mended_later | failed |" in first

    (repository / "mended").touch()
    commit(repository)
    report = repository / "report.md"
    assert slow_tests.main(["--since", "HEAD~1", "--report", str(report)]) == 0
    again = capfd.readouterr().out
    assert "of 2: tests/test_two.py::test_right" not in again  # it passed a commit earlier
    assert "of 2: tests/test_two.py::test_mended_later" in again
    commits = {line.split("|")[5].strip() for line in report.read_text().splitlines() if "::" in line}
    assert len(commits) == 2

    assert slow_tests.main(["--only", "right"]) == 0  # other sources than the newest commit's count for nothing
    assert "1 of 1: tests/test_two.py::test_right" in capfd.readouterr().out


def test_a_commit_that_is_none(repository: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        slow_tests.main(["--since", "nowhere"])
    assert error.value.code == 2 and "--since: nowhere is no commit" in capfd.readouterr().err


def test_the_last_lines_that_there_is_room_for() -> None:
    lines = [f"line {number}: {'x' * 80}" for number in range(9)]
    assert slow_tests.figures("\n".join(["---- Captured stdout call ----", *lines])) == "; ".join(lines[-3:])
    long = slow_tests.figures("word " * 100)
    assert len(long) <= slow_tests.FIGURES and long.endswith("word ...")


def test_the_table_names_no_place_of_this_machine() -> None:
    written = f"{tempfile.gettempdir()}/pytest-of-x/pytest-1/model0/coca.ckpt"
    text = f"wrote {written}: 79 entries; {platform.node()}/3aa512: 4 files/s"
    assert slow_tests.without_places(text) == "wrote coca.ckpt: 79 entries; node 3aa512: 4 files/s"
