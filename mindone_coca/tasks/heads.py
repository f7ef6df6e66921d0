"""CoCa with a task-specific attentional pooler and a linear classifier (paper section 3.3, appendices A and B)."""

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.common.initializer import Normal

from mindone_coca.errors import InputError
from mindone_coca.model.attention import AttentionalPooler
from mindone_coca.model.base import ImageTextModel
from mindone_coca.model.layers import MASKED, LayerNorm, Linear, new_parameter
from mindone_coca.tasks.settings import TaskCfg
from mindone_coca.tensors import interpolation
from mindone_coca.weights.names import HEAD


class ImageFeatures(nn.Cell):
    """What a head for images and videos reads: images (B, n, 3, S, S) -> the encoder's tokens (B, n, K, C), float32,
    before any of CoCa's own pooling. The text is not read."""

    def __init__(self, model: ImageTextModel) -> None:
        super().__init__(auto_prefix=False)  # the tower is only borrowed
        self.visual = model.visual

    def construct(self, images: Tensor, text: Tensor) -> Tensor:
        batch, count = images.shape[:2]
        tokens = self.visual.patch_tokens(images.reshape(-1, *images.shape[2:])).astype(ms.float32)
        return tokens.reshape(batch, count, tokens.shape[1], tokens.shape[2])


class FusedFeatures(nn.Cell):
    """What a head for images and text reads: images (B, n, 3, S, S) and ids (B, T) -> the multimodal decoder's outputs
    (B, n, T, D), float32, of the text with each image by itself."""

    def __init__(self, model: ImageTextModel) -> None:
        super().__init__(auto_prefix=False)
        self.visual, self.text, self.text_decoder = model.visual, model.text, model.text_decoder

    def construct(self, images: Tensor, text: Tensor) -> Tensor:
        batch, count = images.shape[:2]
        _, image_embs = self.visual(images.reshape(-1, *images.shape[2:]))  # (B n, K, D)
        _, token_embs = self.text(text)
        length, width = token_embs.shape[1:]
        token_embs = ops.tile(token_embs[:, None], (1, count, 1, 1)).reshape(-1, length, width)  # (B n, T, D)
        return self.text_decoder.hidden(image_embs, token_embs).reshape(batch, count, length, width)


class Head(nn.Cell):
    """The attentional pooler, a norm as open_clip has after its own pooler (`ln_post`), and the classifier.

    `construct` maps features (B, n, K, C) and ids (B, T) to logits (B, classes), all in float32. Of images and videos
    the pooler reads the tokens of all n images at once, those of a video with a learned temporal embedding for each
    frame, without which it could not see their order. Where there is text, K is its length T: each image's outputs
    are pooled by themselves, those after the end token left out, and the classifier reads the pooled side by side.
    """

    def __init__(self, cfg: TaskCfg, width: int, context_width: int) -> None:
        super().__init__()
        self.reads_text = cfg.spec.reads_text
        self.pooler = AttentionalPooler(width, context_width, cfg.heads, cfg.queries, ms.float32)
        self.ln_post = LayerNorm(width)
        pooled = cfg.queries * (cfg.images if cfg.spec.reads_text else 1) * width
        self.classifier = Linear(pooled, len(cfg.labels), ms.float32)
        self.temporal_embedding = None
        if cfg.spec.video:
            self.temporal_embedding = new_parameter(
                Normal(context_width**-0.5), (cfg.num_frames, context_width), ms.float32, "temporal_embedding"
            )
        self.update_parameters_name(HEAD)

    def construct(self, features: Tensor, text: Tensor) -> Tensor:
        batch, count, length, width = features.shape
        mask = None
        if self.reads_text:
            x = features.reshape(-1, length, width)  # (B n, T, D)
            mask = ops.tile(after_end(text)[:, None], (1, count, 1)).reshape(-1, 1, 1, length)
        else:
            x = features
            if self.temporal_embedding is not None:
                places = interpolation(count, self.temporal_embedding.shape[0])  # (n, trained frames)
                x = x + ops.matmul(places, self.temporal_embedding)[None, :, None]
            x = x.reshape(batch, -1, width)  # (B, n K, C)
        pooled = self.ln_post(self.pooler(x, mask))
        return self.classifier(pooled.reshape(batch, -1))


def after_end(text: Tensor) -> Tensor:
    """Ids (B, T) -> what to add to attention scores (B, T) to hide all that follows the end token, which has the
    highest id (open_clip's `argmax` pooling finds it so)."""
    end = ops.argmax(text.astype(ms.float32), 1)  # (B,)
    return (ops.arange(0, text.shape[1], 1)[None] > end[:, None]).astype(ms.float32) * MASKED


class Classifier(nn.Cell):
    """A CoCa of either family with a head: images (B, n, 3, S, S) and ids (B, T) -> logits (B, classes), float32.

    `features` and `head` are its two halves, to run one after the other. Tasks without text do not read the ids.

    Raises:
        InputError: head.heads does not divide the head's width.
    """

    def __init__(self, model: ImageTextModel, cfg: TaskCfg) -> None:
        super().__init__(auto_prefix=False)
        width, context_width = model.head_widths(cfg.spec.reads_text)
        if width % cfg.heads:
            raise InputError(f"head.heads: {cfg.heads} does not divide the pooler's width {width}; choose a divisor")
        self.model, self.cfg = model, cfg
        self.features = FusedFeatures(model) if cfg.spec.reads_text else ImageFeatures(model)
        self.head = Head(cfg, width, context_width)
        self.logit_scale = model.logit_scale

    def construct(self, images: Tensor, text: Tensor) -> Tensor:
        return self.head(self.features(images, text), text)

    def unread(self) -> list[str]:
        """Patterns of the names of CoCa's parameters on which the logits do not depend."""
        return self.model.unread_by_head(self.cfg.spec.reads_text)

    def blocks_after(self, name: str) -> int:
        """See `ImageTextModel.blocks_after`; the head comes after all."""
        return 0 if name.startswith(HEAD) else self.model.blocks_after(name)


def no_text(batch: int) -> np.ndarray:
    """Ids that stand for the text where a task has none, (B, 1)."""
    return np.zeros((batch, 1), np.int32)
