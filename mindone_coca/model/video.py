"""Several frames of one video as one image for the decoder."""

import mindspore as ms
from mindspore import Tensor, nn

from mindone_coca.config import Fusion
from mindone_coca.errors import InputError
from mindone_coca.graph_cache import tag_cell
from mindone_coca.model.base import ImageTextModel
from mindone_coca.tensors import normalize


class VideoEncoder(nn.Cell):
    """The image tower over several frames. Each video becomes one image to the decoder.

    `construct` maps frames (B, F, 3, H, W) to features (B, embed_dim), not normalised, and tokens (B, K, D). Fusion
    `mean` averages the frames' unit features and tokens, `pool` lets the attentional pooler read all frames' patch
    tokens at once (VideoCoCa, arXiv 2212.04979, section 3). Images (B, 3, H, W) go through the tower as they are.
    """

    def __init__(self, model: ImageTextModel, fusion: Fusion) -> None:
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


def check_fusion(model: ImageTextModel, fusion: Fusion) -> None:
    """Raise InputError where the model cannot fuse frames so."""
    if fusion == "pool" and not model.pools_frames:
        raise InputError("fusion pool: this model has no attentional pooler; use mean")
