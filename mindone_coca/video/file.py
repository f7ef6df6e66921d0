"""One video file through FFmpeg's libraries (PyAV): its frames in order, or a few of them by exact seeking.

Nothing the header says about frame counts or durations is believed. The frames of a file are those that a decoder
gives from the first packet to the last, in order of presentation. Reading a few frames of a long file must not decode
all of it, so the time stamps of all packets are listed first (demuxing, no decoding), and decoding starts at the
keyframe before each wanted frame. Every frame decoded on the way must carry the time stamp that the list expects;
when one does not, or when the list cannot be exact, everything is decoded from the start instead.
"""

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition

from mindone_coca.errors import InputError

_MICROSECONDS = 1_000_000  # unit of a container's start time


@dataclass(frozen=True)
class DecodedFrame:
    """A frame as decoded: number from 0 in order of presentation, seconds from the file's start, pixels of FFmpeg."""

    index: int
    time: float
    picture: av.VideoFrame


@dataclass(frozen=True)
class _PacketIndex:
    """Time stamps from the packets, in units of the stream's time base."""

    pts: np.ndarray  # of every frame that is shown, ascending
    key_pts: np.ndarray  # of the keyframes, ascending
    key_dts: np.ndarray  # where to seek for them


class _IndexMismatch(Exception):
    """Decoding did not give the frames that the packets promised."""


class VideoFile:
    """A local video file. Raises InputError, naming the file, when it cannot be read as video.

    An MP4 or MOV file that lacks part of what its own table of samples lists is refused as cut short. Of other damaged
    files, the frames that can be decoded count.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._converter = _RgbConverter(path)
        self._decoded_times: np.ndarray | None = None  # known once all frames were decoded
        container, stream = self._open()
        with container:
            if "mp4" in container.format.name and stream.frames:  # one table for the whole file, not fragments
                size, end = (
                    path.stat().st_size,
                    max((entry.pos + entry.size for entry in stream.index_entries), default=0),
                )
                if size < end:
                    raise InputError(f"{path}: the video is cut short; it has {size} of at least {end} bytes")
            self._time_base = stream.time_base
            self._start = max(container.start_time or 0, 0) / _MICROSECONDS
            self._rate = stream.average_rate or stream.guessed_rate or 25  # 25 is what FFmpeg assumes, too
            # AVI and raw streams store no presentation times: their frames come at a constant rate.
            self._constant_rate = container.format.name == "avi" or stream.start_time is None
            self._is_vp8 = stream.codec_context.name == "vp8"

    def frames(self) -> Iterator[DecodedFrame]:
        """Decode all frames in order. Memory holds a few frames at a time, whatever the length of the file."""
        container, stream = self._open()
        index, first_pts, times = -1, None, array("d")
        with container:
            packets = container.demux(stream)
            while True:
                try:
                    packet = next(packets, None)
                except av.FFmpegError as error:
                    reason = f"cannot be read beyond its first {index + 1} frames: {error.strerror}"
                    raise InputError(f"{self.path}: {reason}") from error
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
                    times.append(self._time(index, picture.pts, first_pts))
                    yield DecodedFrame(index, times[-1], picture)
        if index < 0:
            raise InputError(f"{self.path}: holds no video frame that can be decoded")
        self._decoded_times = np.array(times)

    def pick(self, choose: Callable[[int], Sequence[int]]) -> list[DecodedFrame]:
        """Return some frames in order: `choose` gets the number of frames and returns the wanted indices."""
        if self._packet_index is not None:
            try:
                return list(self._seek_and_decode(sorted(set(choose(len(self._packet_index.pts))))))
            except _IndexMismatch:
                self._packet_index = None  # the slow way below needs no index
        wanted = set(choose(len(self.times())))
        return [frame for frame in self.frames() if frame.index in wanted]

    def every(self, seconds: float) -> Iterator[tuple[float, DecodedFrame]]:
        """Divide the video into stretches of equal length, from its first frame on, and yield each one's start in
        seconds with the first frame that it shows in its second half. One that shows none belongs to the one before.

        Where the file allows it, only the frames from the last keyframe on are decoded. One frame is held at a time.
        """
        done = 0
        if self._packet_index is not None:
            times = self.times()
            numbers, is_late = _stretches(times - times[0], seconds)
            numbers, first = np.unique(numbers[is_late], return_index=True)
            wanted = np.flatnonzero(is_late)[first].tolist()
            starts = [float(times[0] + number * seconds) for number in numbers]
            starts[:1] = times[:1].tolist()
            try:
                for start, frame in zip(starts, self._seek_and_decode(wanted)):
                    yield start, frame
                    done += 1
                return
            except _IndexMismatch:
                self._packet_index = None
        yield from islice(self._every_by_decoding(seconds), done, None)

    def _every_by_decoding(self, seconds: float) -> Iterator[tuple[float, DecodedFrame]]:
        start, last = None, -1
        for frame in self.frames():
            start = frame.time if start is None else start
            number, is_late = _stretches(np.float64(frame.time - start), seconds)
            if is_late and number > last:
                yield start if last < 0 else float(start + number * seconds), frame
                last = number

    def times(self) -> np.ndarray:
        """Return the time of every frame in seconds, float64, without keeping any frame."""
        if self._packet_index is not None:
            pts = self._packet_index.pts
            return (pts - pts[0]) * float(self._time_base) + self._offset(int(pts[0]))
        if self._decoded_times is None:
            for _ in self.frames():
                pass
        return self._decoded_times

    def rgb(self, frame: DecodedFrame) -> np.ndarray:
        """Return the upright frame, (H, W, 3) uint8 RGB."""
        return self._converter(frame.picture)

    def _open(self, verified: bool = False) -> tuple[av.container.InputContainer, av.VideoStream]:
        """Open the file; `verified`: the caller checks the time stamp of every decoded frame."""
        try:
            container = av.open(f"file:{self.path}", metadata_errors="replace")
        except av.FFmpegError as error:
            raise InputError(
                f"{self.path}: cannot be read as video or image ({error.strerror}); is the file complete?"
            ) from error
        stream = container.streams.best("video")
        problem = None
        if container.format.name == "tty":
            problem = "is a text file"
        elif stream is None or stream.disposition & Disposition.attached_pic:
            problem = "has no video stream"
        elif stream.codec_context is None:
            problem = "has a video stream of a type that this build of FFmpeg cannot decode"
        if problem:
            container.close()
            raise InputError(f"{self.path}: {problem}; give a video or an image")
        # Frame threads are faster, but after a damaged packet they lose good frames at the end of the file.
        stream.thread_type = "AUTO" if verified else "SLICE"
        return container, stream

    @cached_property
    def _packet_index(self) -> _PacketIndex | None:
        """List the packets' time stamps; None when they cannot tell exactly which frames will be decoded."""
        if self._constant_rate or self._is_vp8:  # VP8 stores hidden frames in packets of their own
            return None
        shown, keys = [], []
        last_dts = None
        container, stream = self._open()
        with container:
            try:
                for packet in container.demux(stream):
                    if packet.size == 0 and packet.pts is None:  # marks the end
                        continue
                    dts = packet.dts
                    if packet.pts is None or packet.is_corrupt:
                        return None
                    if None not in (dts, last_dts) and dts <= last_dts:  # time starts anew within the file
                        return None
                    last_dts = dts if dts is not None else last_dts
                    if packet.is_keyframe:
                        keys.append((packet.pts, packet.pts if dts is None else min(dts, packet.pts)))
                    if not packet.is_discard:  # edit lists keep frames that are decoded but not shown
                        shown.append(packet.pts)
            except av.FFmpegError:
                return None
        pts = np.unique(np.array(shown, dtype=np.int64))
        if len(pts) == 0 or len(pts) < len(shown) or not keys:
            return None
        first = next(self.frames())
        if first.picture.pts != pts[0]:  # frames before the first keyframe, of which the reference is missing
            return None
        key_pts, key_dts = np.array(sorted(keys), dtype=np.int64).T
        return _PacketIndex(pts, key_pts, key_dts)

    def _seek_and_decode(self, wanted: list[int]) -> Iterator[DecodedFrame]:
        packet_index = self._packet_index
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
                yield DecodedFrame(target, self._time(target, picture.pts, int(pts[0])), picture)

    def _time(self, index: int, pts: int | None, first_pts: int | None) -> float:
        if self._constant_rate or pts is None or first_pts is None:
            return float(index / self._rate)
        return (pts - first_pts) * float(self._time_base) + self._offset(first_pts)

    def _offset(self, first_pts: int) -> float:
        """Seconds from the start of the file (its earliest stream) to the first frame."""
        return max(0.0, round(float(first_pts * self._time_base) - self._start, 6))


