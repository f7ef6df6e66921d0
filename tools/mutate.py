#!/usr/bin/env python
"""Show that the tests notice mistakes: make the small wrong changes of tools/mutations.py, one by one.

    python tools/mutate.py [--only WORDS] [--jobs 2] [--list]

For each change the tests named beside it are run, on copies of this tree, which itself is not touched; all of them must
fail. Without changes the same tests must pass. Exit code: 0 as it should be, 1 a change went unnoticed or a test fails
without any, 2 bad usage or a change that does not fit the code any more.
"""

import queue
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mindone_coca.cli.common import Parser
from tools.mutations import MUTATIONS, Mutation
from tools.pytest_runs import run_pytest

ROOT = Path(__file__).resolve().parents[1]


def copy_tree(target: Path) -> None:
    """The files that git knows or would add, as they are now."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        source, copy = ROOT / name, target / name
        if source.is_symlink() or source.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy, follow_symlinks=False)


def misfits(mutations: Sequence[Mutation]) -> list[str]:
    """What does not fit the code: a file that is not there, or text that is not in it exactly once."""
    found = []
    for mutation in mutations:
        path = ROOT / mutation.file
        count = path.read_text().count(mutation.old) if path.is_file() else None
        if count != 1:
            reason = "no such file" if count is None else f"{count} times in the file: {mutation.old}"
            found.append(f"{mutation.what}: {mutation.file}: {reason}")
    return found


def try_mutation(mutation: Mutation, tree: Path) -> str:
    """Run the mutation's tests on the changed copy -> "noticed", or what was wrong."""
    path = tree / mutation.file
    text = path.read_text()
    path.write_text(text.replace(mutation.old, mutation.new))
    try:
        run = run_pytest(tree, mutation.tests, "-p", "no:cacheprovider")
    finally:
        path.write_text(text)
    results = [outcome.result for outcome in run.outcomes]
    if run.code == 1 and results and set(results) == {"failed"}:
        return "noticed"
    passed = [outcome.test for outcome in run.outcomes if outcome.result == "passed"]
    return f"UNNOTICED by {', '.join(passed)}" if passed else f"NO VERDICT: {run.output[-1500:]}"


def try_all(mutations: Sequence[Mutation], trees: Sequence[Path]) -> bool:
    """Try each mutation on whichever tree is free, telling each verdict at once; True if all were noticed."""
    free: queue.Queue[Path] = queue.Queue()
    for tree in trees:
        free.put(tree)

    def work(mutation: Mutation) -> bool:
        tree = free.get()
        begin = time.perf_counter()
        try:
            verdict = try_mutation(mutation, tree)
        finally:
            free.put(tree)
        print(f"{time.perf_counter() - begin:5.0f} s  {mutation.what}: {verdict}", flush=True)
        return verdict == "noticed"

    with ThreadPoolExecutor(len(trees)) as pool:
        return all(list(pool.map(work, mutations)))


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__)
    parser.add_argument("--only", default="", metavar="WORDS", help="changes whose description has these words")
    parser.add_argument("--jobs", type=int, default=2, help="changes tried at a time (2)")
    parser.add_argument("--list", action="store_true", help="print the changes and end")
    arguments = parser.parse_args(argv)
    mutations = [mutation for mutation in MUTATIONS if arguments.only in mutation.what]
    if arguments.list:
        print("\n".join(f"{mutation.file}: {mutation.what}" for mutation in mutations))
        return 0
    problems = misfits(mutations) or ([] if mutations else [f"no change is called {arguments.only!r}"])
    if problems:
        print("\n".join(f"error: {problem}" for problem in problems), file=sys.stderr)
        return 2

    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="coca_mutations_") as folder:
        trees = [Path(folder, str(number)) for number in range(max(1, min(arguments.jobs, len(mutations))))]
        for tree in trees:
            copy_tree(tree)
        tests = list(dict.fromkeys(test for mutation in mutations for test in mutation.tests))
        run = run_pytest(trees[0], tests, "-p", "no:cacheprovider", "-n", str(len(trees)), "--dist", "loadfile")
        wrong = [outcome.test for outcome in run.outcomes if outcome.result != "passed"]
        if run.code or wrong:
            print(f"error: without any change, {', '.join(wrong) or 'pytest'} fails\n{run.output[-3000:]}")
            return 1
        print(f"{time.perf_counter() - begin:5.0f} s  no change: all {len(run.outcomes)} tests pass", flush=True)
        noticed = try_all(mutations, trees)
    print(f"{len(mutations)} changes, {'all noticed' if noticed else 'NOT all noticed'}")
    print(f"{time.perf_counter() - begin:.0f} s")
    return 0 if noticed else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # the tests, which are processes of their own, got it too
        print("stopped", file=sys.stderr)
        sys.exit(130)
