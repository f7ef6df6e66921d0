"""Videos and images in, captions out."""

import dataclasses
import inspect
import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from mindone_coca.argument_names import check_argument_names, names_arguments
from mindone_coca.captioning.batches import BatchCaptioner
from mindone_coca.captioning.options import CaptionOptions
from mindone_coca.captioning.reading import PassageReader
from mindone_coca.config import Dtype, FrameType, Fusion
from mindone_coca.errors import InputError
from mindone_coca.factory import create_model, load_config_and_weights
from mindone_coca.generation.generate import generate
from mindone_coca.model.family import FamilyConfig
from mindone_coca.model.video import check_fusion
from mindone_coca.preprocess.tokenizer import Tokenizer
from mindone_coca.preprocess.transforms import make_transform

# what a call takes: those of `generate` too that the captioner does not give itself
_FROM_CAPTIONER = ("model", "image", "text", "image_embs", "return_scores")
_ARGUMENTS = ["video_path", "frame_type", "prompt"]
_OF_CONSTRUCTOR = dict.fromkeys(("num_frames", "fusion", "dtype"), "give it when you make the captioner")
_ARGUMENTS += [name for name in inspect.signature(generate).parameters if name not in _FROM_CAPTIONER]


class VideoCaptioner:
    """Captions one video or image at a time.

    Args:
        config: model config, as for `create_model`.
        model_path: weights file, or a folder with one; None takes those that the config's `checkpoint` names.
        dtype: `float32`, `float16` or `bfloat16`; None leaves it to the config.
        num_frames: frames that `multi_frames` takes, spread evenly from the first to the last.
        fusion: how several frames become one: `mean` averages their tokens and features, `pool` lets the attentional
            pooler read the patch tokens of all frames, which needs a model with one.
    Raises:
        InputError: config, weights or options that do not go together.
    """

    @partial(names_arguments, elsewhere=dict.fromkeys(_ARGUMENTS, "give it when you call the captioner"))
    def __init__(
        self,
        config: str | os.PathLike | Mapping | FamilyConfig,
        model_path: str | os.PathLike | None = None,
        dtype: Dtype | None = None,
        num_frames: int = 16,
        fusion: Fusion = "mean",
    ) -> None:
        self.config, weights = load_config_and_weights(config, model_path)
        # refuses wrong values before the model is loaded
        self._options = CaptionOptions(num_frames=num_frames, fusion=fusion)
        self.tokenizer = Tokenizer()
        if self.config.vocab_size != self.tokenizer.vocab_size:
            raise InputError(
                f"vocabulary of {self.config.vocab_size}: captions need CLIP's tokenizer with "
                f"{self.tokenizer.vocab_size} ids; use a model trained with it"
            )
        if weights is None:
            raise InputError("model_path: give weights, as the config names none")
        self.model = create_model(self.config, weights, dtype)
        check_fusion(self.model, fusion)
        self.transform = make_transform(self.config.image_hw, self.config.preprocess)

    def __call__(
        self,
        video_path: str | os.PathLike,
        frame_type: FrameType = "middle",
        prompt: str | None = None,
        **generation: Any,
    ) -> str:
        """Caption a video, or a still image as a one-frame video.

        Args:
            frame_type: `middle`, the frame at half the frame count, or `multi_frames`.
            prompt: text that the caption continues; it is part of the result.
            generation: arguments of `CoCa.generate`, but those for images, prompts and scores.
        Raises:
            InputError: an unreadable file, naming it, or arguments that do not exist or do not go together.
        """
        check_argument_names("VideoCaptioner", generation, _ARGUMENTS, _OF_CONSTRUCTOR)
        if not isinstance(video_path, str | os.PathLike):
            raise InputError(f"video_path: must be the path of one file, got {type(video_path).__name__}")
        options = dataclasses.replace(self._options, frame_type=frame_type, prompt=prompt, generation=generation)
        if options.in_segments:
            raise InputError("frame_type: segments gives a caption for each; give middle or multi_frames")
        [(_, caption)] = self.batches(options)(PassageReader(options, self.transform, thumbnails=False)(video_path))
        return caption.text

    def batches(self, options: CaptionOptions, keep_features: bool = False) -> BatchCaptioner:
        """What captions any number of videos by these options."""
        return BatchCaptioner(self.model, self.tokenizer, options, keep_features)
