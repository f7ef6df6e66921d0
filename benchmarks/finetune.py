"""What a step of finetuning costs: python -m benchmarks.finetune [--size small|part|large] [--updates N]

The same batch is trained on in full, by adapters of rank 8 on all blocks, by these on a base in float16
(`train.frozen_dtype`), and in the decoder alone, each in a process of its own, with recompute, from the same random
weights. Of each it writes the median time of a step after the first, which compiles, and its ratio to full
finetuning's; the processor's time, which says more where others use the machine; and the peak memory of the process,
compiling included. `large` is ViT-L/14 at batch 2, which needs up to 16 GB; `part` has a sixth of its layers, whose
widths are the same.
"""

import argparse
import copy
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.results_files import keep
from benchmarks.training import SMALL
from mindone_coca.config import CONFIG_DIR
from mindone_coca.training.settings import LoraConfig, LossConfig, OptimConfig
from mindone_coca.typed_mapping import read_mapping

KINDS = ("full", "lora", "lora_on_float16", "decoder")
BATCH = {"small": 8, "part": 2, "large": 2}
PART = 6


def config_of(size: str) -> dict[str, Any]:
    if size == "small":
        return SMALL
    config = copy.deepcopy(read_mapping(CONFIG_DIR / "coca_vit-l-14.yaml"))
    if size == "part":
        for tower in ("vision_cfg", "text_cfg", "multimodal_cfg"):
            config[tower]["layers"] //= PART
        config["text_cfg"]["vocab_size"] //= PART
    return config


def measure(kind: str, size: str, updates: int, weights: Path) -> dict[str, Any]:
    """Seconds of a step and peak GiB of this process."""
    from mindone_coca.data.settings import DataConfig
    from mindone_coca.distributed import Ranks
    from mindone_coca.factory import create_model
    from mindone_coca.training.frozen import keep_frozen
    from mindone_coca.training.lora import Lora
    from mindone_coca.training.optim import AdamW, freeze
    from mindone_coca.training.settings import ModelSection, RunConfig, TrainConfig
    from mindone_coca.training.step import TrainStep
    from tests.training.reference_training import make_batch

    config = config_of(size)
    model = create_model(config, weights)
    model.set_grad_checkpointing()
    losses = LossConfig(caption_weight=1.0, contrastive_weight=0.0) if kind == "decoder" else LossConfig()
    if kind.startswith("lora"):
        Lora(model, model, LoraConfig(rank=8), keep_open=False)
    if kind == "lora_on_float16":
        run = RunConfig(frozen_dtype="float16")
        keep_frozen(model, TrainConfig(ModelSection("", str(weights)), DataConfig(train=None), train=run))
    if kind == "decoder":
        freeze(model, ["visual.*", "text.*", "logit_scale"])
    step = TrainStep(model, losses, AdamW(model, OptimConfig(), Ranks()), Ranks())
    batch = make_batch(config, BATCH[size])
    taken, used = [], []
    for _ in range(updates + 1):
        start, processor = time.perf_counter(), time.process_time()
        loss = step([batch], 1e-5)["loss"]
        taken.append(time.perf_counter() - start)
        used.append(time.process_time() - processor)
    return {
        "what": kind,
        "trained": sum(parameter.size for parameter in step.optimiser.parameters),
        "first_step_seconds": round(taken[0], 2),
        "seconds": round(statistics.median(taken[1:]), 3),
        "processor_seconds": round(statistics.median(used[1:]), 3),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "loss": loss,
    }


def in_own_process(*words: str, store: str) -> str:
    """The last line that this script prints, run with other arguments and no compiled graphs kept from before."""
    environment = {**os.environ, "MINDONE_COCA_CACHE": store, "GLOG_v": "3"}
    command = [sys.executable, "-m", "benchmarks.finetune", *words]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return (done.stdout.splitlines() or [""])[-1]


def write_weights(size: str, path: Path) -> None:
    from mindone_coca.factory import create_model
    from mindone_coca.weights.load import parameter_entries
    from mindone_coca.weights.save import save_weights

    save_weights(path, parameter_entries(create_model(config_of(size))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=tuple(BATCH), default="small")
    parser.add_argument("--updates", type=int, default=3, help="timed (default 3)")
    parser.add_argument("--kinds", choices=KINDS, nargs="+", default=KINDS)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        kind, path = arguments.child
        if kind == "weights":
            write_weights(arguments.size, Path(path))
        else:
            print(json.dumps(measure(kind, arguments.size, arguments.updates, Path(path))))
        return
    rows: list[dict[str, Any]] = []
    words = ("--size", arguments.size, "--updates", str(arguments.updates))
    with tempfile.TemporaryDirectory() as folder:
        weights = str(Path(folder) / "coca.safetensors")
        in_own_process(*words, "--child", "weights", weights, store=folder)
        for kind in arguments.kinds:
            row = json.loads(in_own_process(*words, "--child", kind, weights, store=f"{folder}/{kind}"))
            for name in ("seconds", "processor_seconds"):
                row[f"{name}_ratio"] = round(row[name] / (rows[0] if rows else row)[name], 3)
            rows.append(row)
            print(
                f"{kind:16} {row['seconds']:6.2f} s a step ({row['seconds_ratio']:.2f} of the first row's; processor "
                f"{row['processor_seconds_ratio']:.2f}), peak {row['peak_gib']:.1f} GiB",
                flush=True,
            )
    keep(arguments.output / f"finetune_{arguments.size}.json", "a step of finetuning", rows)


if __name__ == "__main__":
    main()
