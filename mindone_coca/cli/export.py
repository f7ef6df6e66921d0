"""The program that exports graphs."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from mindone_coca.cli.common import Command, Parser, add_model_options, positive, say_written, start_mindspore
from mindone_coca.config import Dtype
from mindone_coca.errors import InputError
from mindone_coca.files import check_output
from mindone_coca.typed_mapping import Default, at_most

DESCRIPTION = """Write a model as three MINDIR graphs of fixed shapes, for GraphCell or MindSpore Lite.

    python tools/export_mindir.py -c configs/coca_vit-l-14.yaml --model_path models/coca_model.ckpt --target mindir/

- image_encoder: images -> normalised features, the image tokens, and their keys and values for the decoder;
- text_encoder: ids padded to the context -> normalised features;
- decode_step: one token for every row. The key/value caches travel as inputs and outputs and start as zeros; a prompt
  is fed token by token. `ids` holds the tokens so far (free places: any), `position` the place of the newest, `parents`
  the row each row continues, for beam search.

manifest.json beside them lists each graph's file, its inputs and outputs in order, the tokens and the image
preprocessing. The folder appears when all is written. Exit code 2: bad usage, config or weights, reported in one line.
"""
CACHE_LENGTH = Default(32)


def add_options(parser: Parser) -> None:
    add_model_options(parser)
    add = parser.add_argument
    add("--target", type=Path, required=True, help="folder to make")
    add("--batch_size", type=positive, default=1, help="images, and texts, at a time (default 1)")
    add("--beams", type=positive, default=1, help="rows of the decode step for each image (default 1)")
    add(
        "--cache_length",
        type=positive,
        default=CACHE_LENGTH,
        help=f"tokens a caption may have (default {CACHE_LENGTH}, or fewer where the model has fewer positions)",
    )
    add("--dtype", choices=get_args(Dtype), help="of weights and activations (default: the config's, float32)")


def run(parser: Parser, arguments: argparse.Namespace) -> None:
    if arguments.target.exists():
        raise InputError(f"{arguments.target}: exists already; remove it or choose another --target")
    check_output(arguments.target, "choose another --target")
    start_mindspore()
    from mindone_coca import device
    from mindone_coca.conversion.export import export_model
    from mindone_coca.factory import create_model, find_config_and_weights

    config, weights = find_config_and_weights(arguments.config, arguments.model_path, arguments.lora)
    # the CPU's forms are operators that all devices have, those of other devices are not
    device.configure(kernels="auto" if device.product() == "CPU" else "portable")
    with device.half_on_cpu():
        model = create_model(config, weights, arguments.dtype)
    cache_length = at_most(arguments.cache_length, config.context_length)
    shape = arguments.batch_size, arguments.beams, cache_length
    export_model(model, config.preprocess, arguments.target, *shape)
    say_written("three graphs and their manifest", arguments.target)


COMMAND = Command(DESCRIPTION, add_options, run)


def main(argv: Sequence[str] | None = None) -> int:
    return COMMAND.main(argv)
