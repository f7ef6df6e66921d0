"""The program that trains."""

import argparse
import logging
from collections.abc import Sequence

from mindone_coca.cli.common import Command, Parser

DESCRIPTION = """Train or finetune a CoCa, or train one for a task such as visual question answering.

python train.py -c configs/finetune_captioning.yaml [section.key=value ...]
python train.py -c configs/task_vqa_digits.yaml
msrun --worker_num=8 --local_worker_num=8 --join=True train.py -c configs/pretrain.yaml

A run continues from the newest checkpoint in its output.dir, which takes one run at a time. Messages go to standard
error. Exit code 0: done; 2: bad usage, config, data, checkpoint or output.dir, in one line; 130, 143: SIGINT or
SIGTERM stopped it after a step, from which the same command goes on.
"""


def add_options(parser: Parser) -> None:
    parser.add_argument("-c", "--config", required=True, help="training config, YAML or JSON")
    parser.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="override the config, as optim.lr=1e-5"
    )


def run(parser: Parser, arguments: argparse.Namespace) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    from mindone_coca.tasks.settings import load_train_config

    config = load_train_config(arguments.config, arguments.overrides)
    from mindone_coca.tasks.job import open_job  # heavy: only once the config is right
    from mindone_coca.training.trainer import Trainer

    Trainer(config, open_job).run()


COMMAND = Command(DESCRIPTION, add_options, run)


def main(argv: Sequence[str] | None = None) -> int:
    return COMMAND.main(argv)