def _stretches(times: np.ndarray, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """For times since the first frame: the number of the stretch each lies in, and whether in its second half."""
    numbers = np.floor(times / seconds)
    return numbers, times - numbers * seconds >= seconds / 2


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


class _RgbConverter:
    """Turns decoded frames of any pixel format upright and into RGB, with the pixels of `ffmpeg -pix_fmt rgb24`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._layout: tuple[int, int, str] | None = None

    def __call__(self, picture: av.VideoFrame) -> np.ndarray:
        layout = (picture.width, picture.height, picture.format.name)
        try:
            if layout != self._layout:  # also when the size changes within a file
                self._graph = _scale_graph(*layout)
                self._layout = layout
            self._graph.push(picture)
            array = self._graph.pull().to_ndarray()
        except av.FFmpegError as error:
            raise InputError(f"{self._path}: cannot convert {layout[2]} frames to RGB: {error.strerror}") from error
        return _upright(array, picture)


def _scale_graph(width: int, height: int, pixel_format: str) -> av.filter.Graph:
    """The `ffmpeg` program's own conversion; a frame's own `reformat` sites the chroma of some formats differently."""
    graph = av.filter.Graph()
    source = graph.add_buffer(width=width, height=height, format=pixel_format, time_base=Fraction(1, _MICROSECONDS))
    steps = [source, graph.add("scale", "flags=bicubic"), graph.add("format", "rgb24"), graph.add("buffersink")]
    for before, after in pairwise(steps):
        before.link_to(after)
    graph.configure()
    return graph


def _upright(array: np.ndarray, picture: av.VideoFrame) -> np.ndarray:
    """Apply the display matrix: quarter turns and mirrorings; other angles go to the nearest of these."""
    side_data = picture.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return array
    a, b, _, c, d = np.frombuffer(side_data, dtype=np.int32)[:5].tolist()  # x' = a x + c y, y' = b x + d y
    if abs(a) + abs(d) < abs(b) + abs(c):
        array, a, d = array.swapaxes(0, 1), c, b
    return np.ascontiguousarray(array[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
