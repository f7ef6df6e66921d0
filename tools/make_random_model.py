#!/usr/bin/env python
"""Write weights drawn at random for a config, and the config beside them: to try the pipeline without a download.

Captions will mean nothing.

python tools/make_random_model.py -c configs/coca_tiny.yaml --target outputs/random/coca_model.safetensors [--seed 0]
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("GLOG_v", "3")
try:
    import mindone_coca  # noqa: F401
except ModuleNotFoundError:  # run from a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import mindspore as ms

from mindone_coca import create_model
from mindone_coca.cli.common import Parser, run_cli
from mindone_coca.factory import save_model
from mindone_coca.weights.load import parameter_entries


def main() -> int:
    parser = Parser(__doc__)
    parser.add_argument("-c", "--config", required=True)
    parser.add_argument("--target", required=True, type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    def run() -> None:
        ms.set_seed(arguments.seed)
        model = create_model(arguments.config)
        note = {"note": f"random weights, seed {arguments.seed}"}
        save_model(arguments.target, model.config, parameter_entries(model), metadata=note)

    return run_cli(run)


if __name__ == "__main__":
    sys.exit(main())
