"""A name for a model that tells it from others, without reading all of it."""

import dataclasses
import hashlib
from pathlib import Path

from mindone_coca.model.family import FamilyConfig

_PARTS, _BYTES = 64, 1 << 16


def model_name(config: FamilyConfig, weights: Path) -> str:
    """The weights' file name and a fingerprint of config and weights: of 64 parts of the file, 64 KiB each."""
    # the path of the weights does not change them
    plain = {name: value for name, value in dataclasses.asdict(config).items() if name != "checkpoint"}
    digest = hashlib.sha256(repr(plain).encode())
    size = weights.stat().st_size
    digest.update(str(size).encode())
    with open(weights, "rb") as file:
        for part in range(_PARTS):
            file.seek(part * max(size - _BYTES, 0) // (_PARTS - 1))
            digest.update(file.read(_BYTES))
    return f"{weights.name} {digest.hexdigest()[:16]}"
