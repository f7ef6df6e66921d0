"""Several frames of one video as one image for the decoder."""

import mindspore as ms
from mindspore import Tensor, nn, ops

from mindone_coca import graph_cache
from mindone_coca.errors import InputError
from mindone_coca.graph_cache import tag_cell
from mindone_coca.model.base import ImageTextModel, as_tensor, normalize

FUSIONS = ("mean", "pool")


class VideoEncoder(nn.Cell):
    """The image tower over several frames. Each video becomes one image to the decoder.

    `construct` maps frames (B, F, 3, H, W) to features (B, embed_dim), not normalised, and tokens (B, K, D). Fusion
    `mean` averages the frames' unit features and tokens, `pool` lets the attentional pooler read all frames' patch
    tokens at once (VideoCoCa, arXiv 2212.04979, section 3). Images (B, 3, H, W) go through the tower as they are.
    """

    def __init__(self, model: ImageTextModel, fusion: str) -> None:
        super().__init__(auto_prefix=False)  # the tower is only borrowed
        self.visual, self.pools = model.visual, fusion == "pool"
        tag_cell(self, f"{model.graph_tag} {fusion}")

    def construct(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if images.ndim == 4:
            return self.visual(images)
        if self.pools:
            return self.visual.pool(self.visual.video_tokens(images))
        batch, count = images.shape[:2]
        latent, tokens = self.visual(images.reshape(-1, *images.shape[2:]))
        tokens = tokens.astype(ms.float32).reshape(batch, count, tokens.shape[1], tokens.shape[2]).mean(1)
        return normalize(latent).reshape(batch, count, -1).mean(1), tokens.astype(self.visual.dtype)


class FrameEncoder:
    """Encodes the frames of a video and fuses them.

    Args:
        fusion: `mean` averages the frames' decoder tokens and features; `pool` lets the attentional pooler read the
            patch tokens of all frames, which needs a model with one.
    """

    def __init__(self, model: ImageTextModel, fusion: str = "mean") -> None:
        if fusion not in FUSIONS:
            raise InputError(f"fusion: must be one of {', '.join(FUSIONS)}, got {fusion!r}")
        if fusion == "pool" and not model.pools_frames:
            raise InputError("fusion pool: this model has no attentional pooler; use mean")
        self.model = model
        self.pool = VideoEncoder(model, fusion) if fusion == "pool" else None

    def __call__(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (F, 3, H, W) -> feature (1, embed_dim), of unit length, and tokens (1, K, D)."""
        frames = self.model.check_images(as_tensor(frames))
        if self.pool is not None:
            latent, tokens = graph_cache.call(self.pool, frames[None])
            return normalize(latent), tokens
        latents, tokens = [], []
        for start in range(0, frames.shape[0], 8):  # few batch sizes, bounded memory
            latent, token = self.model.encode_image_tokens(frames[start : start + 8])
            latents.append(latent)
            tokens.append(token.astype(ms.float32))
        latent = ops.concat(latents, 0).mean(0, keep_dims=True)
        return normalize(latent), ops.concat(tokens, 0).mean(0, keep_dims=True).astype(self.model.visual.dtype)
