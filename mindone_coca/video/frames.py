"""Frames of videos, animations and pictures, exact and upright: the one reader of all of them.

A file is judged by its content, whatever its name. It is a path, or `Encoded` bytes with a name for messages.
"""

from dataclasses import dataclass
from typing import get_args

import numpy as np
from PIL import Image

from mindone_coca.config import SeveralFrames
from mindone_coca.errors import InputError
from mindone_coca.video.file import VideoFile
from mindone_coca.video.media import DecodedFrame, FrameSource, Readable, encoded
from mindone_coca.video.pictures import DEFAULT_RULES, PictureRules, open_picture

FRAME_TYPES = ("middle", *get_args(SeveralFrames))


@dataclass(frozen=True)
class VideoFrame:
    """One frame.

    Attributes:
        image: upright, with square pixels. RGB for videos and animations; a still image keeps its mode (palette,
            transparency), because open_clip's transform resizes before it converts to RGB.
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
class Shot:
    """A stretch of a video, in seconds, and the frames that stand for it. A still image lasts from 0 to 0."""

    start: float
    end: float
    frames: list[VideoFrame]


def open_video(source: Readable, rules: PictureRules = DEFAULT_RULES) -> FrameSource:
    """Open any file that holds frames. Raises InputError as `read_frames` does."""
    source = encoded(source)
    return open_picture(source, rules) or VideoFile(source)


def read_frames(
    source: Readable, frame_type: str = "middle", num_frames: int = 16, rules: PictureRules = DEFAULT_RULES
) -> list[VideoFrame]:
    """Read the frames to caption.

    With `n` frames in the file (really decodable ones, whatever its header says):
    "middle" is the frame with index n // 2; "multi_frames" (or "mutil_frames") are `num_frames` frames spread evenly
    from the first to the last, each index rounded to the nearest; every frame once if there are no more than that;
    the middle one for `num_frames=1`. A picture is a video of one frame, read by the `rules`.

    Raises InputError for files that cannot be read as video or image (`VideoFile` says when) and for wrong arguments.
    """
    return read_shot(source, frame_type, num_frames, rules).frames


def read_shot(
    source: Readable, frame_type: str = "middle", num_frames: int = 16, rules: PictureRules = DEFAULT_RULES
) -> Shot:
    """Read the frames to caption as `read_frames` does, with the times at which the video starts and ends.

    Raises InputError as `read_frames` does.
    """
    if frame_type not in FRAME_TYPES:
        raise InputError(f"frame_type is {frame_type!r}; choose one of {', '.join(FRAME_TYPES)}")
    if num_frames < 1:
        raise InputError(f"num_frames is {num_frames}; it must be at least 1")
    wanted = 1 if frame_type == "middle" else num_frames
    video = open_video(source, rules)
    picked = video.pick(lambda count: _spread(count, wanted))
    timeline = video.timeline()
    return Shot(timeline.start, timeline.end, [video_frame(video, frame) for frame in picked])


def video_frame(video: FrameSource, frame: DecodedFrame) -> VideoFrame:
    """A decoded frame as it is to be seen."""
    return VideoFrame(video.image(frame), frame.index, frame.time)


def _spread(count: int, wanted: int) -> list[int]:
    """Indices of `wanted` out of `count` frames."""
    if wanted == 1:
        return [count // 2]
    if wanted >= count:
        return list(range(count))
    gaps = wanted - 1
    return [(2 * i * (count - 1) + gaps) // (2 * gaps) for i in range(wanted)]  # rounded i * (count - 1) / gaps
