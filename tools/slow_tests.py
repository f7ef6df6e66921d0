#!/usr/bin/env python
"""Run the slow tests, the full figures, one after another, and print a table of what they gave.

    python tools/slow_tests.py [--again] [--only WORDS] [--since COMMIT] [--report FILE.md]

What has passed is kept in .test-slow.jsonl, and what tests share, such as a model that one trains and others measure,
in .test-slow/; neither is made again for the same sources: stop the command at any moment and start it again. With
--since what passed at that commit or a later one counts too, so that the whole can be run in pieces over several days;
the table names the commit of each. Exit code: 0 all passed or were skipped, 1 some failed, 2 bad usage.
"""

import datetime
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mindone_coca.cli.common import Parser
from tools.pytest_runs import run_pytest

ROOT = Path(__file__).resolve().parents[1]
STATE = ROOT / ".test-slow.jsonl"
SHARED = ROOT / ".test-slow"  # a folder for each state of the sources
COMMIT = 12  # digits by which a commit is named
FIGURES = 300  # characters of a test's last lines that the table shows

Result = dict[str, Any]  # sources, date, test, result, seconds, figures


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def describe_sources() -> str:
    """The commit, and where files differ from it a hash of the differences."""
    commit = git("rev-parse", "HEAD")[:COMMIT]
    changes = git("diff", "HEAD")
    for name in git("ls-files", "--others", "--exclude-standard").splitlines():
        changes += f"{name}\n{hashlib.sha256((ROOT / name).read_bytes()).hexdigest()}\n"
    return f"{commit}+{hashlib.sha256(changes.encode()).hexdigest()[:8]}" if changes else commit


def collect(words: str | None) -> list[str]:
    """The node ids of all slow tests, or of those that pytest's -k chooses by these words."""
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "--collect-only", "-q", "-m", "slow"]
    done = subprocess.run(
        [*command, *(["-k", words] if words else [])], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 5):  # 5: none chosen
        sys.exit(f"pytest cannot collect the tests:\n{done.stdout}{done.stderr}")
    return [line for line in done.stdout.splitlines() if "::" in line]


def commits_since(commit: str) -> set[str]:
    """Short names of a commit and of what followed it up to HEAD."""
    ends = [git("rev-parse", "--verify", f"{name}^{{commit}}").strip() for name in (commit, "HEAD")]
    later = git("rev-list", "--ancestry-path", f"{ends[0]}..{ends[1]}").split()
    return {name[:COMMIT] for name in (ends[0], *later)}


def read_state(path: Path, sources: set[str]) -> dict[str, Result]:
    """The newest result of each test with these sources; a line that was cut off is left out."""
    results: dict[str, Result] = {}
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            result = json.loads(line)
        except ValueError:
            continue
        if result["sources"] in sources:
            results[result["test"]] = result
    return results


def run_one(test: str, sources: str) -> Result:
    shared = {"MINDONE_COCA_SLOW_WORK": str(SHARED / sources)}
    run = run_pytest(ROOT, [test], "-m", "slow", environment=shared)
    if run.outcomes:
        [outcome] = run.outcomes
        result, seconds, printed = outcome.result, outcome.seconds, outcome.printed
    else:
        result, seconds, printed = "error", 0.0, ""
    if result in ("failed", "error"):
        print(run.output[-5000:], flush=True)
    found = {"sources": sources, "date": str(datetime.date.today()), "test": test, "result": result}
    return {**found, "seconds": round(seconds, 1), "figures": figures(printed)}


def figures(printed: str) -> str:
    """The last lines that a test printed, as many as there is room for, without pytest's headings of what it caught."""
    lines = [line.strip() for line in printed.splitlines() if line.strip() and not line.startswith("---")]
    while len(lines) > 1 and len("; ".join(lines)) > FIGURES:
        del lines[0]
    return textwrap.shorten("; ".join(lines), FIGURES, placeholder=" ...")


def without_places(text: str) -> str:
    """A text without this machine's name and its folder for temporary files: the table is for others."""
    text = re.sub(rf"{re.escape(tempfile.gettempdir())}/[^\s;]*/", "", text)
    return re.sub(rf"\b{re.escape(platform.node())}/", "node ", text) if platform.node() else text


def table(results: Iterable[Result]) -> str:
    lines = ["| test | result | seconds | date | commit | figures it printed |", "|---|---|---|---|---|---|"]
    for result in results:
        when = f"{result['seconds']:.1f}", result["date"], result["sources"]
        cells = (result["test"], result["result"], *when, without_places(result["figures"]))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def machine() -> str:
    names = [line.split(":")[1] for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = [int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")]
    size = f", {memory[0] / 2**20:.0f} GiB" if memory else ""
    return f"{os.cpu_count()} x {names[0].strip() if names else platform.machine()}{size}, {platform.system()}"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).is_file() else []


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__)
    parser.add_argument("--again", action="store_true", help="run what has passed too")
    parser.add_argument("--only", metavar="WORDS", help="tests that match, as pytest's -k")
    parser.add_argument("--since", metavar="COMMIT", help="what passed at this commit or a later one counts too")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the table as Markdown too")
    arguments = parser.parse_args(argv)

    sources = describe_sources()
    tests = collect(arguments.only)
    accepted = {sources}
    if arguments.since:
        try:
            accepted |= commits_since(arguments.since)
        except subprocess.CalledProcessError:
            parser.error(f"--since: {arguments.since} is no commit of this repository")
    done = read_state(STATE, accepted)
    for folder in SHARED.glob("*"):
        if arguments.again or folder.name != sources:
            shutil.rmtree(folder)
    for number, test in enumerate(tests, 1):
        if not arguments.again and done.get(test, {}).get("result") == "passed":
            continue
        print(f"{number} of {len(tests)}: {test}", flush=True)
        done[test] = run_one(test, sources)
        print(f"    {done[test]['result']} after {done[test]['seconds']:.0f} s {done[test]['figures']}", flush=True)
        with open(STATE, "a", encoding="utf-8") as file:
            file.write(json.dumps(done[test]) + "\n")
    results = [done[test] for test in tests]
    print(table(results))
    bad = sum(result["result"] in ("failed", "error") for result in results)
    print(f"{len(results)} slow tests at {sources}, {bad} failed")
    if arguments.report:
        head = f"# The slow tests\n\n{datetime.date.today()}, commit {sources}, {machine()}.\n\n"
        arguments.report.write_text(head + table(results) + "\n", encoding="utf-8")
    return 1 if bad else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # the tests, which are processes of their own, got it too
        print("stopped", file=sys.stderr)
        sys.exit(130)
