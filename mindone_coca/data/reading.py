"""From a sample of a source to arrays: decoding, the random draws, and what happens to samples that cannot be read."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
from PIL import Image

from ..errors import InputError
from .samples import VIDEO_SUFFIXES, BadSample, Sample, Source
from .video import read_frames
from .video_file import VideoFile

FRAME_TYPES = ("middle", "random", "multi_frames")
MAX_BAD_RUN = 100  # so many unreadable samples in a row are no accident


@dataclass(frozen=True)
class Reading:
    """One sample as the model takes it, and those before it that could not be read."""

    images: np.ndarray  # (3, S, S) or (F, 3, S, S) float32
    text: np.ndarray  # (T,) int32
    name: str
    caption: str
    bad: list[tuple[str, str]]  # name and reason of each sample that was passed over
    stuck: bool = False  # none could be read, and all is blank


class SampleReader:
    """Turns (source, index) into arrays. Every draw depends on (seed, epoch, slot) only, never on what came before.

    A sample that cannot be read is replaced by the next one of its source: so a batch keeps its shape, and the
    same seed gives the same batches wherever the run starts and however many processes read.
    """

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
    ):
        if frame_type not in FRAME_TYPES:
            raise InputError(f"frame_type: {frame_type!r} is none of {', '.join(FRAME_TYPES)}")
        if num_frames < 1:
            raise InputError(f"num_frames: {num_frames} must be at least 1")
        self._sources, self._tokenizer, self._transform = sources, tokenizer, transform
        self._context_length, self._seed, self._training = context_length, seed, training
        self._frame_type, self._num_frames = frame_type, num_frames

    def image_shape(self) -> tuple[int, ...]:
        """The shape of one sample's images."""
        return self._pixels([Image.new("RGB", (8, 8))], (0,)).shape

    def read(self, source: int, index: int, epoch: int, slot: int) -> Reading:
        """Read sample `index` of source number `source` for its slot in the epoch."""
        bad = []
        samples = self._sources[source]
        for step in range(min(len(samples), MAX_BAD_RUN)):
            try:
                return self._read(samples[(index + step) % len(samples)], epoch, slot, bad)
            except BadSample as error:
                bad.append((error.name, error.reason))
        blank = np.zeros(self._context_length, np.int32)
        return Reading(np.zeros(self.image_shape(), np.float32), blank, "", "", bad, stuck=True)

    def _read(self, sample: Sample, epoch: int, slot: int, bad: list[tuple[str, str]]) -> Reading:
        if not sample.captions:
            raise BadSample(sample.name, "it has no caption")
        draws = np.random.default_rng((self._seed, 2, epoch, slot))
        caption = sample.captions[draws.integers(len(sample.captions)) if self._training else 0]
        try:
            images = self._pixels(self._frames(sample, draws), (self._seed, 3, epoch, slot))
        except (OSError, ValueError) as error:  # an image of a mode or size that Pillow cannot convert or resize
            raise BadSample(sample.name, str(error)) from error
        text = self._tokenizer([caption], context_length=self._context_length)[0]
        return Reading(images, text, sample.name, caption, bad)

    def _frames(self, sample: Sample, draws: np.random.Generator) -> list[Image.Image | np.ndarray]:
        if sample.suffix not in VIDEO_SUFFIXES:
            return [decode_image(sample)]
        try:
            with file_of(sample) as path:
                if self._frame_type == "random":
                    video, position = VideoFile(path), draws.random()
                    return [video.rgb(frame) for frame in video.pick(lambda count: [int(position * count)])]
                frames = [frame.image for frame in read_frames(path, self._frame_type, self._num_frames)]
        except (OSError, InputError) as error:
            raise BadSample(sample.name, str(error)) from error
        if self._frame_type == "middle":
            return frames
        # A video with fewer frames than wanted gives each of them several times in a row.
        return [frames[number * len(frames) // self._num_frames] for number in range(self._num_frames)]

    def _pixels(self, frames: list[Image.Image | np.ndarray], crop_seed: tuple[int, ...]) -> np.ndarray:
        """(3, S, S), or (F, 3, S, S) for multi_frames, of which a single image fills all. All frames share one crop."""
        if self._training:
            arrays = [self._transform(frame, crop_seed) for frame in frames]
        else:
            arrays = [self._transform(frame) for frame in frames]
        if self._frame_type != "multi_frames":
            return arrays[0]
        return np.stack(arrays * self._num_frames if len(arrays) == 1 else arrays)


def decode_image(sample: Sample) -> Image.Image:
    """The decoded image in its own mode. Raises BadSample."""
    try:
        image = Image.open(BytesIO(sample.read()))
        image.load()
    except Exception as error:  # Pillow's decoders raise many kinds on damaged files; all mean the same here
        raise BadSample(sample.name, f"{type(error).__name__}: {error}") from error
    return image


@contextmanager
def file_of(sample: Sample) -> Iterator[Path]:
    """The sample as a file, a temporary one if it comes from an archive: videos are read by seeking in a file."""
    if isinstance(sample.content, Path):
        yield sample.content
        return
    with NamedTemporaryFile(suffix=sample.suffix) as file:
        file.write(sample.content)
        file.flush()
        yield Path(file.name)
