"""Videos and images in, captions out."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from mindone_coca.config import ModelConfig, load_model_config
from mindone_coca.errors import InputError
from mindone_coca.factory import create_model, find_weights
from mindone_coca.model.coca_pytorch.config import ParallelConfig
from mindone_coca.model.video import FrameEncoder
from mindone_coca.preprocess.tokenizer import Tokenizer
from mindone_coca.preprocess.transforms import create_transforms
from mindone_coca.video.frames import VideoFrame, read_frames


def make_transform(config: ModelConfig | ParallelConfig) -> Callable[[Image.Image], np.ndarray]:
    """The image transform of a model: PIL image -> (3, H, W) float32."""
    preprocess = config.preprocess
    return create_transforms(
        config.image_hw, preprocess.mean, preprocess.std, preprocess.interpolation, preprocess.resize_mode,
        preprocess.fill_color,
    )  # fmt: skip


def one_line(caption: str) -> str:
    return " ".join(caption.split())


class VideoCaptioner:
    """Captions one video or image at a time.

    Args:
        config: model config, as for `create_model`.
        model_path: weights file, or a folder with one.
        dtype: `float32`, `float16` or `bfloat16`.
        num_frames: frames that `multi_frames` takes, spread evenly from the first to the last.
        fusion: `mean` or `pool`, see `FrameEncoder`.
    Raises:
        InputError: config, weights or options that do not go together.
    """

    def __init__(
        self,
        config: str | os.PathLike | Mapping | ModelConfig | ParallelConfig,
        model_path: str | os.PathLike,
        dtype: str = "float32",
        num_frames: int = 16,
        fusion: str = "mean",
    ) -> None:
        self.config = load_model_config(config)
        if num_frames < 1:
            raise InputError(f"num_frames: must be at least 1, got {num_frames}")
        self.tokenizer = Tokenizer()
        if self.config.vocab_size != self.tokenizer.vocab_size:
            raise InputError(
                f"vocabulary of {self.config.vocab_size}: captions need CLIP's tokenizer with "
                f"{self.tokenizer.vocab_size} ids; use a model trained with it"
            )
        self.num_frames = num_frames
        self.model = create_model(self.config, find_weights(model_path), dtype)
        self.encoder = FrameEncoder(self.model, fusion)
        self.transform = make_transform(self.config)

    def __call__(
        self, video_path: str | os.PathLike, frame_type: str = "middle", prompt: str | None = None, **generation: Any
    ) -> str:
        """Caption a video, or a still image as a one-frame video.

        Args:
            frame_type: `middle`, the frame at half the frame count, or `multi_frames`.
            prompt: text that the caption continues; it is part of the result.
            generation: arguments of `CoCa.generate`.
        Raises:
            InputError: an unreadable file, naming it, or arguments that do not go together.
        """
        return self.caption_frames(read_frames(video_path, frame_type, self.num_frames), prompt, **generation)

    def caption_frames(self, frames: list[VideoFrame], prompt: str | None = None, **generation: Any) -> str:
        """One caption for all the frames."""
        return self.captions_of_frames(frames, prompt, **generation)[0]

    def captions_of_frames(self, frames: list[VideoFrame], prompt: str | None = None, **generation: Any) -> list[str]:
        """As many captions for all the frames as `num_return_sequences` asks for, best first."""
        images = np.stack([self.transform(frame.image) for frame in frames])  # (F, 3, H, W)
        _, tokens = self.encoder(images)
        ids = self.model.generate(None, self.prompt_ids(prompt), image_embs=tokens, **generation)
        return [self.tokenizer.decode(row, skip_special_tokens=True) for row in ids.asnumpy()]

    def prompt_ids(self, prompt: str | None) -> np.ndarray | None:
        """The start token and the prompt's tokens, (1, P)."""
        if prompt is None:
            return None
        return np.array([[self.tokenizer.sot_token_id, *self.tokenizer.encode(prompt)]])
