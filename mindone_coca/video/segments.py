"""A video in stretches, each with a frame that stands for it: of equal length, or from one cut to the next.

A few frames are held, whatever the file's length.
"""

import math
from collections import deque
from collections.abc import Iterator

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image

from mindone_coca.video.clock import Middle, stretches
from mindone_coca.video.frames import Shot, open_video, read_shot, video_frame
from mindone_coca.video.media import DecodedFrame, FrameSource, Readable
from mindone_coca.video.pictures import DEFAULT_RULES, PictureFile, PictureRules

SCENE_THRESHOLD = 3.0  # PySceneDetect's own default
SHORTEST_SCENE = 0.6  # seconds; likewise
_MICROSECONDS = 1_000_000  # the detector's clock
_DETECTOR_SIZE = (128, 72)  # pixels that the detector compares
_DETECTOR_WINDOW = 2  # frames before and after a cut that it compares it with
_SLOWEST_RATE = 5  # frames a second that it is shown at least: three in the shortest scene


def iter_segments(
    source: Readable,
    seconds: float | None = None,
    scene_threshold: float = SCENE_THRESHOLD,
    rules: PictureRules = DEFAULT_RULES,
) -> Iterator[Shot]:
    """Divide a video from its first frame to its end.

    With `seconds`, into stretches of that length, each with the frame that is on the screen at its middle; what
    remains at the end is a stretch of its own if it lasts half as long, else part of the last one. Without, into
    scenes, each with the frame on the screen at about its middle (an eighth of its length away at most); cuts are
    found by PySceneDetect's AdaptiveDetector: frames that differ from the one before `scene_threshold` times as much
    as those around them do, where those that stay (slides) count as frames without change. A still image is one
    stretch.

    Raises InputError as `read_frames` does; where a file can be read only in part, after the stretches before that.
    """
    video = open_video(source, rules)
    if isinstance(video, PictureFile) and not video.is_animation:
        yield read_shot(source, rules=rules)
    elif seconds is None:
        yield from _scenes(video, scene_threshold)
    else:
        yield from _equal(video, seconds)


def _equal(video: FrameSource, seconds: float) -> Iterator[Shot]:
    timeline, failure = video.readable_timeline()
    parts = stretches(timeline, seconds)
    indices = list(dict.fromkeys(part.index for part in parts))
    frames = video.at(indices)
    shown = video_frame(video, next(frames))
    for part in parts:
        if shown.index < part.index:
            frame = next(frames, None)  # None: damage has left fewer frames than the file promised
            shown = shown if frame is None else video_frame(video, frame)
        yield Shot(part.start, part.end, [shown])
    if failure is not None:
        raise failure


def _scenes(video: FrameSource, threshold: float) -> Iterator[Shot]:
    # only where scenes are wanted: it brings OpenCV along
    from scenedetect import FrameTimecode
    from scenedetect.detectors import AdaptiveDetector

    detector = AdaptiveDetector(
        adaptive_threshold=threshold, min_scene_len=round(SHORTEST_SCENE * _MICROSECONDS), window_width=_DETECTOR_WINDOW
    )
    shrink = VideoReformatter()
    undecided: deque[tuple[DecodedFrame, bool]] = deque()
    scene: Middle[DecodedFrame] = Middle()
    for time, frame, is_new in _on_screen(video):
        if is_new:
            small = _small(frame.picture, shrink)
        cuts = detector.process_frame(FrameTimecode(round(time * _MICROSECONDS), fps=float(_MICROSECONDS)), small)
        undecided.append((frame, is_new))
        if len(undecided) > _DETECTOR_WINDOW:
            first, first_is_new = undecided.popleft()
            if cuts:
                yield Shot(scene.start, first.time, [video_frame(video, scene.shown(first.time))])
                scene = Middle()
            if first_is_new:
                scene.add(first.time, first)
    for frame, is_new in undecided:
        if is_new:
            scene.add(frame.time, frame)
    end = video.timeline().end
    yield Shot(scene.start, end, [video_frame(video, scene.shown(end))])


def _on_screen(video: FrameSource) -> Iterator[tuple[float, DecodedFrame, bool]]:
    """Each frame with a time at which it is on the screen, and whether it is new then.

    The detector takes frames to come at a constant rate: a cut stands out from the little that changes around it. So
    a frame that stays, such as a slide, is given again, as often as the detector looks at those around a cut.
    """
    last: DecodedFrame | None = None
    for frame in video.frames():
        if last is not None:
            yield from _again(last, frame.time)
        yield frame.time, frame, True
        last = frame
    if last is not None:
        yield from _again(last, video.timeline().end)


def _again(frame: DecodedFrame, end: float) -> Iterator[tuple[float, DecodedFrame, bool]]:
    missed = math.ceil((end - frame.time) * _SLOWEST_RATE - 0.01) - 1
    for number in range(1, min(missed, _DETECTOR_WINDOW) + 1):
        yield frame.time + number / _SLOWEST_RATE, frame, False


def _small(picture: av.VideoFrame | Image.Image, shrink: VideoReformatter) -> np.ndarray:
    """The picture as the detector compares it, (72, 128, 3) uint8 BGR."""
    if isinstance(picture, av.VideoFrame):
        return shrink.reformat(picture, *_DETECTOR_SIZE, "bgr24", interpolation="AREA", threads=1).to_ndarray()
    rgb = np.asarray(picture.convert("RGB").resize(_DETECTOR_SIZE, Image.Resampling.BOX))
    return np.ascontiguousarray(rgb[:, :, ::-1])
