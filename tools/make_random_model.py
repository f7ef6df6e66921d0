#!/usr/bin/env python
"""Write weights drawn at random for a config, and the config beside them: to try the pipeline without a download.

Captions will mean nothing.

python tools/make_random_model.py -c configs/coca_tiny.yaml --target outputs/random/ [--seed 0]
python inference.py --model_path outputs/random/ --video_path assets/demo.mp4
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for a checkout that is not installed

from mindone_coca.interrupts import watch_signals

watch_signals(__name__)  # before the imports that take long

import dataclasses
from collections.abc import Sequence

import mindspore as ms

from mindone_coca import create_model
from mindone_coca.cli.common import Parser, run_cli, say_written
from mindone_coca.factory import save_model
from mindone_coca.files import check_output
from mindone_coca.model.families import load_model_config
from mindone_coca.weights.load import parameter_entries
from mindone_coca.weights.source import SUFFIXES


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__)
    parser.add_argument("-c", "--config", required=True)
    parser.add_argument(
        "--target", required=True, type=Path, help="weights file, or a folder for coca_model.safetensors"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)

    def run() -> None:
        ms.set_seed(arguments.seed)
        target = arguments.target
        if target.suffix not in SUFFIXES:
            target = target / "coca_model.safetensors"
        check_output(target, "choose another --target", folder=False)
        # whatever weights the config names
        model = create_model(dataclasses.replace(load_model_config(arguments.config), checkpoint=None))
        note = {"note": f"random weights, seed {arguments.seed}"}
        config = save_model(target, model.config, parameter_entries(model), metadata=note)
        say_written("random weights and their config", target, [target, config])

    return run_cli(run)


if __name__ == "__main__":
    sys.exit(main())
