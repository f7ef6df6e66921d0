"""One video file through FFmpeg's libraries (PyAV): its frames in order, or a few of them by exact seeking.

Nothing the header says about frame counts or durations is believed. The frames of a file are those that a decoder
gives from the first packet to the last, in order of presentation. Reading a few frames of a long file must not decode
all of it, so the time stamps of all packets are listed first (demuxing, no decoding), and decoding starts at the
keyframe before each wanted frame. Every frame decoded on the way must carry the time stamp that the list expects;
when one does not, or when the list cannot be exact, everything is decoded from the start instead.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import cast

import av
import numpy as np
from av.format import Flags
from av.stream import Disposition
from PIL import Image

from mindone_coca.errors import InputError
from mindone_coca.video.clock import Clock, Timeline, end_of
from mindone_coca.video.container import is_picture, open_container
from mindone_coca.video.media import DecodedFrame, Readable, encoded
from mindone_coca.video.rgb import RgbConverter, pixel_shape

_MICROSECONDS = 1_000_000  # unit of a container's start time


@dataclass(frozen=True)
class _PacketIndex:
    """Time stamps from the packets, in units of the stream's time base."""

    pts: np.ndarray  # of every frame that is shown, ascending
    key_pts: np.ndarray  # of the keyframes, ascending
    key_dts: np.ndarray  # where to seek for them
    last_duration: int | None  # of the last frame that is shown


class _IndexMismatch(Exception):
    """Decoding did not give the frames that the packets promised."""


