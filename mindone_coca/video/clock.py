"""The clock of a video: when each frame is on the screen, and which one stands for a stretch of time.

A frame is on the screen from its time until the next one's, the last one for its own duration. Nothing here knows
files: frames are numbers of seconds, in order of presentation.
"""

import math
from array import array
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

Frame = TypeVar("Frame")

_TOLERANCE = 1e-6  # seconds; times that differ by less are the same, whatever the rounding of sums
_CANDIDATES = 8  # frames held until the middle of a stretch is known


@dataclass(frozen=True)
class Timeline:
    """When the frames of a video are shown, in seconds.

    Attributes:
        times: (N,) float64, never descending; N is at least 1.
        end: when the last frame leaves the screen.
    """

    times: np.ndarray
    end: float

    @property
    def start(self) -> float:
        return float(self.times[0])

    def shown_at(self, moments: np.ndarray) -> np.ndarray:
        """(M,) moments -> (M,) indices of the frames on the screen then."""
        after = np.searchsorted(self.times, np.asarray(moments) + _TOLERANCE, side="right")
        return np.clip(after - 1, 0, len(self.times) - 1)


@dataclass(frozen=True)
class Stretch:
    """A part of a video, in seconds, and the index of the frame that is on the screen at its middle."""

    start: float
    end: float
    index: int


class Clock:
    """Takes the frames of a video one by one, as stored, and tells when each is shown.

    Where a stored time does not come after the frame before, the video goes on from that frame's end: files that were
    put together by `cat` start anew within the file.
    """

    def __init__(self) -> None:
        self._times = array("d")
        self._duration: float | None = None  # of the last frame
        self._shift = 0.0  # what is added to stored times

    def __len__(self) -> int:
        return len(self._times)

    def add(self, time: float | None, duration: float | None) -> float:
        """Take a frame's stored time and duration in seconds, None where not given, and return when it is shown."""
        shown = None if time is None else time + self._shift
        if self._times and (shown is None or shown <= self._times[-1]):
            end = self.end
            if shown is not None:
                self._shift += end - shown
            shown = end
        self._times.append(shown or 0.0)
        self._duration = duration
        return self._times[-1]

    @property
    def end(self) -> float:
        """When the last frame leaves the screen."""
        return end_of(self._times[-2:], self._duration)

    def timeline(self) -> Timeline:
        return Timeline(np.array(self._times, dtype=np.float64), self.end)


def end_of(times: array | np.ndarray, duration: float | None) -> float:
    """When the last of these frames ends: after its own duration; where none is given, after the gap before it; the
    only frame of a file that gives none, at once."""
    if duration is not None and duration > 0:
        return float(times[-1] + duration)
    return float(times[-1] + (times[-1] - times[-2] if len(times) > 1 else 0.0))


def stretches(timeline: Timeline, seconds: float) -> list[Stretch]:
    """Divide a video from its start to its end into stretches of equal length, each with what it shows at its middle.

    What remains at the end is a stretch of its own if it lasts half as long, else part of the last one.
    """
    start, end = timeline.start, timeline.end
    count = max(1, int((end - start + _TOLERANCE) / seconds + 0.5))
    bounds = start + seconds * np.arange(count + 1)  # (count + 1,)
    bounds[-1] = end
    shown = timeline.shown_at((bounds[:-1] + bounds[1:]) / 2)
    return [Stretch(float(a), float(b), int(index)) for a, b, index in zip(bounds[:-1], bounds[1:], shown)]


class Middle(Generic[Frame]):
    """Takes the frames of a stretch whose end is not known yet, and tells at its end what is shown at its middle.

    Of many frames only those are held that are on the screen at one of a few moments, evenly spread over the stretch:
    the frame returned is shown within an eighth of the stretch's length of the middle. A frame that is shown for half
    of the stretch or longer is never lost.
    """

    def __init__(self) -> None:
        self._held: list[tuple[float, float, Frame]] = []  # from when until when it is shown
        self._newest: tuple[float, Frame] | None = None  # shown until a time not known yet
        self._step: float | None = None  # between the moments; None: every frame is held

    @property
    def start(self) -> float:
        return self._held[0][0] if self._held else self._last()[0]

    def add(self, time: float, frame: Frame) -> None:
        if self._newest is not None:
            self._hold_newest(time)
        self._newest = time, frame

    def shown(self, end: float) -> Frame:
        self._hold_newest(end)
        middle = (self.start + end) / 2
        # Held stretches of time are in order. Of those that do not hold the middle the nearest counts.
        return min(self._held, key=lambda held: (max(held[0] - middle - _TOLERANCE, middle - held[1], 0), -held[0]))[2]

    def _last(self) -> tuple[float, Frame]:
        if self._newest is None:
            raise ValueError("a stretch of time without a frame has no middle one")
        return self._newest

    def _hold_newest(self, until: float) -> None:
        time, frame = self._last()
        if not self._held or self._step is None or _is_shown_at_a_moment(self._step, self.start, time, until):
            self._held.append((time, until, frame))
        while len(self._held) > _CANDIDATES:
            start = self.start
            step = 2 * self._step if self._step else max((until - start) / (_CANDIDATES / 2), _TOLERANCE)
            first, *rest = self._held
            self._held = [first, *(held for held in rest if _is_shown_at_a_moment(step, start, held[0], held[1]))]
            self._step = step


def _is_shown_at_a_moment(step: float, start: float, time: float, until: float) -> bool:
    return math.ceil((time - start) / step) * step < until - start
