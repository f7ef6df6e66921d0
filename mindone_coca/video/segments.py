"""A video in stretches, each with a frame that stands for it: of equal length, or from one cut to the next.

The file is read once, from start to end, and a few frames are held, whatever its length.
"""

import os
from collections import deque
from collections.abc import Iterator

from av.video.reformatter import VideoReformatter

from mindone_coca.video.file import DecodedFrame, VideoFile
from mindone_coca.video.frames import Shot, end_time, open_video, read_shot, video_frame

SCENE_THRESHOLD = 3.0  # PySceneDetect's own default
SHORTEST_SCENE = 0.6  # seconds; likewise
_MICROSECONDS = 1_000_000  # the detector's clock
_DETECTOR_SIZE = (128, 72)  # pixels that the detector compares
_DETECTOR_WINDOW = 2  # frames that it looks ahead before it decides on one
_CANDIDATES = 8  # frames held until a scene's middle is known


def iter_segments(
    path: str | os.PathLike, seconds: float | None = None, scene_threshold: float = SCENE_THRESHOLD
) -> Iterator[Shot]:
    """Divide a video from its first frame to its end.

    With `seconds`, into stretches of that length, each with the first frame of its second half; what remains at the
    end is a stretch of its own if it lasts half as long, else part of the last one. Without, into scenes, each with a
    frame from about its middle (an eighth of its length away at most); cuts are found by PySceneDetect's
    AdaptiveDetector: frames that differ from the one before `scene_threshold` times as much as those around them do.
    Images, and videos too short to be divided, are one stretch with their middle frame.

    Raises InputError as `read_frames` does; where a file can be read only in part, after the stretches before that.
    """
    video = open_video(path)
    shots = () if video is None else _equal(video, seconds) if seconds is not None else _scenes(video, scene_threshold)
    shot = None
    for shot in shots:
        yield shot
    if shot is None:
        yield read_shot(path, "middle")


def _equal(video: VideoFile, seconds: float) -> Iterator[Shot]:
    held = None
    for start, frame in video.every(seconds):
        if held is not None:
            yield Shot(held[0], start, [held[1]])
        held = start, video_frame(video, frame)
    if held is not None:
        yield Shot(held[0], end_time(video.times()), [held[1]])


def _scenes(video: VideoFile, threshold: float) -> Iterator[Shot]:
    # only where scenes are wanted: it brings OpenCV along
    from scenedetect import FrameTimecode
    from scenedetect.detectors import AdaptiveDetector

    detector = AdaptiveDetector(
        adaptive_threshold=threshold, min_scene_len=round(SHORTEST_SCENE * _MICROSECONDS), window_width=_DETECTOR_WINDOW
    )
    shrink = VideoReformatter()
    undecided: deque[DecodedFrame] = deque()
    scene = _Middle()
    last_times: deque[float] = deque(maxlen=2)
    for frame in video.frames():
        last_times.append(frame.time)
        small = shrink.reformat(frame.picture, *_DETECTOR_SIZE, "bgr24", interpolation="AREA", threads=1).to_ndarray()
        cuts = detector.process_frame(FrameTimecode(round(frame.time * _MICROSECONDS), fps=float(_MICROSECONDS)), small)
        undecided.append(frame)
        if len(undecided) > _DETECTOR_WINDOW:
            first = undecided.popleft()
            if cuts:
                yield Shot(scene.start, first.time, [video_frame(video, scene.frame(first.time))])
                scene = _Middle()
            scene.add(first)
    for frame in undecided:
        scene.add(frame)
    end = end_time(list(last_times))
    yield Shot(scene.start, end, [video_frame(video, scene.frame(end))])


class _Middle:
    """Frames of a scene whose end is not known yet, evenly spread over it."""

    def __init__(self) -> None:
        self._kept: list[DecodedFrame] = []
        self._seen, self._stride = 0, 1

    @property
    def start(self) -> float:
        return self._kept[0].time

    def add(self, frame: DecodedFrame) -> None:
        if self._seen % self._stride == 0:
            if len(self._kept) == _CANDIDATES:
                self._kept, self._stride = self._kept[::2], 2 * self._stride
            if self._seen % self._stride == 0:
                self._kept.append(frame)
        self._seen += 1

    def frame(self, end: float) -> DecodedFrame:
        """The one nearest to the middle of the scene."""
        middle = (self.start + end) / 2
        return min(self._kept, key=lambda frame: abs(frame.time - middle))
