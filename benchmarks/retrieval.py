"""Memory and time of the retrieval metrics: random features of 512 numbers, one text for each image, no model.

    python benchmarks/retrieval.py [--pairs 20000 50000]

Each size has a process of its own. `growth` is the peak of its resident memory over what it held with the features
loaded; `square` is what all similarities together would take.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("GLOG_v", "3")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from mindone_coca.evaluation.retrieval import retrieval_metrics

WIDTH = 512
MIB = 2**20


def features(count: int, seed: int) -> np.ndarray:
    found = np.random.default_rng(seed).standard_normal((count, WIDTH), np.float32)
    for start in range(0, count, 1000):  # in place and in parts, so that the peak before the metrics is their size
        part = found[start : start + 1000]
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return found


def resident() -> int:
    """Bytes held now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def measure(pairs: int) -> None:
    images = features(pairs, 0)
    texts = features(pairs, 1)
    for start in range(0, pairs, 1000):
        texts[start : start + 1000] += images[start : start + 1000] / 8  # weakly related: some are found, some not
    before, begin = resident(), time.perf_counter()
    metrics, _, _ = retrieval_metrics(images, texts, np.arange(pairs))
    seconds = time.perf_counter() - begin
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    print(
        f"{pairs:7} {(images.nbytes + texts.nbytes) / MIB:13.0f} {growth / MIB:11.1f} {4 * pairs**2 / MIB:11.0f} "
        f"{seconds:8.1f} {metrics['image_to_text_R@1']:10.4f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[20_000, 50_000])
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)  # the process of one size
    arguments = parser.parse_args()
    if arguments.only:
        measure(arguments.only)
        return
    print("  pairs features, MiB growth, MiB square, MiB  seconds        R@1", flush=True)
    for pairs in arguments.pairs:
        subprocess.run([sys.executable, __file__, "--only", str(pairs)], check=True)


if __name__ == "__main__":
    main()
