"""What the readers of videos and of pictures share: where the encoded data is, and how frames are asked for."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from io import BufferedReader, BytesIO, FileIO, RawIOBase
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from mindone_coca.errors import InputError
from mindone_coca.remote import Remote, RemoteFile
from mindone_coca.storage import is_url, shown
from mindone_coca.video.clock import Timeline


@dataclass(frozen=True)
class Encoded:
    """A file as stored: where it lies, here or behind a URL, or its bytes (of a member of an archive). Messages call it
    by its name."""

    data: Path | bytes | Remote
    name: str

    @property
    def size(self) -> int:
        """In bytes."""
        if isinstance(self.data, Remote):
            return self.data.size
        return len(self.data) if isinstance(self.data, bytes) else self.data.stat().st_size

    def read(self) -> bytes:
        if isinstance(self.data, Remote):
            return self.data.read(0, self.data.size)
        return self.data if isinstance(self.data, bytes) else self.data.read_bytes()

    def head(self, size: int) -> bytes:
        """The first bytes."""
        if isinstance(self.data, Remote):
            return self.data.read(0, size)
        if isinstance(self.data, bytes):
            return self.data[:size]
        with self.data.open("rb") as file:
            return file.read(size)

    def for_pillow(self) -> Path | BytesIO | BufferedReader:
        if isinstance(self.data, Remote):
            return BufferedReader(RemoteFile(self.data, self.name))
        return BytesIO(self.data) if isinstance(self.data, bytes) else self.data

    def for_ffmpeg(self) -> str | BytesIO | RemoteFile:
        if isinstance(self.data, Remote):
            return RemoteFile(self.data, self.name)
        return BytesIO(self.data) if isinstance(self.data, bytes) else f"file:{self.data}"

    def nameless(self) -> RawIOBase | BytesIO:
        """The data without its name, which FFmpeg, too, takes for a hint at what a file holds."""
        if isinstance(self.data, Remote):
            return RemoteFile(self.data, "unnamed")
        if isinstance(self.data, bytes):
            return BytesIO(self.data)
        file = FileIO(self.data)
        file.name = "unnamed"
        return file

    def tables_alone(self) -> AbstractContextManager[None]:
        """Within, who reads wants what the container says of its packets, not what is in them."""
        return self.data.without_data() if isinstance(self.data, Remote) else nullcontext()


Readable = str | os.PathLike | Encoded


def encoded(source: Readable) -> Encoded:
    """The file at a path or URL, or what was read already. Raises InputError for what is missing, a folder, or
    empty."""
    if isinstance(source, str) and is_url(source):
        source = Encoded(Remote(source), shown(source))
    elif not isinstance(source, Encoded):
        source = Encoded(Path(source), str(source))
    missing = isinstance(source.data, Path) and not source.data.exists()
    if missing or source.size < 0:
        raise InputError(f"{source.name}: no such file")
    if isinstance(source.data, Path) and not source.data.is_file():
        raise InputError(f"{source.name}: not a file; give one video or image")
    if source.size == 0:
        raise InputError(f"{source.name}: the file is empty (0 bytes)")
    return source


@dataclass(frozen=True)
class DecodedFrame:
    """A frame as decoded: number from 0 in order of presentation, seconds from the file's start, and the picture in
    the form of its reader, which alone knows how to show it."""

    index: int
    time: float
    picture: Any


class FrameSource(Protocol):
    """A video, an animation or a picture (one frame). Reading raises InputError, which names the file."""

    def timeline(self) -> Timeline:
        """When all frames are shown, without keeping any."""

    def readable_timeline(self) -> tuple[Timeline, InputError | None]:
        """As `timeline`, but of a file that can be read only in part, of that part, with what went wrong after it."""

    def frames(self) -> Iterator[DecodedFrame]:
        """All frames in order; a few are in memory at a time."""

    def at(self, indices: Sequence[int]) -> Iterator[DecodedFrame]:
        """The frames with these ascending indices."""

    def pick(self, choose: Callable[[int], Sequence[int]]) -> list[DecodedFrame]:
        """Some frames in order: `choose` gets the number of frames and returns the wanted indices."""

    def image(self, frame: DecodedFrame) -> Image.Image:
        """The frame upright, with square pixels."""
