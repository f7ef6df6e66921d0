"""What a step of finetuning costs: python -m benchmarks.finetune [--size small|large] [--updates N]

The same batch is trained on in full, by adapters of rank 8 on all blocks, and in the decoder alone, each in a process
of its own, with recompute. Printed are the median time of a step after the first, which compiles, its ratio to full
finetuning's, and the peak memory of the process. `large` is ViT-L/14 at batch 2, which needs up to 16 GB.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

from benchmarks.training import SMALL
from mindone_coca.config import CONFIG_DIR
from mindone_coca.training.settings import LoraConfig, LossConfig, OptimConfig
from mindone_coca.typed_mapping import read_mapping

KINDS = ("full", "lora", "decoder")


def measure(kind: str, size: str, updates: int) -> dict[str, float]:
    """Seconds of a step and peak GiB of this process."""
    from mindone_coca.distributed import Ranks
    from mindone_coca.factory import create_model
    from mindone_coca.training.lora import Lora
    from mindone_coca.training.optim import AdamW, freeze
    from mindone_coca.training.step import TrainStep
    from tests.training.reference_training import make_batch

    config = SMALL if size == "small" else read_mapping(CONFIG_DIR / "coca_vit-l-14.yaml")
    model = create_model(config)
    model.set_grad_checkpointing()
    losses = LossConfig(caption_weight=1.0, contrastive_weight=0.0) if kind == "decoder" else LossConfig()
    if kind == "lora":
        Lora(model, model, LoraConfig(rank=8), keep_open=False)
    if kind == "decoder":
        freeze(model, ["visual.*", "text.*", "logit_scale"])
    step = TrainStep(model, losses, AdamW(model, OptimConfig(), Ranks()), Ranks())
    batch = make_batch(config, 2 if size == "large" else 8)
    taken = []
    for update in range(updates + 1):
        start = time.perf_counter()
        step([batch], 1e-5)
        if update:
            taken.append(time.perf_counter() - start)
    return {
        "seconds": statistics.median(taken),
        "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("small", "large"), default="small")
    parser.add_argument("--updates", type=int, default=3, help="timed (default 3)")
    parser.add_argument("--kind", choices=KINDS, help="one of them, as JSON")
    arguments = parser.parse_args()
    if arguments.kind:
        print(json.dumps(measure(arguments.kind, arguments.size, arguments.updates)))
        return
    full = 0.0
    for kind in KINDS:
        words = ["--size", arguments.size, "--updates", str(arguments.updates), "--kind", kind]
        command = [sys.executable, "-m", "benchmarks.finetune", *words]
        line = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        found = json.loads(line)
        full = full or found["seconds"]
        print(f"{kind}: {found['seconds']:.2f} s a step ({found['seconds'] / full:.2f}), peak {found['gib']:.1f} GiB")


if __name__ == "__main__":
    main()
