"""The program that exports graphs."""

import argparse
from collections.abc import Sequence
from typing import get_args

from mindone_coca.cli.common import (
    Command,
    Parser,
    add_model_options,
    local_path,
    positive,
    say_written,
    start_mindspore,
)
from mindone_coca.config import DeviceTarget, Dtype
from mindone_coca.errors import InputError
from mindone_coca.files import check_output
from mindone_coca.typed_mapping import Default, at_most

DESCRIPTION = """Write a model as three MINDIR graphs of fixed shapes, for GraphCell or MindSpore Lite.

    python tools/export_mindir.py -c configs/coca_vit-l-14.yaml --model_path models/coca_model.ckpt --target mindir/

- image_encoder: images -> normalised features, the image tokens, and their keys and values for the decoder;
- text_encoder: ids padded to the context -> normalised features;
- decode_step: one token for every row. The key/value caches travel as inputs and outputs and start as zeros; a prompt
  is fed token by token. `ids` holds the tokens so far (free places: any), `position` the place of the
  newest, `parents` the row each row continues, for beam search, `forbidden` -inf at ids that may not come now, else 0.
  Back come the likeliest `tokens`, or with several beams the `scores` and `tokens` of beam search's candidates.

manifest.json beside them lists each graph's file, its inputs and outputs in order, the tokens and the image
preprocessing; converter_*.cfg are for MindSpore Lite's converter, and examples/lite_caption.py captions by all that.
With several batch sizes each has a folder of its own, batch_4 and so on. The folder appears when all is written. Exit
code 2: bad usage, config or weights, reported in one line.
"""
CACHE_LENGTH = Default(32)
TARGETS = [target for target in get_args(DeviceTarget) if target != "auto"]


def add_options(parser: Parser) -> None:
    add_model_options(parser)
    add = parser.add_argument
    add("--target", type=local_path, required=True, help="folder to make")
    add(
        "--batch_size",
        type=positive,
        nargs="+",
        default=[1],
        metavar="N",
        help="images, and texts, at a time; several numbers write a folder for each, weights and all (default 1)",
    )
    add("--beams", type=positive, default=1, help="rows of the decode step for each image (default 1)")
    add(
        "--cache_length",
        type=positive,
        default=CACHE_LENGTH,
        help=f"tokens a caption may have (default {CACHE_LENGTH}, or fewer where the model has fewer positions)",
    )
    add("--dtype", choices=get_args(Dtype), help="of weights and activations (default: the config's, float32)")
    add(
        "--device_target",
        choices=TARGETS,
        default="Ascend",
        help="where the graphs will run, whatever machine exports them: for the CPU of the forms that are fastest "
        "there, else of those that all devices have (default Ascend)",
    )


def run(parser: Parser, arguments: argparse.Namespace) -> None:
    if arguments.target.exists():
        raise InputError(f"{arguments.target}: exists already; remove it or choose another --target")
    check_output(arguments.target, "choose another --target")
    start_mindspore()
    from mindone_coca import device
    from mindone_coca.conversion.export import export_model
    from mindone_coca.factory import create_model, find_config_and_weights

    config, weights = find_config_and_weights(arguments.config, arguments.model_path, arguments.lora)
    # a machine makes the forms of its own device, or those that all devices have
    device.configure(kernels="auto" if arguments.device_target == device.product() == "CPU" else "portable")
    with device.half_on_cpu():
        model = create_model(config, weights, arguments.dtype)
    cache_length = at_most(arguments.cache_length, config.context_length)
    sizes = sorted(set(arguments.batch_size))
    export_model(model, config.preprocess, arguments.target, sizes, arguments.beams, cache_length)
    each = f", for batches of each of {len(sizes)} sizes," if len(sizes) > 1 else ""
    say_written(f"three graphs and their manifest{each}", arguments.target)


COMMAND = Command(DESCRIPTION, add_options, run)


def main(argv: Sequence[str] | None = None) -> int:
    return COMMAND.main(argv)
