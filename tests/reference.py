"""open_clip and transformers, imported so that they work beside a CPU-only torch; random reference models."""

import math
import warnings

import numpy as np
import torch

for _signature in (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
):
    # torchvision registers fake kernels for operators that a CPU-only torch lacks: declare them first
    try:
        torch.library.define(f"torchvision::{_signature.split('(')[0]}", "(" + _signature.split("(", 1)[1])
    except RuntimeError as error:  # declared by an earlier import
        if "already" not in str(error) and "multiple" not in str(error):
            raise

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import open_clip
    from open_clip.coca_model import CoCa as ReferenceCoCa

__all__ = ["ReferenceCoCa", "numpy_state", "open_clip", "random_reference", "torch"]


def random_reference(config: dict, seed: int = 0, logit_std: float = 1.0) -> ReferenceCoCa:
    """An open_clip CoCa of this config with every parameter drawn anew (its constructor leaves some undrawn).

    Weights are scaled so that activations keep their size through the layers and all parts matter to the result.
    """
    torch.manual_seed(seed)
    config = {k: v for k, v in config.items() if k not in ("custom_text", "checkpoint", "preprocess")}
    config["vision_cfg"] = {**config["vision_cfg"], "output_tokens": True}
    config["text_cfg"] = {**config["text_cfg"], "output_tokens": True}
    return draw_parameters(ReferenceCoCa(**config).eval(), logit_std)


def draw_parameters(model: ReferenceCoCa, logit_std: float = 1.0) -> ReferenceCoCa:
    """Draw every parameter in place, by torch's global generator."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name in ("logit_scale", "logit_bias"):
                value.copy_(torch.randn_like(value) * 0.1 + (math.log(1 / 0.07) if name == "logit_scale" else -1))
            elif name.endswith(
                (
                    "ln_1.weight",
                    "ln_1_kv.weight",
                    "ln_2.weight",
                    "ln_pre.weight",
                    "ln_post.weight",
                    "ln_final.weight",
                    "ln_q.weight",
                    "ln_k.weight",
                    "gamma",
                )
            ):
                value.copy_(1 + 0.2 * torch.randn_like(value))
            elif value.ndim == 1 and not name.endswith(("cls_emb", "class_embedding")):
                value.copy_(0.1 * torch.randn_like(value))
            elif name.endswith(("proj", "text_projection")) and value.ndim == 2:
                std = logit_std if name.startswith("text_decoder") else 1.0
                value.copy_(std * torch.randn_like(value) * value.shape[0] ** -0.5)
            elif "embedding" in name or name.endswith(("query", "cls_emb")):
                value.copy_(0.5 * torch.randn_like(value))
            else:
                fan_in = value[0].numel()
                value.copy_(torch.randn_like(value) * fan_in**-0.5)
    return model


def numpy_state(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in model.state_dict().items()}
