"""From a sample of a source to arrays: decoding, and the random draws of captions, frames and crops."""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from mindone_coca.data.batches import Reading
from mindone_coca.data.samples import BadSample, Sample, Source
from mindone_coca.errors import InputError
from mindone_coca.video.frames import open_video, read_frames
from mindone_coca.video.pictures import DEFAULT_RULES, PictureRules

FRAME_TYPES = ("middle", "random", "multi_frames")


class FrameReader:
    """Files of images and videos to frames, and these through the transform.

    Args:
        transform: `transform(image, seed)` -> (3, S, S) float32 when training, else `transform(image)`.
        frame_type: "middle" or "random" take one frame of a video; "multi_frames" takes `num_frames`, and that many
            times the same image where there is no video.
        rules: how still pictures are read.
    """

    def __init__(
        self,
        transform: Callable[..., np.ndarray],
        *,
        training: bool,
        frame_type: str,
        num_frames: int,
        rules: PictureRules = DEFAULT_RULES,
    ):
        if frame_type not in FRAME_TYPES:
            raise InputError(f"frame_type: {frame_type!r} is none of {', '.join(FRAME_TYPES)}")
        if num_frames < 1:
            raise InputError(f"num_frames: {num_frames} must be at least 1")
        self._transform, self._training, self._rules = transform, training, rules
        self._frame_type = frame_type
        self.count = num_frames if frame_type == "multi_frames" else 1  # frames of each sample

    def read(self, sample: Sample, draws: np.random.Generator, crop_seed: tuple[int, ...]) -> list[np.ndarray]:
        """The frames of one sample, each (3, S, S) float32, which all share one crop. Raises BadSample."""
        try:
            arrays = self._pixels(self._frames(sample, draws), crop_seed)
        except (OSError, ValueError) as error:  # an image of a mode or size that Pillow cannot convert or resize
            raise BadSample(sample.name, str(error)) from error
        return arrays * self.count if len(arrays) == 1 else arrays

    def image_shape(self) -> tuple[int, int, int]:
        """(3, S, S)."""
        channels, height, width = self._pixels([Image.new("RGB", (8, 8))], (0,))[0].shape
        return channels, height, width

    def _frames(self, sample: Sample, draws: np.random.Generator) -> list[Image.Image]:
        try:
            if self._frame_type == "random":
                video, position = open_video(sample.encoded, self._rules), draws.random()
                return [video.image(frame) for frame in video.pick(lambda count: [int(position * count)])]
            frames = [frame.image for frame in read_frames(sample.encoded, self._frame_type, self.count, self._rules)]
        except (OSError, InputError) as error:
            raise BadSample(sample.name, str(error).removeprefix(f"{sample.name}: ")) from error
        if len(frames) == 1:
            return frames
        # A video with fewer frames than wanted gives each of them several times in a row.
        return [frames[number * len(frames) // self.count] for number in range(self.count)]

    def _pixels(self, frames: list[Image.Image], crop_seed: tuple[int, ...]) -> list[np.ndarray]:
        if self._training:
            return [self._transform(frame, crop_seed) for frame in frames]
        return [self._transform(frame) for frame in frames]


class SampleReader:
    """Images or videos with captions, as batches.Reader wants them. The seed decides on captions, frames and crops."""

    def __init__(
        self,
        sources: Sequence[Source],
        tokenizer: Callable[..., np.ndarray],
        transform: Callable[..., np.ndarray],
        *,
        context_length: int,
        seed: int,
        training: bool,
        frame_type: str,
        num_frames: int,
        rules: PictureRules = DEFAULT_RULES,
    ):
        self._sources, self._tokenizer, self._seed, self._training = sources, tokenizer, seed, training
        self._frames = FrameReader(
            transform, training=training, frame_type=frame_type, num_frames=num_frames, rules=rules
        )
        self._stacked = num_frames if frame_type == "multi_frames" else None
        self.lengths, self.text_length = [len(source) for source in sources], context_length

    def image_shape(self) -> tuple[int, ...]:
        """(3, S, S), or (F, 3, S, S) for multi_frames."""
        shape = self._frames.image_shape()
        return (self._stacked, *shape) if self._stacked else shape

    def read(self, source: int, index: int, epoch: int, slot: int) -> Reading:
        """Read sample `index` of source number `source` for its slot in the epoch. Raises BadSample."""
        sample = self._sources[source][index]
        if not sample.captions:
            raise BadSample(sample.name, "it has no caption")
        draws = np.random.default_rng((self._seed, 2, epoch, slot))
        caption = sample.captions[draws.integers(len(sample.captions)) if self._training else 0]
        frames = self._frames.read(sample, draws, (self._seed, 3, epoch, slot))
        text = self._tokenizer([caption], context_length=self.text_length)[0]
        images = np.stack(frames) if self._stacked else frames[0]
        return Reading(images, text, {"name": sample.name, "caption": caption})
