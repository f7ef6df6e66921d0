"""Proof of a conversion: the result, loaded into MindSpore, against the source."""

import dataclasses
import hashlib

import numpy as np
from mindspore.nn.utils import no_init_parameters

from mindone_coca.config import ModelConfig
from mindone_coca.conversion.convert import Plan
from mindone_coca.errors import InputError
from mindone_coca.factory import build_model
from mindone_coca.model.coca_pytorch.config import ParallelConfig
from mindone_coca.model.coca_pytorch.model import ParallelCoCa
from mindone_coca.model.coca_pytorch.names import is_derived
from mindone_coca.model.coca_pytorch.reference import coca_pytorch_outputs, our_outputs
from mindone_coca.model.open_clip.model import CoCa
from mindone_coca.weights.formats.dtypes import cast
from mindone_coca.weights.infer import open_clip_arguments
from mindone_coca.weights.load import load_weights, parameter_entries
from mindone_coca.weights.names import to_mindspore, to_open_clip


def _digest(array: np.ndarray) -> bytes:
    return hashlib.sha256(memoryview(np.ascontiguousarray(array).reshape(-1)).cast("B")).digest()


def _loaded(plan: Plan) -> CoCa | ParallelCoCa:
    """The written file in a float32 model."""
    with no_init_parameters():
        model = build_model(dataclasses.replace(plan.config, cast_dtype=None))
    load_weights(model, plan.target)
    return model


def verify_tensors(plan: Plan) -> str:
    """Load the written file into a float32 MindSpore model and compare checksums with the source, tensor by tensor.

    The source is read and converted again; float16 and bfloat16 widen to float32 without loss, so equal checksums
    mean equal weights.

    Returns:
        A table of entries, parameters and bytes.

    Raises:
        InputError: the file does not load strictly, or tensors differ: how many and the first of them.
    """
    model = _loaded(plan)
    loaded = parameter_entries(model)
    different = []
    written = {name: entry for name, entry in plan.entries.items() if not is_derived(name, entry.shape)}
    for name, entry in written.items():
        ours = loaded[to_mindspore(name) or name]
        source = cast(entry.read(), entry.dtype, ours.dtype)
        if source.shape != ours.shape or _digest(source) != _digest(ours.read()):
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


def _inputs(config: ModelConfig | ParallelConfig) -> tuple[np.ndarray, np.ndarray]:
    """One fixed image (1, 3, H, W) and one full-length text (1, context) without padding."""
    rng = np.random.default_rng(0)
    image = rng.standard_normal((1, 3, *config.image_hw), dtype=np.float32)
    return image, rng.integers(1, config.vocab_size, (1, config.context_length), dtype=np.int32)


def _torch_outputs(plan: Plan, image: np.ndarray, text: np.ndarray) -> dict[str, np.ndarray]:
    try:
        import torch
        from open_clip.coca_model import CoCa as ReferenceCoCa
    except (ImportError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"--verify forward needs torch and open_clip to compare with, and they fail: {reason}"
        ) from error
    with torch.device("meta"):
        model = ReferenceCoCa(**open_clip_arguments(plan.config))
    state = {}
    for name, entry in plan.entries.items():
        values = cast(entry.read(), entry.dtype, "float32").copy()
        state[to_open_clip(name) or name] = torch.from_numpy(values)
    model.load_state_dict(state, strict=True, assign=True)
    model.text.attn_mask = model.text.build_causal_mask() if model.text.attn_mask is not None else None
    model.text_decoder.attn_mask = model.text_decoder.build_attention_mask()
    model.eval()
    with torch.no_grad():
        out = model(torch.from_numpy(image), torch.from_numpy(text.astype(np.int64)))
    return {name: out[name].numpy() for name in ("image_features", "text_features", "logits")}


def verify_forward(plan: Plan) -> str:
    """Run one fixed image and text through the original on the source's weights and MindSpore on the written file.

    The original is open_clip, or coca-pytorch with vit-pytorch.

    Returns:
        One line with the largest relative difference (max|a - b| / max|b|) of each output.

    Raises:
        InputError: torch or the original is missing, or the file does not load.
    """
    image, text = _inputs(plan.config)
    if isinstance(plan.config, ParallelConfig):
        theirs, ours = coca_pytorch_outputs(plan, image, text), our_outputs(_loaded(plan), image, text)
    else:
        theirs, out = _torch_outputs(plan, image, text), _loaded(plan)(image, text)
        ours = {name: out[name].asnumpy() for name in theirs}
    original = "coca-pytorch" if isinstance(plan.config, ParallelConfig) else "open_clip"
    parts = []
    for name, want in theirs.items():
        got = ours[name]
        parts.append(f"{name} {np.abs(got - want.reshape(got.shape)).max() / np.abs(want).max():.1e}")
    return f"largest relative difference from {original}: " + ", ".join(parts)
