"""open_clip's losses over one batch, and batches to feed both sides."""

import numpy as np

from mindone_coca.training.settings import LossConfig, OptimConfig
from tests.reference import open_clip, torch


def make_batch(
    config: dict, batch: int, padded: bool = True, seed: int = 0, longest: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Images (B, 3, H, W) and captions (B, T) that are, if padded, of very unequal length, up to `longest` tokens."""
    rng = np.random.default_rng(seed)
    size = config["vision_cfg"]["image_size"]
    size = size if isinstance(size, tuple) else (size, size)
    length, vocabulary = config["text_cfg"]["context_length"], config["text_cfg"]["vocab_size"]
    images = rng.standard_normal((batch, 3, *size)).astype(np.float32)
    text = rng.integers(1, vocabulary, (batch, length)).astype(np.int32)
    if padded:
        lengths = np.where(np.arange(batch) % 3 == 0, longest or length, rng.integers(2, 5, batch))
        text[np.arange(length)[None] >= lengths[:, None]] = 0
    return images, text


def reference_losses(reference, images: np.ndarray, text: np.ndarray, config: LossConfig) -> dict[str, torch.Tensor]:
    """The weighted terms; CoCaLoss, or ClipLoss with the bias plus the caption term where there is a bias. The z-loss,
    which open_clip has not, is torch's logsumexp over its logits."""
    output = reference(torch.from_numpy(images), torch.from_numpy(text).long())
    output = {
        name: value[:, 0] if name == "image_features" and value.ndim == 3 else value for name, value in output.items()
    }
    bias = output.pop("logit_bias", None)
    coca = open_clip.CoCaLoss(config.caption_weight, 0 if bias is not None else config.contrastive_weight)
    losses = coca(**output, output_dict=True)
    if bias is not None:
        clip = open_clip.ClipLoss()(output["image_features"], output["text_features"], output["logit_scale"], bias)
        losses["contrastive_loss"] = config.contrastive_weight * clip
    if config.z_loss_weight:
        log_z = output["logits"].logsumexp(-1)[output["labels"] != 0]
        losses["z_loss"] = config.z_loss_weight * (log_z**2).mean()
    return losses


def reference_optimiser(reference, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW as open_clip_train.main sets it up: group 0 without weight decay, group 1 with."""

    def excluded(name: str, p: torch.nn.Parameter) -> bool:
        return p.ndim < 2 or "bn" in name or "ln" in name or "bias" in name or "logit_scale" in name

    named = list(reference.named_parameters())
    groups = [
        {"params": [p for n, p in named if excluded(n, p)], "weight_decay": 0.0},
        {"params": [p for n, p in named if not excluded(n, p)], "weight_decay": config.weight_decay},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps)
