"""Pictures and clips of scikit-learn's digit scans, for the tasks that make_digit_tasks.py writes."""

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
from make_digits import HELD_OUT, SIDE, draw_digit, is_held_out, load_scans
from PIL import Image

HALF = SIDE // 2  # of a picture, with a digit of this side in it
COVER = 128  # grey that hides a digit
CLIP_FRAMES = 9
CLIP_DIGIT = 12  # pixels, of a moving digit and of the growing one in the middle of its clip
MOTIONS = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1), "growing": (0, 0)}


class Scans:
    """The scans of one part: those to train on, or the fifth number `held_out`."""

    def __init__(self, validation: bool, held_out: int = HELD_OUT):
        scans, digits = load_scans()
        chosen = np.array([is_held_out(number, held_out) == validation for number in range(len(scans))])
        self._by_digit = [scans[chosen & (digits == digit)] for digit in range(10)]

    def draw(self, digit: int, rng: np.random.Generator) -> np.ndarray:
        """One of the scans (8, 8) of a digit."""
        return rng.choice(self._by_digit[digit])


def side_by_side(scans: Sequence[np.ndarray | None], covered: int | None = None) -> Image.Image:
    """A picture of small digits in its left and its right half, of which the one numbered `covered` is hidden by a grey
    square; None leaves a half empty."""
    image = Image.new("L", (SIDE, SIDE))
    for place, scan in enumerate(scans):
        if scan is not None:
            image.paste(draw_digit(scan, HALF), (place * HALF, HALF // 2))
    if covered is not None:
        image.paste(COVER, (covered * HALF, HALF // 2, (covered + 1) * HALF, HALF // 2 + HALF))
    return image


def clip(scan: np.ndarray, motion: str, rng: np.random.Generator) -> list[np.ndarray]:
    """The frames (32, 32, 3) of a clip. The middle one looks alike whatever the motion is: the digit, of the same size,
    near the middle."""
    step_x, step_y = MOTIONS[motion]
    centre = SIDE / 2 + rng.integers(-2, 3, 2)  # x, y
    frames = []
    for step in range(-(CLIP_FRAMES // 2), CLIP_FRAMES // 2 + 1):
        side = CLIP_DIGIT + (2 * step if motion == "growing" else 0)
        left, top = np.round(centre + np.array([step_x, step_y]) * 2 * step - side / 2).astype(int).tolist()
        frame = Image.new("RGB", (SIDE, SIDE))
        frame.paste(draw_digit(scan, side).convert("RGB"), (left, top))
        frames.append(np.asarray(frame))
    return frames


def write_clip(path: Path, frames: list[np.ndarray]) -> None:
    """Write an MP4 file of eight frames a second."""
    height, width = frames[0].shape[:2]
    with av.open(str(path), "w") as video:
        stream = video.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", 1_000_000
        for frame in frames:
            video.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        video.mux(stream.encode())
