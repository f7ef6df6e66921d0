"""All benchmarks against open_clip, one after another, and a page of their results.

    python -m benchmarks [--config coca_vit-l-14] [--only speed memory ...] [--output benchmarks/results]

Each runs in a process of its own, so that none finds another's memory; together they take about two hours at
ViT-L/14 on two cores. `--only page` makes the page anew from the results that are there.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.page import write_page

SCRIPTS = {
    "speed": ["benchmarks.speed", "--config", "{config}"],
    "memory": ["benchmarks.memory", "--config", "{config}"],
    "training": ["benchmarks.training", "--size", "small"],
    "training_base": ["benchmarks.training", "--size", "base", "--turns", "3"],
    "training_large": ["benchmarks.training", "--large"],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="coca_vit-l-14")
    parser.add_argument("--only", nargs="+", choices=[*SCRIPTS, "page"], default=[*SCRIPTS, "page"])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    failed = []
    for name in arguments.only:
        if name != "page":
            words = [word.format(config=arguments.config) for word in SCRIPTS[name]]
            done = subprocess.run([sys.executable, "-m", *words, "--output", str(arguments.output)])
            failed += [name] * (done.returncode != 0)
    print(write_page(arguments.output))
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
