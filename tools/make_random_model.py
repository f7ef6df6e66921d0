#!/usr/bin/env python
"""Write weights drawn at random for a config, and the config beside them: to try the pipeline without a download.

Captions will mean nothing.

python tools/make_random_model.py -c configs/coca_tiny.yaml --target outputs/random/coca_model.safetensors [--seed 0]
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for a checkout that is not installed

from mindone_coca.interrupts import watch_signals

watch_signals(__name__)  # before the imports that take long

import os

os.environ.setdefault("GLOG_v", "3")

import mindspore as ms

from mindone_coca import create_model
from mindone_coca.cli.common import Parser, run_cli
from mindone_coca.factory import save_model
from mindone_coca.files import check_output
from mindone_coca.weights.load import parameter_entries


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__)
    parser.add_argument("-c", "--config", required=True)
    parser.add_argument("--target", required=True, type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)

    def run() -> None:
        check_output(arguments.target, "choose another --target", folder=False)
        ms.set_seed(arguments.seed)
        model = create_model(arguments.config)
        note = {"note": f"random weights, seed {arguments.seed}"}
        save_model(arguments.target, model.config, parameter_entries(model), metadata=note)

    return run_cli(run)


if __name__ == "__main__":
    sys.exit(main())
