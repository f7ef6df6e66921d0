"""Frames of many files, read ahead by background threads and ready for the model.

Decoding and resizing release Python's interpreter lock, so they run beside the model. Memory is bounded: each file's
queue holds a few passages, and only a few files are read ahead of the one in use.
"""

import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from PIL import Image

from mindone_coca.captioning.options import CaptionOptions
from mindone_coca.errors import InputError
from mindone_coca.outputs.thumbnails import thumbnail
from mindone_coca.storage import shown
from mindone_coca.video.frames import Shot, read_shot
from mindone_coca.video.segments import iter_segments

Key = TypeVar("Key")  # a path, or what else names a file
Item = TypeVar("Item")
Transform = Callable[[Image.Image], np.ndarray]
_FRAMES_AHEAD = 32  # files read ahead have about this many frames together
_QUEUE_LENGTH = 8  # passages of a file that wait for the model
_THUMBNAIL_WIDTHS = (360, 180)  # pixels: of a passage's only frame, and of one among several


@dataclass
class Passage:
    """A stretch of a file that gets one caption.

    Attributes:
        path: the file.
        start, end: seconds.
        times: of its frames, in seconds.
        pixels: each frame as the model takes it, (3, S, S) float32.
        thumbnails: each frame as a small JPEG in base64, if wanted.
    """

    path: str
    start: float
    end: float
    times: list[float]
    pixels: list[np.ndarray]
    thumbnails: list[str]


class ReadingFailed(Exception):
    """A file cannot be read; the text is for the user and names it."""


class PassageReader:
    """Reads one file, by the options."""

    def __init__(self, options: CaptionOptions, transform: Transform, thumbnails: bool) -> None:
        self._options, self._transform, self._thumbnails = options, transform, thumbnails

    def __call__(self, path: str | os.PathLike) -> Iterator[Passage]:
        options = self._options
        if options.in_segments:
            shots = iter_segments(path, options.segment_seconds, options.scene_threshold)
        else:
            shots = (read_shot(path, options.frame_type, options.num_frames) for _ in range(1))
        return (self._prepare(path, shot) for shot in shots)

    def _prepare(self, path: str | os.PathLike, shot: Shot) -> Passage:
        width = _THUMBNAIL_WIDTHS[len(shot.frames) > 1]
        return Passage(
            str(path),
            shot.start,
            shot.end,
            [frame.time for frame in shot.frames],
            [self._transform(frame.image) for frame in shot.frames],
            [thumbnail(frame.image, width) for frame in shot.frames] if self._thumbnails else [],
        )


class ReadAhead(Generic[Key, Item]):
    """Reads files in background threads and gives them in order. A context manager: leaving it ends the threads.

    Args:
        read: path -> its items, run in a thread.
        frames_each: frames of an item, which decide how many files are read ahead.
    """

    def __init__(self, read: Callable[[Key], Iterator[Item]], workers: int, frames_each: int) -> None:
        self._read, self._workers = read, workers
        self._ahead = max(workers, _FRAMES_AHEAD // frames_each, 1)
        self._stopped = threading.Event()
        self.seconds_waited = 0.0

    def __enter__(self) -> "ReadAhead[Key, Item]":
        self._pool = ThreadPoolExecutor(self._workers, "reader")
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._pool.shutdown(cancel_futures=True)

    def files(self, paths: Iterable[Key]) -> Iterator[tuple[Key, Iterator[Item]]]:
        """Each path with its items; iterating over these raises ReadingFailed where the file cannot be read.

        Reading begins with the call.
        """
        remaining = iter(paths)
        started: deque[tuple[Key, queue.Queue]] = deque()
        self._start(remaining, started)
        return self._in_order(remaining, started)

    def _start(self, remaining: Iterator[Key], started: deque[tuple[Key, queue.Queue]]) -> None:
        while len(started) < self._ahead and (path := next(remaining, None)) is not None:
            waiting: queue.Queue = queue.Queue(_QUEUE_LENGTH)
            self._pool.submit(self._run, path, waiting)
            started.append((path, waiting))

    def _in_order(
        self, remaining: Iterator[Key], started: deque[tuple[Key, queue.Queue]]
    ) -> Iterator[tuple[Key, Iterator[Item]]]:
        while started:
            path, waiting = started.popleft()
            yield path, self._items(waiting)
            self._start(remaining, started)

    def _items(self, waiting: queue.Queue) -> Iterator[Item]:
        while True:
            begin = time.perf_counter()
            item = waiting.get()
            self.seconds_waited += time.perf_counter() - begin
            if item is None:
                return
            if isinstance(item, ReadingFailed):
                raise item
            yield item

    def _run(self, path: Key, waiting: queue.Queue) -> None:
        try:
            for item in self._read(path):
                self._put(waiting, item)
                if self._stopped.is_set():
                    return
            self._put(waiting, None)
        except InputError as error:
            self._put(waiting, ReadingFailed(str(error)))
        except Exception as error:  # whatever a file does to its reader, the others are to be captioned
            self._put(waiting, ReadingFailed(f"{shown(str(path))}: cannot be read ({type(error).__name__}: {error})"))

    def _put(self, waiting: queue.Queue, item: object) -> None:
        while not self._stopped.is_set():
            try:
                return waiting.put(item, timeout=0.2)
            except queue.Full:
                continue
