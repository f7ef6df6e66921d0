"""Proof of a conversion: the result, loaded into MindSpore, against the source."""

import hashlib

import numpy as np
from mindspore.nn.utils import no_init_parameters

from mindone_coca.config import ModelConfig
from mindone_coca.errors import InputError
from mindone_coca.model.coca import CoCa
from mindone_coca.weights.convert import Plan
from mindone_coca.weights.dtypes import cast
from mindone_coca.weights.infer import open_clip_arguments
from mindone_coca.weights.load import load_weights, parameter_entries
from mindone_coca.weights.names import to_mindspore, to_open_clip


def _digest(array: np.ndarray) -> bytes:
    return hashlib.sha256(memoryview(np.ascontiguousarray(array).reshape(-1)).cast("B")).digest()


def _loaded(plan: Plan) -> CoCa:
    """The written file in a float32 model."""
    with no_init_parameters():
        model = CoCa(**open_clip_arguments(plan.config))
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
    for name, entry in plan.entries.items():
        ours = loaded[to_mindspore(name) or name]
        source = cast(entry.read(), entry.dtype, ours.dtype)
        if source.shape != ours.shape or _digest(source) != _digest(ours.read()):
            different.append(name)
    if different or len(loaded) != len(plan.entries):
        raise InputError(f"{plan.target}: {len(different)} tensors differ from {plan.source.path}: {different[:3]}")
    source = plan.source
    rows = [
        ("", str(source.path.name), str(plan.target.name)),
        ("entries", f"{len(source)}", f"{len(loaded)}"),
        ("parameters", f"{sum(np.prod(e.shape, dtype=int) for e in source.values()):,}", f"{plan.parameters:,}"),
        ("bytes of weights", f"{sum(e.nbytes for e in source.values()):,}", f"{plan.nbytes:,}"),
        ("equal checksums", "", f"{len(loaded)} of {len(plan.entries)}"),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}" for a, b, c in rows)


def _inputs(config: ModelConfig) -> tuple[np.ndarray, np.ndarray]:
    """One fixed image (1, 3, H, W) and one full-length text (1, context) without padding."""
    rng = np.random.default_rng(0)
    image = rng.standard_normal((1, 3, *config.vision_cfg.image_hw), dtype=np.float32)
    length = min(config.text_cfg.context_length, config.multimodal_cfg.context_length)
    return image, rng.integers(1, config.text_cfg.vocab_size, (1, length), dtype=np.int32)


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
    """Run one fixed image and text through open_clip on the source's weights and MindSpore on the written file.

    Returns:
        One line with the largest relative difference (max|a - b| / max|b|) of each output.

    Raises:
        InputError: torch or open_clip is missing, or the file does not load.
    """
    image, text = _inputs(plan.config)
    theirs = _torch_outputs(plan, image, text)
    model = _loaded(plan)
    out = model(image, text)
    parts = []
    for name, want in theirs.items():
        got = out[name].asnumpy()
        parts.append(f"{name} {np.abs(got - want.reshape(got.shape)).max() / np.abs(want).max():.1e}")
    return "largest relative difference from open_clip: " + ", ".join(parts)
