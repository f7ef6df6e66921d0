"""Several frames of one video as one image for the decoder."""

import mindspore as ms
from mindspore import Tensor, nn, ops

from mindone_coca import graph_cache
from mindone_coca.errors import InputError
from mindone_coca.graph_cache import tag_cell
from mindone_coca.model.coca import CoCa, as_tensor, normalize

FUSIONS = ("mean", "pool")


class FramePool(nn.Cell):
    """The attentional pooler over all frames' patch tokens at once (VideoCoCa, arXiv 2212.04979, section 3).

    `construct` maps frames (F, 3, H, W) to a feature (1, embed_dim), not normalised, and tokens (1, K, D).
    """

    def __init__(self, model: CoCa) -> None:
        super().__init__(auto_prefix=False)  # the tower is only borrowed
        self.visual = model.visual
        tag_cell(self, model.graph_tag)

    def construct(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.visual.patch_tokens(frames)  # (F, 1 + patches, width)
        return self.visual.pool(tokens.reshape(1, -1, tokens.shape[-1]))


class FrameEncoder:
    """Encodes the frames of a video and fuses them.

    Args:
        fusion: `mean` averages the frames' decoder tokens and features; `pool` lets the attentional pooler read the
            patch tokens of all frames, which needs a model with one.
    """

    def __init__(self, model: CoCa, fusion: str = "mean") -> None:
        if fusion not in FUSIONS:
            raise InputError(f"fusion: must be one of {', '.join(FUSIONS)}, got {fusion!r}")
        if fusion == "pool" and not model.config.vision_cfg.attentional_pool:
            raise InputError("fusion pool: this model has no attentional pooler; use mean")
        self.model = model
        self.pool = FramePool(model) if fusion == "pool" else None

    def __call__(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (F, 3, H, W) -> feature (1, embed_dim), of unit length, and tokens (1, K, D)."""
        frames = self.model.check_images(as_tensor(frames))
        if self.pool is not None:
            latent, tokens = graph_cache.call(self.pool, frames)
            return normalize(latent), tokens
        latents, tokens = [], []
        for start in range(0, frames.shape[0], 8):  # few batch sizes, bounded memory
            latent, token = self.model.encode_image_tokens(frames[start : start + 8])
            latents.append(latent)
            tokens.append(token.astype(ms.float32))
        latent = ops.concat(latents, 0).mean(0, keep_dims=True)
        return normalize(latent), ops.concat(tokens, 0).mean(0, keep_dims=True).astype(self.model.visual.dtype)
