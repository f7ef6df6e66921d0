"""Pictures and videos of the demo model's scenes."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
from demo_scenes import MARGIN, SIDE, Shape, bounds, moved
from PIL import Image, ImageDraw


def _circle(radius: float) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return radius * np.stack((np.cos(angle), np.sin(angle)), 1)


def _star() -> np.ndarray:
    angle, radius = np.arange(10) * np.pi / 5 - np.pi / 2, np.tile((1.0, 0.42), 5)
    return np.stack((radius * np.cos(angle), radius * np.sin(angle)), 1)


_ARM = 0.33
OUTLINES = {  # x to the right, y down, within -1..1
    "circle": _circle(0.95),
    "square": np.array([(-0.84, -0.84), (0.84, -0.84), (0.84, 0.84), (-0.84, 0.84)]),
    "triangle": np.array([(0, -0.95), (0.95, 0.8), (-0.95, 0.8)]),
    "star": _star(),
    "ring": _circle(0.97),
    "cross": np.array(
        [
            (-_ARM, -0.95),
            (_ARM, -0.95),
            (_ARM, -_ARM),
            (0.95, -_ARM),
            (0.95, _ARM),
            (_ARM, _ARM),
            (_ARM, 0.95),
            (-_ARM, 0.95),
            (-_ARM, _ARM),
            (-0.95, _ARM),
            (-0.95, -_ARM),
            (-_ARM, -_ARM),
        ]
    ),
}
RING_HOLE = _circle(0.56)


def draw_background(rng: np.random.Generator, side: int) -> Image.Image:
    """A grey, slightly tinted surface: clouds of noise as in an unfocused photograph, stripes, checks or a gradient."""
    level = rng.uniform(90, 160) + rng.uniform(-20, 20, 3)
    style = rng.choice(("clouds", "grain", "stripes", "checks", "gradient"), p=(0.4, 0.15, 0.15, 0.15, 0.15))
    pixels = np.broadcast_to(level, (side, side, 3)).astype(np.float32)
    y, x = np.mgrid[:side, :side] * np.float32(SIDE / side)
    angle, strength = rng.uniform(0, np.pi), rng.uniform(6, 22)
    ramp = (x * np.cos(angle) + y * np.sin(angle)).astype(np.float32)
    if style in ("stripes", "checks"):
        period, phase = rng.uniform(5, 16), rng.uniform(0, 2 * np.pi)
        wave = np.sin(2 * np.pi / period * ramp + phase)
        if style == "checks":
            wave = wave * np.sin(2 * np.pi / period * (y * np.cos(angle) - x * np.sin(angle)))
        pixels = pixels + strength * np.clip(3 * wave, -1, 1)[..., None]
    else:
        pixels = pixels + (ramp - ramp.mean())[..., None] * rng.uniform(0.2, 0.7)
    if style in ("clouds", "grain"):
        first = 3 if style == "clouds" else 24
        for octave in range(3):
            cells, weight = first * 2**octave, strength / 1.5**octave
            noise = rng.normal(128, 50, (cells, cells, 1)) + rng.normal(0, 18, (cells, cells, 3))
            noise = np.clip(noise, 0, 255).astype(np.uint8)
            resized = Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC)
            pixels = pixels + (np.asarray(resized, np.float32) - 128) * (weight / 50)
    return Image.fromarray(np.clip(pixels, 55, 198).astype(np.uint8))


def draw_shapes(image: Image.Image, shapes: Sequence[Shape]) -> None:
    """Draw the shapes onto a square image in place, smooth at the edges."""
    scale = image.width / SIDE
    finer = max(2, round(256 / image.width))  # drawn this much larger, then averaged
    for shape in shapes:
        reach = shape.radius * 1.2 * scale
        left, top = math.floor(shape.x * scale - reach), math.floor(shape.y * scale - reach)
        side = math.ceil(2 * reach) + 2
        mask = Image.new("L", (side * finer, side * finer))
        pen = ImageDraw.Draw(mask)
        cos, sin = math.cos(math.radians(shape.tilt)), math.sin(math.radians(shape.tilt))
        turn = np.array(((cos, sin), (-sin, cos)))
        centre = np.array((shape.x * scale - left, shape.y * scale - top))
        for outline, fill in ((OUTLINES[shape.name], 255), *(((RING_HOLE, 0),) if shape.name == "ring" else ())):
            points = (outline @ turn * (shape.radius * scale) + centre) * finer
            pen.polygon([tuple(point) for point in points.tolist()], fill=fill)
        image.paste(shape.rgb, (left, top), mask.reduce(finer))


def draw_scene(rng: np.random.Generator, shapes: Sequence[Shape], side: int) -> Image.Image:
    """A picture of the scene with a background drawn by `rng` and a little noise."""
    image = draw_background(rng, side)
    draw_shapes(image, shapes)
    noise = rng.normal(0, rng.uniform(0, 5), (side, side, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def motion(rng: np.random.Generator, shapes: Sequence[Shape], frames: int) -> Iterator[list[Shape]]:
    """The scene at each frame: all drift together, each turns a little; the middle frame is the scene itself.

    That leaves the arrangement as it is, so the caption holds for every frame.
    """
    left, top, right, bottom = bounds(shapes)
    room = (
        (max(left - MARGIN, 0), max(SIDE - MARGIN - right, 0)),
        (max(top - MARGIN, 0), max(SIDE - MARGIN - bottom, 0)),
    )
    drift = [rng.choice((-1, 1)) * min(sides) for sides in room]
    turns, cycles = rng.uniform(-12, 12, len(shapes)), rng.uniform(0.5, 1.0, len(shapes))
    for frame in range(frames):
        t = (frame - frames // 2) / frames  # -0.5 to 0.5, 0 in the middle
        wave = np.sin(2 * np.pi * cycles * t)
        together = moved(shapes, *(d * math.sin(np.pi * t) for d in drift))
        yield [replace(s, tilt=s.tilt + turn * w) for s, turn, w in zip(together, turns, wave)]


def write_video(
    path: Path, rng: np.random.Generator, shapes: Sequence[Shape], side: int, frames: int, rate: int, quality: int = 23
) -> None:
    """Write the scene in motion as H.264 in mp4; `quality` is x264's crf. The background drifts too.

    x264's code for some processors gives other bytes from run to run; `cpu-independent` has none of it.
    """
    options = {"crf": str(quality), "threads": "1", "x264-params": "cpu-independent=1"}
    wide = draw_background(rng, side + side // 4)
    slack = wide.width - side
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
        for number, current in enumerate(motion(rng, shapes, frames)):
            offset = round(slack * number / frames)
            image = wide.crop((offset, slack // 2, offset + side, slack // 2 + side))
            draw_shapes(image, current)
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode())
