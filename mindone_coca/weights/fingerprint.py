"""A name for a model that tells it from others, without reading all of it."""

import dataclasses
import hashlib
from pathlib import Path

from mindone_coca.model.family import FamilyConfig
from mindone_coca.weights.adapters import CONFIG, OWN_WEIGHTS, PEFT_WEIGHTS, split_weight

_PARTS, _BYTES = 64, 1 << 16
PLACES = ("checkpoint", "lora")  # of a config: where weights are, which does not change them


def model_name(config: FamilyConfig, weights: Path) -> str:
    """The weights' file name and a fingerprint of config, adapters and 64 parts of the weights, 64 KiB each."""
    plain = {name: value for name, value in dataclasses.asdict(config).items() if name not in PLACES}
    digest = hashlib.sha256(repr(plain).encode())
    for text in config.lora:
        folder, weight = split_weight(text)
        digest.update(f"{weight}".encode())
        for name in (CONFIG, PEFT_WEIGHTS, OWN_WEIGHTS):
            if (path := Path(folder) / name).is_file():
                digest.update(path.read_bytes())
    size = weights.stat().st_size
    digest.update(str(size).encode())
    with open(weights, "rb") as file:
        for part in range(_PARTS):
            file.seek(part * max(size - _BYTES, 0) // (_PARTS - 1))
            digest.update(file.read(_BYTES))
    return f"{weights.name} {digest.hexdigest()[:16]}"
