"""The scenes of the demo model's world and their captions.

A caption is a function of the scene, with one wording for each:

- one shape: "a large red circle"; two or three alike: "three small green stars";
- two kinds: "a large red circle above a small blue square", "two small green stars left of a large white ring". Of the
  four relations exactly one holds. The pair comes first, else the larger shape, else the upper or left one;
- three kinds stand side by side: "a red circle and a blue square and a green star", from left to right. No comma:
  CLIP's tokenizer gives it back with a space before it.

Shapes stand in the cells of a grid of three by three, with a little play: a transformer this small then needs fewer
pictures to tell them apart.

No caption has fewer than four words, because generation by default puts no end before the fifth token. Some pairs of
colours, and some pairs of shapes above or beside each other, are held out: training never shows them in one scene.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

COLOURS = {
    "red": (205, 40, 45),
    "orange": (238, 135, 30),
    "yellow": (242, 222, 60),
    "green": (45, 150, 65),
    "blue": (45, 85, 205),
    "purple": (135, 55, 165),
    "white": (241, 241, 239),
    "black": (24, 24, 27),
}
SHAPES = {
    "circle": "circles",
    "square": "squares",
    "triangle": "triangles",
    "star": "stars",
    "ring": "rings",
    "cross": "crosses",
}
# never drawn for training: three pairs of colours in one scene, five pairs of shapes standing in one of two directions
HELD_OUT_COLOURS = {("red", "yellow"), ("blue", "white"), ("green", "purple")}
HELD_OUT_RELATIONS = {
    ("ring", "star", "vertical"),
    ("circle", "ring", "vertical"),
    ("cross", "square", "vertical"),
    ("ring", "triangle", "horizontal"),
    ("circle", "star", "horizontal"),
}
KINDS = {"one": 0.05, "two_kinds": 0.4, "alike": 0.12, "pair_and_one": 0.3, "three_kinds": 0.13}

# lengths are in 64ths of the picture's side
SIDE = 64.0
SIZES = {"small": (7.2, 8.4), "large": (12.2, 13.8)}  # radii
CELL = SIDE / 3  # of the grid that shapes stand on
PLAY = 1.6  # how far a centre may be from its cell's, each way
GAP = 3.0  # at least, between shapes
MARGIN = 2.5  # between shapes and the border


@dataclass(frozen=True)
class Shape:
    """A shape in the plane: centre from the left and top, radius, tilt in degrees, and RGB."""

    colour: str
    name: str
    x: float
    y: float
    radius: float
    tilt: float = 0.0
    rgb: tuple[int, int, int] = (0, 0, 0)

    @property
    def size(self) -> str:
        """`small` or `large`; raises ValueError for a radius in between."""
        for size, (low, high) in SIZES.items():
            if low * 0.95 <= self.radius <= high * 1.05:
                return size
        raise ValueError(f"a radius of {self.radius} is neither small nor large")


def relation(first: Sequence[Shape], second: Sequence[Shape]) -> str:
    """Where the first shapes stand from the second: the one word that holds for all of them with room to spare.

    Raises ValueError unless there is exactly one.
    """

    def room(along: str, sign: int) -> float:
        return min(sign * (getattr(b, along) - getattr(a, along)) - a.radius - b.radius for a in first for b in second)

    def centre(shapes: Sequence[Shape]) -> np.ndarray:
        return np.mean([(shape.x, shape.y) for shape in shapes], axis=0)

    dx, dy = np.abs(centre(first) - centre(second))
    words = {"left of": ("x", 1), "right of": ("x", -1), "above": ("y", 1), "below": ("y", -1)}
    fitting = [
        word
        for word, (along, sign) in words.items()
        if room(along, sign) >= GAP / 2 and (dy <= 0.5 * dx if along == "x" else dx <= 0.5 * dy)
    ]
    if len(fitting) != 1:
        raise ValueError(f"{fitting or 'no relation'} between {first} and {second}")
    return fitting[0]


def phrase(shapes: Sequence[Shape], with_size: bool = True) -> str:
    """One shape or several alike: `a large red circle`, `two small green stars`. Raises ValueError for mixed sizes."""
    if len({shape.size for shape in shapes}) > 1:
        raise ValueError(f"shapes alike of two sizes: {shapes}")
    shape = shapes[0]
    words = f"{shape.size} {shape.colour}" if with_size else shape.colour
    if len(shapes) > 1:
        return f"{('two', 'three')[len(shapes) - 2]} {words} {SHAPES[shape.name]}"
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words} {shape.name}"


def kinds_of(shapes: Sequence[Shape]) -> list[list[Shape]]:
    """The shapes in groups of one colour and form, in the order in which a caption names them."""
    groups: dict[tuple[str, str], list[Shape]] = {}
    for shape in shapes:
        groups.setdefault((shape.colour, shape.name), []).append(shape)
    kinds = list(groups.values())
    if len(kinds) == 3:
        return sorted(kinds, key=lambda kind: kind[0].x)
    if len(kinds) == 2:
        is_large = [kind[0].size == "large" for kind in kinds]
        if len(shapes) == 3:
            swap = len(kinds[1]) == 2
        elif is_large[0] != is_large[1]:
            swap = is_large[1]
        else:
            swap = relation(*kinds) in ("below", "right of")
        return kinds[::-1] if swap else kinds
    return kinds


def describe(shapes: Sequence[Shape]) -> str:
    """The caption of a scene. Raises ValueError for one that has none."""
    kinds = kinds_of(shapes)
    if len(kinds) == 1:
        return phrase(kinds[0])
    if len(kinds) == 2:
        return f"{phrase(kinds[0])} {relation(*kinds)} {phrase(kinds[1])}"
    for left, right in itertools.pairwise(kinds):
        if relation(left, right) != "left of":
            raise ValueError(f"not side by side: {left}, {right}")
    first, second, third = (phrase(kind, with_size=False) for kind in kinds)
    return f"{first} and {second} and {third}"


def is_held_out(shapes: Sequence[Shape]) -> bool:
    """Whether the scene shows a combination that training never does."""
    colours = {shape.colour for shape in shapes}
    if any(colours.issuperset(pair) for pair in HELD_OUT_COLOURS):
        return True
    for first, second in itertools.pairwise(kinds_of(shapes)):
        names = sorted((first[0].name, second[0].name))
        direction = "vertical" if relation(first, second) in ("above", "below") else "horizontal"
        if (*names, direction) in HELD_OUT_RELATIONS:
            return True
    return False


def sample_scene(rng: np.random.Generator, held_out: bool, kind: str | None = None) -> list[Shape]:
    """A scene of the training combinations, or of the held-out ones; kinds about at their rates, or the given one."""
    while True:
        drawn = kind or rng.choice(list(KINDS), p=list(KINDS.values()))
        shapes = _placed(rng, _sample_looks(rng, drawn), side_by_side=drawn == "three_kinds")
        if _is_clear(shapes) and is_held_out(shapes) == held_out:
            return shapes


def _looks(rng: np.random.Generator, count: int) -> list[tuple[str, str]]:
    """Different (colour, shape) pairs."""
    chosen = rng.choice(len(COLOURS) * len(SHAPES), count, replace=False)
    colours, names = list(COLOURS), list(SHAPES)
    return [(colours[number // len(names)], names[number % len(names)]) for number in chosen]


def _shape(rng: np.random.Generator, look: tuple[str, str], size: str) -> Shape:
    rgb = tuple(np.clip(np.add(COLOURS[look[0]], rng.integers(-14, 15, 3)), 0, 255).tolist())
    return Shape(*look, 0.0, 0.0, rng.uniform(*SIZES[size]), rng.uniform(-8, 8), rgb)


def _any_size(rng: np.random.Generator) -> str:
    return str(rng.choice(list(SIZES)))


def bounds(shapes: Sequence[Shape]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of what the shapes cover."""
    return (
        min(s.x - s.radius for s in shapes),
        min(s.y - s.radius for s in shapes),
        max(s.x + s.radius for s in shapes),
        max(s.y + s.radius for s in shapes),
    )


