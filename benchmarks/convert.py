"""Time and peak memory of every direction of the converter at full size, against the time to copy the file.

    python benchmarks/convert.py [--config coca_vit-l-14] [--folder /tmp/convert_bench] [--output FOLDER]

Each conversion is a process of its own. Its peak memory is what the system counted as resident in it, mapped
file pages included; the source is read once before each run, so both the copy and the conversion find it cached.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from benchmarks.results_files import PRINT_PEAK, keep  # noqa: E402
from mindone_coca.model.families import load_model_config  # noqa: E402
from mindone_coca.model.open_clip.family import OPEN_CLIP  # noqa: E402
from mindone_coca.weights.formats.entry import Entry  # noqa: E402
from mindone_coca.weights.save import save_weights  # noqa: E402

# (name, source, target, options)
DIRECTIONS = [
    ("bin -> ckpt", "source.bin", "a/out.ckpt", []),
    ("bin -> safetensors", "source.bin", "b/out.safetensors", []),
    ("safetensors -> safetensors", "c/out.safetensors", "d/out.safetensors", []),
    ("ckpt -> safetensors", "a/out.ckpt", "e/out.safetensors", []),
    ("ckpt -> bin (reverse)", "a/out.ckpt", "f/out.bin", ["--reverse"]),
    ("safetensors -> bin (reverse)", "b/out.safetensors", "g/out.bin", ["--reverse"]),
    ("bin -> safetensors, bfloat16", "source.bin", "h/out.safetensors", ["--dtype", "bfloat16"]),
]

# Runs the converter.
_CHILD = """
import sys
sys.argv[0] = sys.argv.pop(1)
sys.path.insert(0, {repository!r})
import runpy
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as exit:
    if exit.code:
        raise
"""


def random_checkpoint(config: str, path: Path) -> None:
    """A checkpoint with open_clip's names and random numbers, written tensor by tensor."""
    rng = np.random.default_rng(0)

    def entry(shape: tuple[int, ...]) -> Entry:
        return Entry(shape, "float32", lambda: np.asarray(rng.standard_normal(shape, dtype=np.float32)))

    save_weights(path, {name: entry(shape) for name, shape in OPEN_CLIP.shapes(load_model_config(config)).items()})


def run_converter(*arguments: str | Path) -> tuple[float, int]:
    """Seconds and peak resident bytes of one conversion in a fresh process."""
    script = REPOSITORY / "tools" / "model_conversion" / "coca_convert.py"
    command = [sys.executable, "-c", _CHILD.format(repository=str(REPOSITORY)) + PRINT_PEAK, script, *arguments]
    began = time.perf_counter()
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"conversion failed: {done.stderr}")
    return seconds, int(done.stdout.split()[-1])


def copy_seconds(source: Path, target: Path) -> float:
    """Time to copy a file through memory and flush it to disk, as the converter does."""
    began = time.perf_counter()
    with open(source, "rb") as read, open(target, "wb") as write:
        shutil.copyfileobj(read, write, 16 << 20)
        write.flush()
        os.fsync(write.fileno())
    seconds = time.perf_counter() - began
    target.unlink()
    return seconds


def measure(config: str, folder: Path) -> list[dict]:
    """All directions: one row each with seconds, seconds to copy, their ratio, sizes and peak memory."""
    random_checkpoint(config, folder / "source.bin")
    run_converter("--source", folder / "source.bin", "--reverse", "--target", folder / "c" / "out.safetensors")
    largest = 4 * max(np.prod(shape, dtype=int) for shape in OPEN_CLIP.shapes(load_model_config(config)).values())
    rows = []
    for name, source_name, target_name, options in DIRECTIONS:
        source, target = folder / source_name, folder / target_name
        copied = copy_seconds(source, folder / "copy")
        seconds, peak = run_converter("--source", source, "--target", target, *options)
        sizes = source.stat().st_size, target.stat().st_size
        rows.append(
            {
                "what": name,
                "seconds": round(seconds, 2),
                "copy_seconds": round(copied, 2),
                "ratio_to_copy": round(seconds / copied, 2),
                "source_bytes": sizes[0],
                "target_bytes": sizes[1],
                "peak_bytes": peak,
                "peak_to_larger_file": round(peak / max(sizes), 3),
                "peak_beyond_largest_tensor": peak - int(largest),
            }
        )
        memory = f"peak {peak >> 20:5d} MiB = {peak / max(sizes):.2f} x file, "
        memory += f"{(peak - int(largest)) >> 20} MiB beyond the largest tensor"
        print(f"{name:30} {seconds:6.2f} s  copy {copied:5.2f} s  ratio {seconds / copied:5.2f}  {memory}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="coca_vit-l-14")
    parser.add_argument("--folder", type=Path, help="where to put some 20 GB for L/14 (default: a temporary folder)")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    if arguments.folder:
        arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        rows = measure(arguments.config, Path(folder))
    keep(arguments.output / f"convert_{arguments.config}.json", "converting", rows)


if __name__ == "__main__":
    main()
