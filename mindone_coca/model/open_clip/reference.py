"""open_clip itself: its arguments, its config files, and its outputs for the proof of a conversion."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mindone_coca.errors import InputError
from mindone_coca.model.open_clip.config import ModelConfig


def open_clip_arguments(config: ModelConfig) -> dict:
    """The keyword arguments of open_clip's CoCa for a config, towers as dicts."""
    data = config.to_dict()
    # ours, or told outside the constructor
    for key in ("preprocess", "custom_text", "checkpoint", "lora", "cast_dtype"):
        data.pop(key, None)
    # open_clip's CoCa takes features and tokens from both towers and fails when a config does not say so.
    data["vision_cfg"]["output_tokens"] = data["text_cfg"]["output_tokens"] = True
    return data


def config_files(config: ModelConfig, weights: Path) -> dict[Path, str]:
    """A config as open_clip reads it: its plain model JSON, and a Hugging Face `open_clip_config.json`, which makes the
    folder one that `open_clip.create_model("local-dir:FOLDER")` takes."""
    data = {**open_clip_arguments(config), "custom_text": True}
    whole = {"model_cfg": data, "preprocess_cfg": config.to_dict()["preprocess"]}
    return {
        weights.with_suffix(".json"): json.dumps(data, indent=4) + "\n",
        weights.with_name("open_clip_config.json"): json.dumps(whole, indent=4) + "\n",
    }


def run_original(
    config: ModelConfig, state: Mapping[str, np.ndarray], image: np.ndarray, text: np.ndarray
) -> dict[str, np.ndarray]:
    """See `Family.run_original`."""
    try:
        import torch
        from open_clip.coca_model import CoCa as ReferenceCoCa
    except (ImportError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"--verify forward needs torch and open_clip to compare with, and they fail: {reason}"
        ) from error
    with torch.device("meta"):
        model = ReferenceCoCa(**open_clip_arguments(config))
    model.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()}, strict=True, assign=True)
    model.text.attn_mask = model.text.build_causal_mask() if model.text.attn_mask is not None else None
    model.text_decoder.attn_mask = model.text_decoder.build_attention_mask()
    model.eval()
    with torch.no_grad():
        out = model(torch.from_numpy(image), torch.from_numpy(text.astype(np.int64)))
    return {name: out[name].numpy() for name in ("image_features", "text_features", "logits")}
