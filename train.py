"""Train or finetune a CoCa, or train one for a task such as visual question answering.

python train.py -c configs/finetune_captioning.yaml [section.key=value ...]
python train.py -c configs/task_vqa_digits.yaml
msrun --worker_num=8 --local_worker_num=8 --join=True train.py -c configs/pretrain.yaml

A run continues from the newest checkpoint in its output.dir. Messages go to standard error. Exit code 0: done; 2: bad
usage, config, data or checkpoint, told in one line.
"""

import logging
import sys
from collections.abc import Sequence

from mindone_coca.cli.common import Parser, run_cli


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__)
    parser.add_argument("-c", "--config", required=True, help="training config, YAML or JSON")
    parser.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="override the config, as optim.lr=1e-5"
    )
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")

    def run() -> None:
        from mindone_coca.training.settings import load_train_config

        config = load_train_config(arguments.config, arguments.overrides)
        from mindone_coca.training.trainer import Trainer

        Trainer(config).run()

    return run_cli(run)


if __name__ == "__main__":
    sys.exit(main())
