"""The program that shows what the others do: a caption of the bundled video by the small model that ships."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mindone_coca.cli import caption
from mindone_coca.cli.common import Command, Parser

DESCRIPTION = """Caption the bundled video with the small model that ships.

mindone-coca demo

The model knows nothing but scenes of coloured shapes. For other videos take published weights:

mindone-coca caption --model_path coca_ViT-L-14/mscoco_finetuned_laion2b_s13b_b90k VIDEO
"""

MODEL = "coca_tiny"  # a packaged config, which names its weights
VIDEO = Path(__file__).resolve().parents[1] / "assets" / "demo.mp4"


def add_options(parser: Parser) -> None:
    """It has none."""


def run(parser: Parser, arguments: argparse.Namespace) -> int | None:
    caption.add_options(captions := Parser())
    return caption.run(captions, captions.parse_args(["-c", MODEL, "--video_path", str(VIDEO)]))


COMMAND = Command(DESCRIPTION, add_options, run)


def main(argv: Sequence[str] | None = None) -> int:
    return COMMAND.main(argv)
