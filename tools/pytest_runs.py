"""Run chosen tests in a process of their own and read what became of each."""

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    """One test: `passed`, `failed`, `error` (in a fixture or an import) or `skipped`, and what it printed."""

    test: str
    result: str
    seconds: float
    printed: str


@dataclass(frozen=True)
class Run:
    """All outcomes of one run of pytest, its exit code and its own words."""

    code: int
    outcomes: tuple[Outcome, ...]
    output: str


def run_pytest(root: Path, tests: Sequence[str], *options: str, environment: Mapping[str, str] | None = None) -> Run:
    """Run tests, given as pytest's node ids, in the tree at `root`; options in its pyproject.toml are left out."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-q", "-o", "junit_logging=system-out"]
        command += [f"--junitxml={report}", *options, *tests]
        variables = {**os.environ, **(environment or {})}
        done = subprocess.run(
            command, cwd=root, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        outcomes = tuple(_read_report(report)) if report.is_file() else ()
    return Run(done.returncode, outcomes, done.stdout)


def _read_report(report: Path) -> list[Outcome]:
    outcomes = []
    for case in ElementTree.parse(report).iter("testcase"):
        tags = {child.tag for child in case}
        found = [result for tag, result in _RESULTS if tag in tags]
        printed = "\n".join(child.text or "" for child in case if child.tag == "system-out")
        name = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"
        outcomes.append(Outcome(name, found[0] if found else "passed", float(case.get("time", 0)), printed.strip()))
    return outcomes


_RESULTS = (("error", "error"), ("failure", "failed"), ("skipped", "skipped"))  # pytest's tags and our words