class VideoFile:
    """A video: a local file, or its bytes; a FrameSource. Raises InputError, naming the file, when it is no video.

    An MP4 or MOV file that lacks part of what its own table of samples lists is refused as cut short. Of other damaged
    files, the frames that can be decoded count.
    """

    def __init__(self, source: Readable) -> None:
        self._source = encoded(source)
        self._name = self._source.name
        self._known: Timeline | None = None  # once all frames were decoded
        container, stream = self._open()
        with container:
            if "mp4" in container.format.name and stream.frames:  # one table for the whole file, not fragments
                size = self._source.size
                end = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
                if size < end:
                    raise InputError(f"{self._name}: the video is cut short; it has {size} of at least {end} bytes")
            self._time_base = cast(Fraction, stream.time_base)  # FFmpeg gives every stream of a file one
            self._start = max(container.start_time or 0, 0) / _MICROSECONDS
            self._rate = stream.average_rate or stream.guessed_rate or 25  # 25 is what FFmpeg assumes, too
            # AVI and raw streams store no presentation times: their frames come at a constant rate.
            self._constant_rate = container.format.name == "avi" or Flags.no_timestamps in Flags(container.format.flags)
            self._still = is_picture(container)  # of a format that Pillow does not know; it lasts no time
            self._is_vp8 = stream.codec_context.name == "vp8"
            self._converter = RgbConverter(self._name, pixel_shape(stream))

    def frames(self) -> Iterator[DecodedFrame]:
        """Decode all frames in order. Memory holds a few frames at a time, whatever the length of the file."""
        yield from self._decode(Clock())

    def at(self, indices: Sequence[int]) -> Iterator[DecodedFrame]:
        """Yield the frames with these ascending indices. Where the file allows it, decoding starts at keyframes."""
        remaining = list(indices)
        if self._packet_index is not None:
            try:
                for frame in self._seek_and_decode(self._packet_index, list(indices)):
                    yield frame
                    remaining = remaining[1:]
            except _IndexMismatch:
                self._distrust_index()  # the slow way below needs none
        if not remaining:
            return
        wanted = set(remaining)
        for frame in self.frames():
            if frame.index in wanted:
                yield frame
                if frame.index == remaining[-1]:
                    return
        yield frame  # of fewer frames than the packets promised, the last one stands for all that are missing

    def pick(self, choose: Callable[[int], Sequence[int]]) -> list[DecodedFrame]:
        """Return some frames in order: `choose` gets the number of frames and returns the wanted indices."""
        if self._packet_index is not None:
            try:
                wanted = sorted(set(choose(len(self._packet_index.pts))))
                return list(self._seek_and_decode(self._packet_index, wanted))
            except _IndexMismatch:
                self._distrust_index()
        return list(self.at(sorted(set(choose(len(self.timeline().times))))))

    def timeline(self) -> Timeline:
        """When all frames are shown, without keeping any."""
        if self._known is None and self._packet_index is not None:
            pts, duration = self._packet_index.pts, self._packet_index.last_duration
            times = (pts - pts[0]) * float(self._time_base) + self._offset(int(pts[0]))
            self._known = Timeline(times, end_of(times, duration and duration * float(self._time_base)))
        if self._known is None:
            clock = Clock()
            for _ in self._decode(clock):
                pass
            self._known = clock.timeline()
        return self._known

    def readable_timeline(self) -> tuple[Timeline, InputError | None]:
        """As `timeline`, but of a file that breaks off, of the part that can be read, with what went wrong after it."""
        clock = Clock()
        try:
            if self._known is None and self._packet_index is None:
                for _ in self._decode(clock):
                    pass
            return self.timeline(), None
        except InputError as error:
            if not len(clock):
                raise
            return clock.timeline(), error

    def image(self, frame: DecodedFrame) -> Image.Image:
        """The frame upright, with square pixels, in RGB."""
        return Image.fromarray(self.rgb(frame))

    def rgb(self, frame: DecodedFrame) -> np.ndarray:
        """The frame upright, with square pixels, (H, W, 3) uint8 RGB."""
        return self._converter(frame.picture)

    def _decode(self, clock: Clock) -> Iterator[DecodedFrame]:
        container, stream = self._open()
        index, first_pts = -1, None
        with container:
            packets = container.demux(stream)
            while True:
                try:
                    packet = next(packets, None)
                except av.FFmpegError as error:
                    reason = f"cannot be read beyond its first {index + 1} frames: {error.strerror}"
                    raise InputError(f"{self._name}: {reason}") from error
                if packet is None:
                    break
                try:
                    pictures = packet.decode()
                except av.FFmpegError:  # a damaged packet: the frames that can be decoded count
                    continue
                for picture in pictures:
                    index += 1
                    if first_pts is None:
                        first_pts = picture.pts
                    time = clock.add(self._time(index, picture.pts, first_pts), self._duration(picture))
                    yield DecodedFrame(index, time, picture)
        if index < 0 and self._still:
            raise InputError(f"{self._name}: cannot be read as an image; is the file complete?")
        if index < 0:
            raise InputError(f"{self._name}: cannot be read: holds no picture and no video frame that can be decoded")
        self._known = clock.timeline()

    def _open(self, verified: bool = False) -> tuple[av.container.InputContainer, av.VideoStream]:
        """Open the file; `verified`: the caller checks the time stamp of every decoded frame."""
        try:
            container = open_container(self._source)
        except av.FFmpegError as error:
            raise InputError(
                f"{self._name}: cannot be read as video or image ({error.strerror}); is the file complete?"
            ) from error
        stream = container.streams.best("video")
        if container.format.name == "tty":
            problem = "is a text file"
        elif not isinstance(stream, av.VideoStream) or stream.disposition & Disposition.attached_pic:
            problem = "has no video stream"
        elif stream.codec_context is None:
            problem = "has a video stream of a type that this build of FFmpeg cannot decode"
        else:
            # Frame threads are faster, but after a damaged packet they lose good frames at the end of the file.
            stream.thread_type = "AUTO" if verified else "SLICE"
            return container, stream
        container.close()
        raise InputError(f"{self._name}: {problem}; give a video or an image")

    @cached_property
    def _packet_index(self) -> _PacketIndex | None:
        """List the packets' time stamps; None when they cannot tell exactly which frames will be decoded."""
        if self._constant_rate or self._is_vp8:  # VP8 stores hidden frames in packets of their own
            return None
        shown, keys, durations = [], [], {}
        last_dts = None
        container, stream = self._open()
        with container, self._source.tables_alone():
            try:
                for packet in container.demux(stream):
                    if packet.size == 0 and packet.pts is None:  # marks the end
                        continue
                    dts = packet.dts
                    if packet.pts is None or packet.is_corrupt:
                        return None
                    if dts is not None and last_dts is not None and dts <= last_dts:  # time starts anew within the file
                        return None
                    last_dts = dts if dts is not None else last_dts
                    if packet.is_keyframe:
                        keys.append((packet.pts, packet.pts if dts is None else min(dts, packet.pts)))
                    if not packet.is_discard:  # edit lists keep frames that are decoded but not shown
                        shown.append(packet.pts)
                        durations[packet.pts] = packet.duration
            except av.FFmpegError:
                return None
        pts = np.unique(np.array(shown, dtype=np.int64))
        if len(pts) == 0 or len(pts) < len(shown) or not keys:
            return None
        first = next(self.frames())
        if first.picture.pts != pts[0]:  # frames before the first keyframe, of which the reference is missing
            return None
        key_pts, key_dts = np.array(sorted(keys), dtype=np.int64).T
        return _PacketIndex(pts, key_pts, key_dts, durations[int(pts[-1])])

    def _distrust_index(self) -> None:
        self._packet_index = self._known = None

    def _seek_and_decode(self, packet_index: _PacketIndex, wanted: list[int]) -> Iterator[DecodedFrame]:
        pts = packet_index.pts
        container, stream = self._open(verified=True)
        with container:
            pictures: Iterator[av.VideoFrame] = iter(())
            upcoming = -1  # index of the frame that the decoder gives next; -1: not started
            for target in wanted:
                key = int(np.searchsorted(packet_index.key_pts, pts[target], side="right")) - 1
                if key < 0:
                    raise _IndexMismatch
                key_pts = int(packet_index.key_pts[key])
                first_from_key = int(np.searchsorted(pts, key_pts))
                if upcoming < 0 or first_from_key > upcoming:
                    pictures = _decode_from(container, stream, key_pts, int(packet_index.key_dts[key]))
                    upcoming = first_from_key
                while upcoming <= target:
                    picture = next(pictures, None)
                    if picture is None or picture.pts != pts[upcoming]:
                        raise _IndexMismatch
                    upcoming += 1
                yield DecodedFrame(target, self._stored_time(int(pts[target]), int(pts[0])), picture)

    def _time(self, index: int, pts: int | None, first_pts: int | None) -> float | None:
        """The stored time of a frame in seconds; None where it has none beside others that do."""
        if self._constant_rate:
            return float(index / self._rate)
        if pts is None or first_pts is None:
            return None
        return self._stored_time(pts, first_pts)

    def _stored_time(self, pts: int, first_pts: int) -> float:
        return (pts - first_pts) * float(self._time_base) + self._offset(first_pts)

    def _duration(self, picture: av.VideoFrame) -> float | None:
        if self._still:
            return None
        if self._constant_rate:
            return float(1 / self._rate)
        return picture.duration * float(self._time_base) if picture.duration else None

    def _offset(self, first_pts: int) -> float:
        """Seconds from the start of the file (its earliest stream) to the first frame."""
        return max(0.0, round(float(first_pts * self._time_base) - self._start, 6))


def _decode_from(
    container: av.container.InputContainer, stream: av.VideoStream, key_pts: int, key_dts: int
) -> Iterator[av.VideoFrame]:
    """Yield the frames shown from the keyframe on. Whatever goes wrong is a mismatch."""
    try:
        container.seek(key_dts, stream=stream)
        started = False
        for packet in container.demux(stream):
            started = started or packet.pts == key_pts  # a seek may land earlier
            if not started:
                continue
            for picture in packet.decode():
                # Frames that are shown before the keyframe but stored after it lack their reference.
                if picture.pts is None or picture.pts >= key_pts:
                    yield picture
    except av.FFmpegError as error:
        raise _IndexMismatch from error
