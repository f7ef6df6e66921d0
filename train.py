"""Train or finetune a CoCa.

python train.py -c configs/finetune_captioning.yaml [section.key=value ...]
msrun --worker_num=8 --local_worker_num=8 --join=True train.py -c configs/pretrain.yaml

A run continues from the newest checkpoint in its output.dir. Messages go to standard error. Exit code 0: done; 2: bad
usage, config, data or checkpoint, told in one line.
"""

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from mindone_coca.errors import InputError


class Parser(argparse.ArgumentParser):
    """Tells a usage error in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("-c", "--config", required=True, help="training config, YAML or JSON")
    parser.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="override the config, as optim.lr=1e-5"
    )
    arguments = parser.parse_args(argv)
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    os.environ.setdefault("GLOG_v", "3")  # MindSpore's log: errors only, unless the user wants more
    try:
        from mindone_coca.training.settings import load_train_config

        config = load_train_config(arguments.config, arguments.overrides)
        from mindone_coca.training.trainer import Trainer

        Trainer(config).run()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
