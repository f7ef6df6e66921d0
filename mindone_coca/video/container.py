"""Opening a video with FFmpeg by what it holds, not by what it is called."""

from io import BytesIO, RawIOBase

import av

from mindone_coca.video.media import Encoded
from mindone_coca.video.pictures import is_motion_jpeg

# Where a file's clock starts anew, FFmpeg would take it for a counter that ran over, and add a day.
_OPTIONS = {"correct_ts_overflow": "0"}


def open_container(source: Encoded) -> av.container.InputContainer:
    """Open a file. Raises av.FFmpegError for what FFmpeg does not know."""

    def opened(file: str | RawIOBase | BytesIO) -> av.container.InputContainer:
        return av.open(file, "r", format=known_format, metadata_errors="replace", options=_OPTIONS)

    known_format = "mjpeg" if is_motion_jpeg(source.head) else None
    container = opened(source.for_ffmpeg())
    if not (is_picture(container) or container.format.name == "tty"):
        return container
    try:  # that guess may be due to the name
        unnamed = opened(source.nameless())
    except av.FFmpegError:  # nothing but the name tells what it is
        return container
    container.close()
    return unnamed


def is_picture(container: av.container.InputContainer) -> bool:
    """Whether it is a still picture to FFmpeg."""
    return container.format.name.endswith("_pipe") or container.format.name == "image2"
