"""Training steps per second against open_clip's, side by side: python -m benchmarks.training [--size base|small]

Each side makes the same updates on the same batch from the same weights, in turns, so that noise hits both; printed
are the medians, their ratio, and the losses of both after the last update. `--large` instead makes updates of the
full ViT-L/14 at batch 2 with recompute and prints their peak memory and time.
"""

import argparse
import resource
import statistics
import time
from pathlib import Path

import numpy as np

from benchmarks.results_files import keep
from mindone_coca.config import CONFIG_DIR
from mindone_coca.training.settings import LossConfig, OptimConfig
from mindone_coca.typed_mapping import read_mapping

SMALL = {
    "embed_dim": 256,
    "vision_cfg": {
        "image_size": 64,
        "patch_size": 8,
        "layers": 4,
        "width": 256,
        "head_width": 64,
        "attentional_pool": True,
        "attn_pooler_heads": 8,
        "attn_pooler_queries": 64,
    },
    "text_cfg": {"context_length": 24, "vocab_size": 4096, "width": 256, "heads": 4, "layers": 4, "embed_cls": True},
    "multimodal_cfg": {"context_length": 24, "width": 256, "heads": 4, "layers": 4},
}


def compare(config: dict, batch: int, turns: int) -> list[dict]:
    from mindone_coca.distributed import Ranks
    from mindone_coca.training.optim import AdamW
    from mindone_coca.training.step import TrainStep
    from tests.models import from_reference
    from tests.reference import random_reference, torch
    from tests.training.reference_training import make_batch, reference_losses, reference_optimiser

    loss_config, optim = LossConfig(), OptimConfig(lr=1e-4)
    reference = random_reference(config)
    model = from_reference(reference, config)
    step = TrainStep(model, loss_config, AdamW(model, optim, Ranks()), Ranks())
    optimiser = reference_optimiser(reference.train(), optim)
    images, text = make_batch(config, batch)

    def ours() -> float:
        return step([(images, text)], optim.lr)["loss"]

    def theirs() -> float:
        optimiser.zero_grad()
        total = torch.stack(list(reference_losses(reference, images, text, loss_config).values())).sum()
        total.backward()
        optimiser.step()
        with torch.no_grad():
            reference.logit_scale.clamp_(0, np.log(100))
        return total.item()

    seconds: dict = {ours: [], theirs: []}
    losses = {}
    for turn in range(turns + 1):
        for side, taken in seconds.items():
            start = time.perf_counter()
            losses[side] = side()
            if turn:  # the first compiles
                taken.append(time.perf_counter() - start)
    ours_s, theirs_s = (statistics.median(taken) for taken in seconds.values())
    print(f"batch {batch}, median of {turns}: ours {ours_s:.3f} s, open_clip {theirs_s:.3f} s a step")
    print(f"ratio {theirs_s / ours_s:.2f} (above 1: ours is faster); losses {losses[ours]:.5f}, {losses[theirs]:.5f}")
    row = {"ours": round(ours_s, 3), "open_clip": round(theirs_s, 3), "unit": "s", "ratio": round(theirs_s / ours_s, 2)}
    return [{"what": f"a step, batch {batch}", **row}]


def large() -> list[dict]:
    from mindone_coca.distributed import Ranks
    from mindone_coca.factory import create_model
    from mindone_coca.training.optim import AdamW
    from mindone_coca.training.step import TrainStep
    from tests.training.reference_training import make_batch

    config = read_mapping(CONFIG_DIR / "coca_vit-l-14.yaml")
    model = create_model("coca_vit-l-14")
    model.set_grad_checkpointing()
    step = TrainStep(model, LossConfig(), AdamW(model, OptimConfig(), Ranks()), Ranks())
    batch = make_batch(config, 2)
    rows = []
    for name in ("first update, with compilation", "second update"):
        start = time.perf_counter()
        loss = step([batch], 1e-5)["loss"]
        seconds, peak = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{name}: {seconds:.1f} s, loss {loss:.4f}, peak {peak:.1f} GiB")
        rows.append({"what": name, "ours": round(seconds, 1), "unit": "s"})
        rows.append({"what": f"{name}: peak memory", "ours": round(peak, 1), "unit": "GiB"})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("small", "base"), default="small", help="base: ViT-B/32")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--large", action="store_true", help="updates of ViT-L/14 instead")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    target = arguments.output / "training.json"
    if arguments.large:
        keep(target, "large", large())
    else:
        config = SMALL if arguments.size == "small" else read_mapping(CONFIG_DIR / "coca_vit-b-32.yaml")
        keep(target, arguments.size, compare(config, arguments.batch, arguments.turns))


if __name__ == "__main__":
    main()
