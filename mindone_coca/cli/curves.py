"""The program that draws a run's curves."""

import argparse
from collections.abc import Sequence

from mindone_coca.cli.common import Command, Parser, local_path

DESCRIPTION = """Draw the curves of a training run.

mindone-coca curves outputs/RUN [-o FILE.png]
"""


def add_options(parser: Parser) -> None:
    parser.add_argument("run", type=local_path, help="its output.dir")
    parser.add_argument("-o", "--output", type=local_path, help="the picture (default: curves.png in the run's folder)")


def run(parser: Parser, arguments: argparse.Namespace) -> None:
    from mindone_coca.training.curves import draw_curves

    print(draw_curves(arguments.run, arguments.output))


COMMAND = Command(DESCRIPTION, add_options, run)


def main(argv: Sequence[str] | None = None) -> int:
    return COMMAND.main(argv)
