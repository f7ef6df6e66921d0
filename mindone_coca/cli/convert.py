"""The program that converts weights."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from mindone_coca.cli.common import Command, Parser, add_lora_option, local_path
from mindone_coca.conversion.convert import Options, Plan, plan_conversion, write
from mindone_coca.errors import InputError
from mindone_coca.progress import Progress
from mindone_coca.weights.formats.dtypes import WEIGHT_DTYPES
from mindone_coca.weights.hub import local_weights
from mindone_coca.weights.source import open_weights

DESCRIPTION = """Convert CoCa weights between open_clip or coca-pytorch (PyTorch) and MindSpore, checked entry by entry.

python tools/model_conversion/coca_convert.py --source open_clip_pytorch_model.bin
python tools/model_conversion/coca_convert.py --source models/coca_model.ckpt --reverse --target open_clip/
python tools/model_conversion/coca_convert.py --source coca_pytorch.pt --config configs/coca_paper_base.yaml
"""


def size(text: str) -> tuple[int, int]:
    """Parse `N` or `HEIGHTxWIDTH`."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and 0 < int(part) <= 16384 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; give N or HEIGHTxWIDTH")
    return int(parts[0]), int(parts[-1])


def add_options(parser: Parser) -> None:
    parser.add_argument(
        "--source",
        required=True,
        help="weights file (.bin .pt .pth .safetensors .ckpt), shard index (*.index.json), a folder with one of "
        "these, the URL of one, or published ones: hf:OWNER/NAME[@REVISION][/FILE] or a name from "
        "`mindone-coca models`",
    )
    parser.add_argument(
        "--target",
        type=local_path,
        default=Path("models"),
        help="weights file to write, or a folder for coca_model.ckpt, with --reverse open_clip_pytorch_model.bin "
        "or coca_pytorch.pt "
        "(default: models/)",
    )
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
    add_lora_option(parser)
    resize = parser.add_mutually_exclusive_group()
    resize.add_argument(
        "--image_size", type=size, help="resize position embeddings for images of N or HEIGHTxWIDTH pixels"
    )
    resize.add_argument("--patch_grid", type=size, help="the same for a grid of N or ROWSxCOLUMNS patches")
    parser.add_argument("--allow_nan", action="store_true", help="convert weights that hold NaN or infinite values")
    parser.add_argument("--force", action="store_true", help="overwrite existing files")
    parser.add_argument(
        "--verify",
        nargs="?",
        const="tensors",
        choices=["tensors", "forward"],
        help="load the result into MindSpore and compare checksums with the source; `forward` also compares "
        "outputs with the original's",
    )
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="check and print what would be written, and what is there already; write nothing",
    )
    parser.add_argument("--list", action="store_true", help="print names, shapes and types of the source and exit")


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
    plan = plan_conversion(Options(**{spec.name: getattr(arguments, spec.name) for spec in fields(Options)}))
    if arguments.dry_run:
        print_notes(plan.notes)
        print(f"would write {summary(plan)}")
        for path in plan.texts:
            print(f"would write {path}")
        return
    with Progress(plan.nbytes, "converting", "B") as shown:
        plan.progress = shown.update
        write(plan)
    plan.progress = lambda count: None
    print_notes(plan.notes)
    print(f"wrote {summary(plan)}")
    if arguments.verify:
        from mindone_coca.conversion.verify import verify_forward, verify_tensors  # these need MindSpore

        print(verify_tensors(plan))
        if arguments.verify == "forward":
            print(verify_forward(plan))


def run(parser: Parser, arguments: argparse.Namespace) -> int:
    arguments.source = local_weights(arguments.source)
    try:
        if arguments.list:
            list_entries(arguments.source, arguments.ema, arguments.key)
        else:
            convert(arguments)
    except (BrokenPipeError, InputError):  # which all programs end by in the same way
        raise
    except OSError as error:  # of reading
        print(f"error: {error.filename or arguments.source}: {error.strerror or error}", file=sys.stderr)
        return 2
    return 0


COMMAND = Command(DESCRIPTION, add_options, run)


def main(argv: Sequence[str] | None = None) -> int:
    return COMMAND.main(argv)
