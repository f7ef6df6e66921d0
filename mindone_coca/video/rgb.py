"""From decoded video frames to RGB pixels as they are to be seen: square, and upright."""

from fractions import Fraction
from itertools import pairwise
from typing import cast

import av
import numpy as np
from av.buffer import Buffer
from av.video.format import VideoFormat

from mindone_coca.errors import InputError

_MICROSECONDS = Fraction(1, 1_000_000)
_MOST_STRETCHED = 10


class RgbConverter:
    """Turns decoded frames of any pixel format upright and into RGB, with the pixels of `ffmpeg -pix_fmt rgb24`;
    where a file's pixels are no squares, the side that was squeezed is widened."""

    def __init__(self, name: str, pixel_shape: Fraction) -> None:
        self._name, self._pixel_shape = name, pixel_shape
        self._layout: tuple[int, int, str] | None = None

    def __call__(self, picture: av.VideoFrame) -> np.ndarray:
        layout = (picture.width, picture.height, picture.format.name)
        try:
            if layout != self._layout:  # also when the size changes within a file
                self._graph = _scale_graph(*layout, self._pixel_shape)
                self._layout = layout
            self._graph.push(picture)
            array = self._graph.pull().to_ndarray()
        except av.FFmpegError as error:
            raise InputError(f"{self._name}: cannot convert {layout[2]} frames to RGB: {error.strerror}") from error
        return _upright(array, picture)


def pixel_shape(stream: av.VideoStream) -> Fraction:
    """Width of a pixel by its height, as the file says. What no camera makes is a damaged header and counts as 1."""
    shape = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    return Fraction(shape) if shape and 1 / _MOST_STRETCHED <= shape <= _MOST_STRETCHED else Fraction(1)


def _scale_graph(width: int, height: int, pixel_format: str, shape: Fraction) -> av.filter.Graph:
    """The `ffmpeg` program's own conversion; a frame's own `reformat` sites the chroma of some formats differently."""
    graph = av.filter.Graph()
    source = graph.add_buffer(width=width, height=height, format=VideoFormat(pixel_format), time_base=_MICROSECONDS)
    # only ever enlarged: no detail is lost
    shown = (round(width * shape), height) if shape > 1 else (width, round(height / shape))
    steps = [
        source,
        graph.add("scale", f"{shown[0]}:{shown[1]}:flags=bicubic"),
        graph.add("format", "rgb24"),
        graph.add("buffersink"),
    ]
    for before, after in pairwise(steps):
        before.link_to(after)
    graph.configure()
    return graph


def _upright(array: np.ndarray, picture: av.VideoFrame) -> np.ndarray:
    """Apply the display matrix: quarter turns and mirrorings; other angles go to the nearest of these."""
    try:
        side_data = picture.side_data.get("DISPLAYMATRIX")
    except ValueError:  # beside data of a kind that PyAV has no name for, such as EXIF, it tells the angle only
        return np.ascontiguousarray(np.rot90(array, round(picture.rotation / 90)))
    if side_data is None:
        return array
    # PyAV's stubs know of motion vectors alone
    matrix = np.frombuffer(memoryview(cast(Buffer, side_data)), dtype=np.int32)
    a, b, _, c, d = matrix[:5].tolist()  # x' = a x + c y, y' = b x + d y
    if abs(a) + abs(d) < abs(b) + abs(c):
        array, a, d = array.swapaxes(0, 1), c, b
    return np.ascontiguousarray(array[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
