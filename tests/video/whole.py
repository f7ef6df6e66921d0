"""All frames of a file, one after the other: what the quick ways of reading are compared with."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mindone_coca.video.frames import VideoFrame, open_video, video_frame
from mindone_coca.video.media import Readable
from mindone_coca.video.pictures import DEFAULT_RULES, PictureRules


@dataclass(frozen=True)
class VideoInfo:
    """What a file holds: size in pixels as shown, the time of each frame in seconds (float64), and the length.

    `duration` reaches from the first frame's time to the end of the last one (`Timeline` says when that is); a still
    image lasts no time.
    """

    width: int
    height: int
    times: np.ndarray
    duration: float

    @property
    def frame_count(self) -> int:
        return len(self.times)


def iter_frames(source: Readable, rules: PictureRules = DEFAULT_RULES) -> Iterator[VideoFrame]:
    """Yield every frame in order, decoding as it goes: memory does not grow with the length of the file.

    Raises InputError as `read_frames` does; where a file can be read only in part, after the frames before that.
    """
    video = open_video(source, rules)
    for frame in video.frames():
        yield video_frame(video, frame)


def probe(source: Readable, rules: PictureRules = DEFAULT_RULES) -> VideoInfo:
    """Return size, frame times and length of a video or image, without keeping frames in memory.

    Raises InputError as `read_frames` does.
    """
    video = open_video(source, rules)
    timeline = video.timeline()
    width, height = video.image(next(video.frames())).size
    return VideoInfo(width, height, timeline.times, timeline.end - timeline.start)
