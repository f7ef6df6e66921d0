#!/usr/bin/env python
"""Convert CoCa weights between open_clip or coca-pytorch (PyTorch) and MindSpore, checked entry by entry.

python tools/model_conversion/coca_convert.py --source open_clip_pytorch_model.bin
python tools/model_conversion/coca_convert.py --source models/coca_model.ckpt --reverse --target open_clip/
python tools/model_conversion/coca_convert.py --source coca_pytorch.pt --config configs/coca_paper_base.yaml
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

try:
    import mindone_coca  # noqa: F401
except ModuleNotFoundError:  # run from a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tqdm import tqdm

from mindone_coca.cli.common import run_cli
from mindone_coca.conversion.convert import Options, Plan, plan_conversion, write
from mindone_coca.weights.formats.dtypes import WEIGHT_DTYPES
from mindone_coca.weights.source import open_weights


def size(text: str) -> tuple[int, int]:
    """Parse `N` or `HEIGHTxWIDTH`."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and 0 < int(part) <= 16384 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; give N or HEIGHTxWIDTH")
    return int(parts[0]), int(parts[-1])


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--source", required=True, type=Path,
        help="weights file (.bin .pt .pth .safetensors .ckpt), shard index (*.index.json) or folder with one of these",
    )  # fmt: skip
    parser.add_argument(
        "--target", type=Path, default=Path("models"),
        help="weights file to write, or a folder for coca_model.ckpt, with --reverse open_clip_pytorch_model.bin "
        "or coca_pytorch.pt "
        "(default: models/)",
    )  # fmt: skip
    parser.add_argument(
        "--reverse", action="store_true", help="write the original's names and formats (.bin, .pt, .safetensors)"
    )
    parser.add_argument("--config", help="model config to check against (default: beside the source, else inferred)")
    parser.add_argument("--dtype", choices=WEIGHT_DTYPES, help="cast the weights (default: keep their type)")
    parser.add_argument("--ema", action="store_true", help="take the averaged weights of a training checkpoint")
    parser.add_argument(
        "--key",
        help="where in a torch checkpoint the state dict is, if under no usual name (NAME or OUTER.NAME); or what the "
        "names to take begin with",
    )
    resize = parser.add_mutually_exclusive_group()
    resize.add_argument(
        "--image_size", type=size, help="resize position embeddings for images of N or HEIGHTxWIDTH pixels"
    )
    resize.add_argument("--patch_grid", type=size, help="the same for a grid of N or ROWSxCOLUMNS patches")
    parser.add_argument("--allow_nan", action="store_true", help="convert weights that hold NaN or infinite values")
    parser.add_argument("--force", action="store_true", help="overwrite existing files")
    parser.add_argument(
        "--verify", nargs="?", const="tensors", choices=["tensors", "forward"],
        help="load the result into MindSpore and compare checksums with the source; `forward` also compares "
        "outputs with the original's",
    )  # fmt: skip
    parser.add_argument("--dry_run", action="store_true", help="check and print what would be written, write nothing")
    parser.add_argument("--list", action="store_true", help="print names, shapes and types of the source and exit")
    return parser


def list_entries(source: Path, ema: bool, key: str | None) -> None:
    weights = open_weights(source, ema=ema, key=key)
    for name, entry in weights.items():
        print(f"{name}\t{'x'.join(map(str, entry.shape)) or 'scalar'}\t{entry.dtype}")
    print_notes(weights.notes)


def print_notes(notes: Sequence[str]) -> None:
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def summary(plan: Plan) -> str:
    kinds = sorted({entry.dtype for entry in plan.entries.values()})
    return (
        f"{plan.target}: {len(plan.entries)} entries, {plan.parameters:,} parameters, "
        f"{plan.nbytes:,} bytes, {'+'.join(kinds)}"
    )


def convert(arguments: argparse.Namespace) -> None:
    given = {key: value for key, value in vars(arguments).items() if key not in ("list", "dry_run", "verify")}
    plan = plan_conversion(Options(**given))
    if arguments.dry_run:
        print_notes(plan.notes)
        print(f"would write {summary(plan)}")
        for path in plan.texts:
            print(f"would write {path}")
        return
    # disable=None: no bar where standard error is no terminal.
    with tqdm(total=plan.nbytes, unit="B", unit_scale=True, desc="converting", disable=None) as bar:
        plan.progress = bar.update
        write(plan)
    plan.progress = lambda count: None
    print_notes(plan.notes)
    print(f"wrote {summary(plan)}")
    if arguments.verify:
        from mindone_coca.conversion.verify import verify_forward, verify_tensors  # these need MindSpore

        print(verify_tensors(plan))
        if arguments.verify == "forward":
            print(verify_forward(plan))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the converter. Returns the exit code: 0 done, 2 bad usage, input or target (told in one line)."""
    arguments = build_parser().parse_args(argv)

    def run() -> None:
        if arguments.list:
            list_entries(arguments.source, arguments.ema, arguments.key)
        else:
            convert(arguments)

    try:
        return run_cli(run)
    except BrokenPipeError:  # e.g. `--list | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print(f"error: {error.filename or arguments.target}: {error.strerror or error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
