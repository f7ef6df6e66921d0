"""Frames of videos and images, exact and upright."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError

from mindone_coca.errors import InputError
from mindone_coca.video.file import DecodedFrame, VideoFile

FRAME_TYPES = ("middle", "multi_frames", "mutil_frames")  # the last is the older port's spelling of the second

# Named, because Pillow would also claim MPEG streams. Only these may hold an animation; TIFF's frames are pages.
_IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
_ANIMATION_FORMATS = ("GIF", "WEBP", "PNG", "AVIF")
_DEFAULT_DELAY = 0.1  # seconds; what viewers use for animations that give none


@dataclass(frozen=True)
class VideoFrame:
    """One frame.

    Attributes:
        image: upright. RGB for videos and animations; a still image keeps its mode (palette, transparency, 16 bit),
            because open_clip's transform resizes before it converts to RGB.
        index: number of the frame in order of presentation, from 0.
        time: seconds from the start of the file.
    """

    image: Image.Image
    index: int
    time: float

    @property
    def rgb(self) -> np.ndarray:
        """The frame as (H, W, 3) uint8 RGB."""
        return np.asarray(self.image.convert("RGB"))


@dataclass(frozen=True)
class VideoInfo:
    """What a file holds: size in pixels as shown, the time of each frame in seconds (float64), and the length.

    `duration` reaches from the first frame's time to the end of the last one, which is taken to last as long as the
    one before it; it is 0 for a single frame.
    """

    width: int
    height: int
    times: np.ndarray
    duration: float

    @property
    def frame_count(self) -> int:
        return len(self.times)


@dataclass(frozen=True)
class Shot:
    """A stretch of a video, in seconds, and the frames that stand for it. A still image lasts from 0 to 0."""

    start: float
    end: float
    frames: list[VideoFrame]


def read_frames(path: str | os.PathLike, frame_type: str = "middle", num_frames: int = 16) -> list[VideoFrame]:
    """Read the frames to caption.

    With `n` frames in the file (really decodable ones, whatever its header says):
    "middle" is the frame with index n // 2; "multi_frames" (or "mutil_frames") are `num_frames` frames spread evenly
    from the first to the last, each index rounded to the nearest; every frame once if there are no more than that;
    the middle one for `num_frames=1`. An image is a video of one frame, turned as its EXIF data says.

    Raises InputError for files that cannot be read as video or image (`VideoFile` says when) and for wrong arguments.
    """
    return read_shot(path, frame_type, num_frames).frames


def read_shot(path: str | os.PathLike, frame_type: str = "middle", num_frames: int = 16) -> Shot:
    """Read the frames to caption as `read_frames` does, with the times at which the video starts and ends.

    Raises InputError as `read_frames` does.
    """
    if frame_type not in FRAME_TYPES:
        raise InputError(f"frame_type is {frame_type!r}; choose one of {', '.join(FRAME_TYPES)}")
    if num_frames < 1:
        raise InputError(f"num_frames is {num_frames}; it must be at least 1")
    wanted = 1 if frame_type == "middle" else num_frames
    path = _existing_file(path)
    image = _open_image(path)
    if image is not None:
        with image, _naming(path):
            chosen = set(_spread(getattr(image, "n_frames", 1) if _is_animation(image) else 1, wanted))
            frames, times = [], []
            for frame in _image_frames(image):
                times.append(frame.time)
                if frame.index in chosen:
                    frames.append(frame)
        return Shot(times[0], end_time(times), frames)
    video = VideoFile(path)
    picked = video.pick(lambda count: _spread(count, wanted))
    times = video.times()
    return Shot(float(times[0]), end_time(times), [video_frame(video, frame) for frame in picked])


def iter_frames(path: str | os.PathLike) -> Iterator[VideoFrame]:
    """Yield every frame in order, decoding as it goes: memory does not grow with the length of the file.

    Raises InputError as `read_frames` does; where a file can be read only in part, after the frames before that.
    """
    path = _existing_file(path)
    image = _open_image(path)
    if image is not None:
        with image, _naming(path):
            yield from _image_frames(image)
        return
    video = VideoFile(path)
    for frame in video.frames():
        yield video_frame(video, frame)


def probe(path: str | os.PathLike) -> VideoInfo:
    """Return size, frame times and length of a video or image, without keeping frames in memory.

    Raises InputError as `read_frames` does.
    """
    path = _existing_file(path)
    image = _open_image(path)
    if image is not None:
        with image, _naming(path):
            frames = [(frame.time, frame.image.size) for frame in _image_frames(image)]
        times, (width, height) = np.array([time for time, _ in frames]), frames[0][1]
    else:
        video = VideoFile(path)
        times = video.times()
        height, width = video.rgb(next(video.frames())).shape[:2]
    return VideoInfo(width, height, times, end_time(times) - float(times[0]))


def end_time(times: Sequence[float] | np.ndarray) -> float:
    """When the last of these frames ends: it is taken to last as long as the one before it, a single one no time."""
    return float(times[-1] + (times[-1] - times[-2] if len(times) > 1 else 0.0))


def open_video(path: str | os.PathLike) -> VideoFile | None:
    """The video at `path`; None if it is a still image or an animation. Raises InputError as `read_frames` does."""
    path = _existing_file(path)
    image = _open_image(path)
    if image is None:
        return VideoFile(path)
    image.close()
    return None


def _spread(count: int, wanted: int) -> list[int]:
    """Indices of `wanted` out of `count` frames."""
    if wanted == 1:
        return [count // 2]
    if wanted >= count:
        return list(range(count))
    gaps = wanted - 1
    return [(2 * i * (count - 1) + gaps) // (2 * gaps) for i in range(wanted)]  # rounded i * (count - 1) / gaps


def _existing_file(path: str | os.PathLike) -> Path:
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if not path.is_file():
        raise InputError(f"{path}: not a file; give one video or image")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty (0 bytes)")
    return path


def video_frame(video: VideoFile, frame: DecodedFrame) -> VideoFrame:
    """A decoded frame, upright and in RGB."""
    return VideoFrame(Image.fromarray(video.rgb(frame)), frame.index, frame.time)


def _open_image(path: Path) -> Image.Image | None:
    """Open an image without decoding it; None if it is none of the known formats."""
    if path.suffix.lower() in (".mjpeg", ".mjpg"):  # a row of JPEG images, of which Pillow sees the first
        return None
    try:
        return Image.open(path, formats=_IMAGE_FORMATS)
    except UnidentifiedImageError:
        return None
    except Exception as error:
        raise _unreadable(path, error) from error


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn errors of Pillow into ones that name the file."""
    try:
        yield
    except Exception as error:  # on damaged data Pillow's readers raise nearly anything, IndexError for one
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: cannot be read as an image ({error}); is the file complete?")


def _is_animation(image: Image.Image) -> bool:
    return image.format in _ANIMATION_FORMATS and getattr(image, "is_animated", False)


def _image_frames(image: Image.Image) -> Iterator[VideoFrame]:
    if not _is_animation(image):
        image.load()
        yield VideoFrame(ImageOps.exif_transpose(image), 0, 0.0)
        return
    time = 0.0
    for index, shown in enumerate(ImageSequence.Iterator(image)):
        yield VideoFrame(shown.convert("RGB"), index, time)
        time += shown.info.get("duration", 0) / 1000 or _DEFAULT_DELAY
