"""RandAugment (arXiv 1909.13719) by Pillow's operations alone, torchvision's pixel for pixel.

The libraries that have it work on torch's tensors or by random numbers of their own, which a run that goes on could
not draw again. Here all follows from a generator that is given.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from mindone_coca.errors import InputError

HIGHEST = 30  # magnitude
Change = Callable[[Image.Image, float], Image.Image]


@dataclass
class AugmentConfig:
    """RandAugment of training pictures, by torchvision's operations and with its defaults (arXiv 1909.13719)."""

    num_ops: int = 2  # of the fourteen, drawn anew for each picture in each epoch
    magnitude: int = 9  # from 0 to 30, of each of them

    def __post_init__(self) -> None:
        if self.num_ops < 1:
            raise InputError(
                f"data.augment.num_ops: must be above 0, got {self.num_ops}; leave data.augment out for none"
            )
        if not 0 <= self.magnitude <= HIGHEST:
            raise InputError(f"data.augment.magnitude: must be from 0 to {HIGHEST}, got {self.magnitude}")


def _affine(image: Image.Image, a: float, b: float, c: float, d: float, e: float, f: float) -> Image.Image:
    """The pixel at (x, y) is the one that was at (a x + b y + c, d x + e y + f), black where there was none."""
    return image.transform(image.size, Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.NEAREST)


def _enhanced(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Change:
    return lambda image, amount: kind(image).enhance(1 + amount)


@dataclass(frozen=True)
class Operation:
    """One of the fourteen.

    Attributes:
        amount: of an image's size (width, height) and a magnitude.
        signed: the amount is taken negative half of the time.
    """

    change: Change
    amount: Callable[[tuple[int, int], int], float] = lambda size, magnitude: 0.0
    signed: bool = False


def _up_to(most: float) -> Callable[[tuple[int, int], int], float]:
    return lambda size, magnitude: most * magnitude / HIGHEST


# Source: torchvision.transforms.RandAugment, its names and its order; the paper's translations were of pictures of 331
OPERATIONS: dict[str, Operation] = {
    "Identity": Operation(lambda image, amount: image),
    "ShearX": Operation(lambda image, amount: _affine(image, 1, amount, 0, 0, 1, 0), _up_to(0.3), True),
    "ShearY": Operation(lambda image, amount: _affine(image, 1, 0, 0, amount, 1, 0), _up_to(0.3), True),
    "TranslateX": Operation(
        lambda image, amount: _affine(image, 1, 0, -int(amount), 0, 1, 0),
        lambda size, magnitude: 150 / 331 * size[0] * magnitude / HIGHEST,
        True,
    ),
    "TranslateY": Operation(
        lambda image, amount: _affine(image, 1, 0, 0, 0, 1, -int(amount)),
        lambda size, magnitude: 150 / 331 * size[1] * magnitude / HIGHEST,
        True,
    ),
    "Rotate": Operation(lambda image, amount: image.rotate(amount), _up_to(30.0), True),
    "Brightness": Operation(_enhanced(ImageEnhance.Brightness), _up_to(0.9), True),
    "Color": Operation(_enhanced(ImageEnhance.Color), _up_to(0.9), True),
    "Contrast": Operation(_enhanced(ImageEnhance.Contrast), _up_to(0.9), True),
    "Sharpness": Operation(_enhanced(ImageEnhance.Sharpness), _up_to(0.9), True),
    "Posterize": Operation(
        lambda image, bits: ImageOps.posterize(image, int(bits)),
        lambda size, magnitude: 8 - round(4 * magnitude / HIGHEST),
    ),
    "Solarize": Operation(
        lambda image, threshold: ImageOps.solarize(image, math.ceil(threshold)),
        lambda size, magnitude: 255 * (HIGHEST - magnitude) / HIGHEST,
    ),
    "AutoContrast": Operation(lambda image, amount: ImageOps.autocontrast(image)),
    "Equalize": Operation(lambda image, amount: ImageOps.equalize(image)),
}


def rand_augment(image: Image.Image, config: AugmentConfig, rng: np.random.Generator) -> Image.Image:
    """An RGB picture after operations that `rng` draws, each after the other."""
    for _ in range(config.num_ops):
        operation = tuple(OPERATIONS.values())[rng.integers(len(OPERATIONS))]
        amount = operation.amount(image.size, config.magnitude)
        image = operation.change(image, -amount if operation.signed and rng.integers(2) else amount)
    return image
