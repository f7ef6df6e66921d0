"""Proof of a conversion: the result, loaded into MindSpore, against the source."""

import dataclasses
import hashlib

import numpy as np

from mindone_coca.conversion.convert import Plan
from mindone_coca.errors import InputError
from mindone_coca.factory import create_model
from mindone_coca.model.base import ImageTextModel
from mindone_coca.model.families import family_of
from mindone_coca.model.family import FamilyConfig
from mindone_coca.weights.formats.dtypes import cast
from mindone_coca.weights.load import parameter_entries


def _digest(array: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(array).reshape(-1).data.cast("B")).digest()


def _loaded(plan: Plan) -> ImageTextModel:
    """The written file in a float32 model."""
    return create_model(dataclasses.replace(plan.config, cast_dtype=None), plan.target)


def verify_tensors(plan: Plan) -> str:
    """Load the written file into a float32 MindSpore model and compare checksums with the source, tensor by tensor.

    The source is read and converted again; float16 and bfloat16 widen to float32 without loss, so equal checksums
    mean equal weights.

    Returns:
        A table of entries, parameters and bytes.

    Raises:
        InputError: the file does not load strictly, or tensors differ: how many and the first of them.
    """
    family = family_of(plan.config)
    loaded = parameter_entries(_loaded(plan))
    different = []
    written = {name: entry for name, entry in plan.entries.items() if not family.is_derived(name, entry.shape)}
    for name, entry in written.items():
        ours = loaded[name if name in loaded else family.to_mindspore(name) or name]
        array = cast(entry.read(), entry.dtype, ours.dtype)
        if array.shape != ours.shape or _digest(array) != _digest(ours.read()):
            different.append(name)
    if different or len(loaded) != len(written):
        raise InputError(f"{plan.target}: {len(different)} tensors differ from {plan.source.path}: {different[:3]}")
    source = plan.source
    rows = [
        ("", str(source.path.name), str(plan.target.name)),
        ("entries", f"{len(source)}", f"{len(loaded)}"),
        ("parameters", f"{sum(np.prod(e.shape, dtype=int) for e in source.values()):,}", f"{plan.parameters:,}"),
        ("bytes of weights", f"{sum(e.nbytes for e in source.values()):,}", f"{plan.nbytes:,}"),
        ("equal checksums", "", f"{len(loaded)} of {len(written)}"),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}" for a, b, c in rows)


def _inputs(config: FamilyConfig) -> tuple[np.ndarray, np.ndarray]:
    """One fixed image (1, 3, H, W) and one full-length text (1, context) without padding."""
    rng = np.random.default_rng(0)
    image = rng.standard_normal((1, 3, *config.image_hw), dtype=np.float32)
    return image, rng.integers(1, config.vocab_size, (1, config.context_length), dtype=np.int32)


def verify_forward(plan: Plan) -> str:
    """Run one fixed image and text through the original on the source's weights and MindSpore on the written file.

    Returns:
        One line with the largest relative difference (max|a - b| / max|b|) of each output.

    Raises:
        InputError: the original is not installed, or the file does not load.
    """
    family = family_of(plan.config)
    image, text = _inputs(plan.config)
    state = {
        family.to_original(name) or name: cast(entry.read(), entry.dtype, "float32").copy()
        for name, entry in plan.entries.items()
    }
    theirs = family.run_original(plan.config, state, image, text)
    ours = _loaded(plan).outputs(image, text)
    parts = []
    for name, want in theirs.items():
        got = ours[name].asnumpy()
        parts.append(f"{name} {np.abs(got - want.reshape(got.shape)).max() / np.abs(want).max():.1e}")
    return f"largest relative difference from {family.original}: " + ", ".join(parts)
