"""What both families of models offer alike: features of images and texts, captions."""

from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from mindone_coca import graph_cache
from mindone_coca.errors import InputError


def normalize(x: Tensor) -> Tensor:
    """Unit length over the last axis, in float32, as torch.nn.functional.normalize."""
    x = x.astype(ms.float32)
    return x / ops.maximum(ops.sqrt((x * x).sum(-1, keepdims=True)), 1e-12)


def as_tensor(x: Tensor | np.ndarray | list, dtype: ms.Type | None = None) -> Tensor:
    x = x if isinstance(x, Tensor) else Tensor(np.ascontiguousarray(x))
    return x if dtype is None or x.dtype == dtype else x.astype(dtype)


class ImageTextModel(nn.Cell):
    """A model with the towers `visual` (images -> feature, decoder tokens), `text` (ids -> feature, embeddings) and
    `text_decoder` (decoder tokens, embeddings -> logits), and with `check_text` for the ids it takes."""

    def check_images(self, images: Tensor) -> Tensor:
        if self.visual.image_hw is None:  # an encoder from elsewhere judges for itself
            return images
        expected = (3, *self.visual.image_hw)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise InputError(f"images: must have shape (B, {', '.join(map(str, expected))}), got {tuple(images.shape)}")
        return images

    def encode_image_tokens(self, images: Tensor | np.ndarray, normalize_latent: bool = True) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) -> feature (B, embed_dim) and tokens for the decoder (B, K, D)."""
        latent, tokens = graph_cache.call(self.visual, self.check_images(as_tensor(images)))
        return normalize(latent) if normalize_latent else latent.astype(ms.float32), tokens

    def encode_image(self, images: Tensor | np.ndarray, normalize: bool = True) -> Tensor:
        """Images (B, 3, H, W) -> features (B, embed_dim), of unit length unless `normalize` is False."""
        return self.encode_image_tokens(images, normalize)[0]

    def encode_text(self, text: Tensor | np.ndarray, normalize: bool = True) -> Tensor:
        """Ids (B, T) -> features (B, embed_dim). The class token sits after T tokens, so padding changes the result."""
        latent = graph_cache.call(self.text, self.check_text(text))[0]
        return _normalize(latent) if normalize else latent.astype(ms.float32)

    def generate(self, *arguments: Any, **options: Any) -> Tensor | tuple[Tensor, Tensor]:
        """Caption images; `mindone_coca.generation.generate` holds the arguments, by position as in open_clip too."""
        from mindone_coca.generation import generate

        return generate(self, *arguments, **options)


_normalize = normalize  # `encode_text` has an argument of that name
