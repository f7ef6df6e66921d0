"""Images to model input: open_clip 3.3.0's `image_transform` for evaluation and training, with Pillow and NumPy only.

Images are resized and cropped in their own mode and become RGB last, as in open_clip: for images with a palette or
transparency the other order gives other pixels.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from mindone_coca.argument_names import names_arguments
from mindone_coca.config import PreprocessCfg
from mindone_coca.errors import InputError

# open_clip evaluates with bicubic when the config says "random".
_RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "random": Image.Resampling.BICUBIC,
}
_RESIZE_MODES = ("shortest", "longest", "squash")
_CROP_ATTEMPTS = 10

ImageLike = Image.Image | np.ndarray
Channels = float | Sequence[float] | None


@dataclass(frozen=True)
class EvalTransform:
    """Callable: image -> (3, H, W) float32. Built by `create_transforms`, which documents the fields."""

    size: tuple[int, int]  # height, width
    resize_mode: str
    resampling: Image.Resampling
    fill_color: int
    table: np.ndarray  # (3, 256): the normalised value of each byte in each channel

    def __call__(self, image: ImageLike) -> np.ndarray:
        image = _as_pil(image)
        if self.resize_mode == "squash":
            image = _resize(image, self.size, self.resampling)
        elif self.resize_mode == "longest":
            image = _resize(image, self._kept_ratio_size(image, max), self.resampling)
            image = _center_crop_or_pad(image, self.size, self.fill_color)
        else:
            image = self._resize_shortest(image)
            image = _center_crop_or_pad(image, self.size, fill=0)
        return _normalise(image, self.table)

    def _resize_shortest(self, image: Image.Image) -> Image.Image:
        height, width = self.size
        if height != width:  # here open_clip passes its interpolation setting over
            return _resize(image, self._kept_ratio_size(image, min), Image.Resampling.BICUBIC)
        short, long = sorted(image.size)
        new_long = int(height * long / short)
        new_size = (new_long, height) if image.width <= image.height else (height, new_long)
        return _resize(image, new_size, self.resampling)

    def _kept_ratio_size(self, image: Image.Image, choose: Callable) -> tuple[int, int]:
        """Height and width scaled by one factor, so that the longest (`max`) or shortest (`min`) side fits."""
        ratio = choose(image.height / self.size[0], image.width / self.size[1])
        # open_clip fails where a side rounds to 0
        return max(1, round(image.height / ratio)), max(1, round(image.width / ratio))


@dataclass(frozen=True)
class TrainTransform:
    """Callable: image, random state -> (3, H, W) float32. Built by `create_train_transforms`."""

    size: tuple[int, int]  # height, width
    scale: tuple[float, float]
    ratio: tuple[float, float]
    table: np.ndarray  # (3, 256): the normalised value of each byte in each channel

    def __call__(self, image: ImageLike, rng: np.random.Generator | int | Sequence[int]) -> np.ndarray:
        """Crop by `rng`: a generator, or a seed such as (seed, epoch, index), which always gives the same crop."""
        image = _as_pil(image)
        top, left, height, width = random_crop_box(image.size, self.scale, self.ratio, np.random.default_rng(rng))
        image = image.crop((left, top, left + width, top + height))
        return _normalise(_resize(image, self.size, Image.Resampling.BICUBIC), self.table)


@names_arguments
def create_transforms(
    image_size: int | Sequence[int] = 224,
    mean: Channels = None,
    std: Channels = None,
    interpolation: str = "bicubic",
    resize_mode: str = "shortest",
    fill_color: int = 0,
) -> EvalTransform:
    """Build the transform for inference, open_clip's `image_transform(is_train=False)`.

    Args:
        image_size: side of the square result, or (height, width).
        mean, std: per channel for values in 0..1, or one number for all; default: CLIP's.
        interpolation: "bicubic", "bilinear", or "random", which means bicubic here.
        resize_mode: "shortest" fits the shorter side and crops the centre, "longest" fits the longer side and pads
            with `fill_color`, "squash" ignores the aspect ratio.
        fill_color: 0..255, for "longest".

    Returns:
        A callable that takes a PIL image of any mode, or an RGB uint8 array (H, W, 3), and returns a float32 array
        (3, height, width). Images of modes I;16, I and F are clipped to 0..255, not scaled, as open_clip does.

    Raises:
        InputError: an argument outside these choices; at the call, an array of another type or shape.
    """
    if interpolation not in _RESAMPLING:
        raise InputError(f"interpolation is {interpolation!r}; choose one of {', '.join(_RESAMPLING)}")
    if resize_mode not in _RESIZE_MODES:
        raise InputError(f"resize_mode is {resize_mode!r}; choose one of {', '.join(_RESIZE_MODES)}")
    size = _height_width(image_size)
    return EvalTransform(size, resize_mode, _RESAMPLING[interpolation], fill_color, _byte_table(mean, std))


def make_transform(image_hw: tuple[int, int], preprocess: PreprocessCfg) -> EvalTransform:
    """The inference transform of a model: images of any size -> (3, H, W) float32."""
    return create_transforms(
        image_hw,
        preprocess.mean,
        preprocess.std,
        preprocess.interpolation,
        preprocess.resize_mode,
        preprocess.fill_color,
    )


def to_pixels(image: np.ndarray, preprocess: PreprocessCfg) -> np.ndarray:
    """The transform's inverse: a model's input (3, H, W) as RGB uint8 (H, W, 3)."""
    mean, std = (np.array(x, np.float32)[:, None, None] for x in (preprocess.mean, preprocess.std))
    return np.clip((image * std + mean) * 255 + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0)


@names_arguments
def create_train_transforms(
    image_size: int | Sequence[int] = 224,
    mean: Channels = None,
    std: Channels = None,
    scale: tuple[float, float] = (0.9, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> TrainTransform:
    """Build the transform for training, open_clip's `image_transform(is_train=True)`: one random crop, no flip.

    Args:
        image_size, mean, std: as in `create_transforms`.
        scale: range of the crop's area as a fraction of the image's.
        ratio: range of the crop's width / height.

    Returns:
        A callable `transform(image, rng)` with the images and the result of `create_transforms`.
    """
    for name, (low, high) in (("scale", scale), ("ratio", ratio)):
        if not 0 < low <= high:
            raise InputError(f"{name} is ({low}, {high}); it must be a range of positive numbers, the smaller first")
    area, shape = (scale[0], scale[1]), (ratio[0], ratio[1])
    return TrainTransform(_height_width(image_size), area, shape, _byte_table(mean, std))


def random_crop_box(
    image_size: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Draw a crop (top, left, height, width) from an image of `image_size` (width, height).

    The law is that of torchvision's `RandomResizedCrop.get_params`: area uniform in `scale`, logarithm of the aspect
    ratio uniform in `ratio`, drawn again until the crop fits; the centre after ten misses.
    """
    width, height = image_size
    for _ in range(_CROP_ATTEMPTS):
        area = width * height * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(rng.integers(0, height - crop_height + 1))
            left = int(rng.integers(0, width - crop_width + 1))
            return top, left, crop_height, crop_width
    # The whole image, or the part of it nearest to the allowed ratios.
    crop_width = min(width, max(1, round(height * max(ratio))))
    crop_height = min(height, max(1, round(width / min(ratio))))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def _as_pil(image: ImageLike) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    if not isinstance(image, np.ndarray):
        raise InputError(f"an image must be a PIL image or a uint8 array, not {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise InputError(f"an image array must be RGB uint8 of shape (H, W, 3), not {image.dtype} of {image.shape}")
    return Image.fromarray(image)


def _resize(image: Image.Image, size: tuple[int, int], resampling: Image.Resampling) -> Image.Image:
    """Resize to (height, width); Pillow's filters widen when they shrink, so there is no aliasing."""
    return image.resize((size[1], size[0]), resampling)


def _center_crop_or_pad(image: Image.Image, size: tuple[int, int], fill: int) -> Image.Image:
    """Cut (height, width) from the centre, after filling up the sides that are too short."""
    height, width = size
    missing_x, missing_y = max(0, width - image.width), max(0, height - image.height)
    if missing_x or missing_y:
        border = (missing_x // 2, missing_y // 2, (missing_x + 1) // 2, (missing_y + 1) // 2)
        bands = len(image.getbands())
        padded = ImageOps.expand(image, border, fill=fill if bands == 1 else (fill,) * bands)
        # fill is an index where there is a palette; expand would draw it as a new colour of that
        if image.mode == "P" and (palette := image.getpalette()) is not None:
            padded.putpalette(palette)
        image = padded
    top, left = round((image.height - height) / 2), round((image.width - width) / 2)
    return image.crop((left, top, left + width, top + height))


def _normalise(image: Image.Image, table: np.ndarray) -> np.ndarray:
    pixels = np.asarray(image.convert("RGB"))
    return np.stack([table[channel][pixels[:, :, channel]] for channel in range(3)])


def _byte_table(mean: Channels, std: Channels) -> np.ndarray:
    """(3, 256): (byte / 255 - mean) / std in float32, step by step as torchvision computes it."""
    means = _three("mean", PreprocessCfg.mean if mean is None else mean)
    stds = _three("std", PreprocessCfg.std if std is None else std)
    if not (stds > 0).all():
        raise InputError(f"std is {stds.tolist()}; every value must be above 0")
    values = np.arange(256, dtype=np.float32) / np.float32(255)
    return (values - means[:, None]) / stds[:, None]


def _three(name: str, values: float | Sequence[float]) -> np.ndarray:
    try:
        array = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError):
        array = None
    if array is None or array.shape not in ((), (3,)):
        raise InputError(f"{name} is {values!r}; give one number or three")
    return np.broadcast_to(array, 3)


def _height_width(image_size: int | Sequence[int]) -> tuple[int, int]:
    pair = tuple(image_size) if isinstance(image_size, Sequence) else (image_size, image_size)
    if len(pair) != 2 or not all(isinstance(side, int) and side > 0 for side in pair):
        raise InputError(f"image_size is {image_size!r}; give one positive integer or (height, width)")
    return pair
