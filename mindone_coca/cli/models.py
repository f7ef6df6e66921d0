"""The program that lists published weights."""

import argparse
from collections.abc import Sequence
from math import prod

from mindone_coca.cli.common import Command, Parser
from mindone_coca.hub.published import APPLE, OPEN_CLIP, Published
from mindone_coca.model.families import family_of, load_model_config

DESCRIPTION = """List published weights by the names that --model_path takes.

mindone-coca models
mindone-coca caption --model_path coca_ViT-L-14/mscoco_finetuned_laion2b_s13b_b90k --video_path VIDEO
"""

_HEADER = ("name", "parameters", "float32", "context", "good for")
_NOTES = """
Licences: see the model pages, https://huggingface.co/REPOSITORY, where REPOSITORY is what follows hf:, or
  {laion}
Any other repository can be named, too: hf:OWNER/NAME[@REVISION][/FILE].
Apple's page samples its captions: --generation_type top_p --top_p 0.9 --fixed_output_length."""


def add_options(parser: Parser) -> None:
    """It has none."""


def row(weights: Published) -> tuple[str, ...]:
    """A line of the list, by columns; sizes are those of the packaged config."""
    config = load_model_config(weights.config)
    count = sum(map(prod, family_of(config).parameter_shapes(config).values()))
    size = f"{count / 1e6:.0f} M", f"{count * 4 / 1e9:.2f} GB"
    return weights.name, *size, f"{weights.context} tokens", weights.about


def run(parser: Parser, arguments: argparse.Namespace) -> None:
    rows = [_HEADER, *(row(weights) for weights in (*OPEN_CLIP, *APPLE))]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for cells in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths)).rstrip())
    print(_NOTES.format(laion="\n  ".join(weights.repository for weights in OPEN_CLIP)))


COMMAND = Command(DESCRIPTION, add_options, run)


def main(argv: Sequence[str] | None = None) -> int:
    return COMMAND.main(argv)
