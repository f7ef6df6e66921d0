#!/usr/bin/env python
"""Store what open_clip gives for `inputs`; run it again where these change.

python tests/versions/make_numbers.py
"""

import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mindone_coca.data.loader import open_data
from mindone_coca.model.families import load_model_config
from mindone_coca.preprocess.tokenizer import Tokenizer
from mindone_coca.preprocess.transforms import make_transform
from mindone_coca.tasks.settings import load_train_config
from mindone_coca.training.job import WithoutCrops
from tests.reference import ReferenceCoCa, torch
from tests.training.reference_training import reference_losses, reference_optimiser
from tests.versions import inputs


def losses(reference: ReferenceCoCa, folder: Path) -> list[dict[str, float]]:
    """Train open_clip's model on the batches that ours would see -> the terms of each step."""
    inputs.write_pairs(folder)
    config = load_train_config(inputs.write_training(folder, folder / "none.bin"), ())
    model_config = load_model_config(config.model.config)
    transform = WithoutCrops(make_transform(model_config.image_hw, model_config.preprocess))
    length = model_config.training_length
    data = open_data(config.data, Tokenizer(), transform, batch_size=inputs.BATCH, context_length=length)
    optimiser, found = reference_optimiser(reference, config.optim), []
    reference.train()
    for step in range(inputs.STEPS):
        batch = list(data.epoch(step // len(data)))[step % len(data)]
        terms = reference_losses(reference, batch.images, batch.text, config.loss)
        loss = torch.stack([*terms.values()]).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            reference.logit_scale.clamp_(0, math.log(100))
        found.append({"loss": loss.item(), "contrastive_loss": terms["contrastive_loss"].item()})
    return found


def numbers() -> dict[str, Any]:
    """Features, captions and losses, as JSON values."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        reference = ReferenceCoCa(**inputs.CONFIG).eval()
        reference.load_state_dict(torch.load(inputs.write_model(folder), weights_only=True), strict=True)
        pixels, ids = torch.from_numpy(inputs.images()), torch.from_numpy(inputs.text())
        with torch.no_grad():
            found: dict[str, Any] = {
                "image_features": reference.encode_image(pixels).numpy().tolist(),
                "text_features": reference.encode_text(ids).numpy().tolist(),
                "beam": reference.generate(pixels, **inputs.BEAM).numpy().tolist(),
                "greedy": reference.generate(pixels, **inputs.GREEDY).numpy().tolist(),
            }
        found["steps"] = losses(reference, folder)
        return found


if __name__ == "__main__":
    inputs.NUMBERS.write_text(json.dumps(numbers()) + "\n")