def moved(shapes: Sequence[Shape], dx: float, dy: float) -> list[Shape]:
    """The shapes shifted to the right and down."""
    return [replace(shape, x=shape.x + dx, y=shape.y + dy) for shape in shapes]


def _sample_looks(rng: np.random.Generator, kind: str) -> list[Shape]:
    """The shapes of a scene, without their places."""
    if kind == "one":
        return [_shape(rng, _looks(rng, 1)[0], _any_size(rng))]
    if kind == "two_kinds":
        return [_shape(rng, look, _any_size(rng)) for look in _looks(rng, 2)]
    if kind == "three_kinds":
        return [_shape(rng, look, "small") for look in _looks(rng, 3)]
    if kind == "alike":
        count = rng.integers(2, 4)
        look, size = _looks(rng, 1)[0], _any_size(rng) if count == 2 else "small"
        return [_shape(rng, look, size) for _ in range(count)]
    pair, look = _looks(rng, 2)
    return [_shape(rng, look, _any_size(rng)), *(_shape(rng, pair, "small") for _ in range(2))]


def _placed(rng: np.random.Generator, shapes: Sequence[Shape], side_by_side: bool) -> list[Shape]:
    """The shapes in different cells of the grid, or in those of one row; a large one may reach into the next cells."""
    cells = 3 * rng.integers(3) + rng.permutation(3) if side_by_side else rng.permutation(9)
    placed = []
    for shape, cell in zip(shapes, cells):
        border = shape.radius + MARGIN
        centre = (np.array((cell % 3, cell // 3)) + 0.5) * CELL + rng.uniform(-PLAY, PLAY, 2)
        x, y = np.clip(centre, border, SIDE - border).tolist()
        placed.append(replace(shape, x=x, y=y))
    return placed


def _is_clear(shapes: Sequence[Shape]) -> bool:
    """Whether the shapes stand apart and have a caption."""
    pairs = itertools.combinations(shapes, 2)
    if any(math.dist((a.x, a.y), (b.x, b.y)) <= a.radius + b.radius + GAP for a, b in pairs):
        return False
    try:
        describe(shapes)
    except ValueError:
        return False
    return True
