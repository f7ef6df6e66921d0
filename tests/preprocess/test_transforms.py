"""The transforms against open_clip's `image_transform` and torchvision, run live."""

import pickle

import numpy as np
import pytest
from PIL import Image
from scipy import stats
from skimage import data

from mindone_coca.config import PreprocessCfg
from mindone_coca.errors import InputError
from mindone_coca.preprocess.transforms import (
    create_train_transforms,
    create_transforms,
    make_transform,
    random_crop_box,
)
from tests.reference import open_clip, torch

image_transform = open_clip.transform.image_transform
# torchvision's, as open_clip uses them
RandomResizedCrop = open_clip.transform.RandomResizedCrop
InterpolationMode = open_clip.transform.InterpolationMode
F = open_clip.transform.F

MODES = ["RGB", "RGBA", "LA", "L", "P", "P+transparency", "PA", "1", "CMYK", "YCbCr", "HSV", "LAB", "I;16", "I", "F"]


def make_image(mode: str, width: int, height: int, seed: int = 0) -> Image.Image:
    """Return an image of smooth colour waves and noise, in one of MODES."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 7 + y / 11), np.cos(x / 5), np.sin(y / 3)], axis=-1) * 90 + 128
    rgb = np.clip(waves + rng.normal(0, 30, waves.shape), 0, 255).astype(np.uint8)
    image = Image.fromarray(rgb)
    if mode in ("RGBA", "LA", "PA"):
        image.putalpha(Image.fromarray(rng.integers(0, 256, (height, width), dtype=np.uint8)))
        return image.convert(mode) if mode != "PA" else image.convert("P", palette=Image.Palette.ADAPTIVE).convert("PA")
    if mode.startswith("P"):
        image = image.quantize(32)
        if mode == "P+transparency":
            image.info["transparency"] = 3
        return image
    if mode in ("I;16", "I", "F"):  # values far below and above a byte's
        low = 0 if mode == "I;16" else -400
        values = rng.integers(low, 900, (height, width))
        return Image.fromarray(values.astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]))
    return image.convert(mode)


def assert_equals_open_clip(image, size, **settings):
    expected = image_transform(size, is_train=False, **settings)(image).numpy()
    actual = create_transforms(size, **settings)(image)
    assert actual.dtype == np.float32 and actual.shape == expected.shape
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_and_resize_mode_equals_open_clip(mode, resize_mode):
    for width, height in [(320, 200), (97, 131), (64, 64), (40, 30)]:  # larger, odd, equal, smaller
        for interpolation in ["bicubic", "bilinear"]:
            image = make_image(mode, width, height)
            assert_equals_open_clip(image, 64, resize_mode=resize_mode, interpolation=interpolation)


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [(64, 48), (48, 64), (33, 31), [56, 56], (7, 90)])
def test_rectangles_equal_open_clip(size, resize_mode):
    for mode in ["RGB", "RGBA", "P"]:
        for width, height in [(320, 200), (97, 131), (64, 48), (21, 20)]:
            image = make_image(mode, width, height)
            for interpolation in ["bicubic", "bilinear", "random"]:
                assert_equals_open_clip(image, size, resize_mode=resize_mode, interpolation=interpolation)


@pytest.mark.parametrize(
    "width, height", [(1, 1), (1, 40), (40, 1), (3, 1000), (1000, 3), (223, 225), (225, 224), (2, 3)]
)
def test_odd_sizes_equal_open_clip(width, height):
    for mode in ["RGB", "RGBA", "L", "P"]:
        image = make_image(mode, width, height)
        assert_equals_open_clip(image, 224)
        assert_equals_open_clip(image, 224, resize_mode="squash")
        if 224 * min(width, height) / max(width, height) > 0.5:  # beyond that open_clip fails
            assert_equals_open_clip(image, 224, resize_mode="longest")


def test_longest_with_a_side_that_rounds_to_nothing_keeps_one_line():
    line = create_transforms(64, mean=0, std=1, resize_mode="longest", fill_color=255)(Image.new("RGB", (1000, 1)))
    assert (line == 0).all(axis=(0, 2)).sum() == 1 and (line == 1).all(axis=(0, 2)).sum() == 63


@pytest.mark.parametrize("mode", MODES)
def test_fill_colour_equals_open_clip(mode):
    for size in [(200, 90), (33, 80)]:
        assert_equals_open_clip(make_image(mode, *size), 65, resize_mode="longest", fill_color=117)


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "camera"])
def test_photos_equal_open_clip(name):
    image = Image.fromarray(getattr(data, name)())
    for settings in [{}, {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}, {"mean": 0.5, "std": 0.25}]:
        assert_equals_open_clip(image, 224, **settings)


def test_random_sizes_equal_open_clip():
    rng = np.random.default_rng(5)
    for _ in range(150):
        width, height, target = (int(n) for n in rng.integers(1, 300, size=3))
        assert_equals_open_clip(make_image("RGB", width, height), target)


def test_array_equals_pil_image():
    photo = data.chelsea()
    transform = create_transforms(224)
    np.testing.assert_array_equal(transform(photo), transform(Image.fromarray(photo)))
    view = photo[:, ::-1]  # not contiguous
    np.testing.assert_array_equal(transform(view), transform(Image.fromarray(view.copy())))


def test_a_model_s_preprocessing_settles_the_transform():
    image = make_image("RGB", 90, 50)
    settings = PreprocessCfg(
        999, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bilinear", resize_mode="longest", fill_color=9
    )
    expected = create_transforms(48, 0.5, 0.5, "bilinear", "longest", 9)(image)
    np.testing.assert_array_equal(make_transform((48, 48), settings)(image), expected)
    np.testing.assert_array_equal(make_transform((48, 48), PreprocessCfg())(image), create_transforms(48)(image))


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"image_size": 0}, "image_size is 0"),
        ({"image_size": (1, 2, 3)}, "image_size is"),
        ({"image_size": 22.5}, "image_size is 22.5"),
        ({"interpolation": "nearest"}, "bicubic, bilinear"),
        ({"resize_mode": "crop"}, "shortest, longest, squash"),
        ({"mean": (1, 2)}, "mean is"),
        ({"std": (1, 2, 0)}, "std is"),
    ],
)
def test_wrong_settings_are_refused(settings, words):
    with pytest.raises(InputError, match=words):
        create_transforms(**settings)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 3)),
        np.zeros((4, 4), np.uint8),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        "x.png",
    ],
)
def test_wrong_images_are_refused(image):
    with pytest.raises(InputError, match="must be"):
        create_transforms()(image)


@pytest.mark.parametrize("mode", MODES)
def test_training_pixels_equal_torchvision_for_the_same_box(mode):
    transform = create_train_transforms((40, 56))
    normalise = image_transform((40, 56), is_train=True).transforms[1:]  # RGB, tensor, mean and std
    for seed in range(8):
        image = make_image(mode, 150, 110, seed)
        top, left, height, width = random_crop_box(image.size, (0.9, 1.0), (3 / 4, 4 / 3), np.random.default_rng(seed))
        expected = F.resized_crop(image, top, left, height, width, [40, 56], InterpolationMode.BICUBIC)
        for step in normalise:
            expected = step(expected)
        np.testing.assert_array_equal(transform(image, seed), expected.numpy())


@pytest.mark.parametrize("scale, ratio", [((0.9, 1.0), (3 / 4, 4 / 3)), ((0.08, 1.0), (0.5, 2.0))])
@pytest.mark.parametrize("image_size", [(160, 120), (90, 200), (64, 64)])
def test_training_boxes_follow_torchvisions_law(image_size, scale, ratio):
    count = 3000
    image = Image.new("RGB", image_size)
    torch.manual_seed(1)
    theirs = np.array([RandomResizedCrop.get_params(image, scale, ratio) for _ in range(count)])
    rng = np.random.default_rng(1)
    ours = np.array([random_crop_box(image_size, scale, ratio, rng) for _ in range(count)])
    for column in range(4):  # top, left, height, width
        # the two samples are of the same distribution unless the p-value is tiny
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-3, column
    assert stats.ks_2samp(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3]).pvalue > 1e-3


@pytest.mark.parametrize("image_size", [(1000, 10), (10, 1000), (1, 1), (1, 3), (400, 299)])
def test_training_box_where_no_draw_fits(image_size):
    """Ratios that never fit lead to the central crop, the same as torchvision's."""
    expected = RandomResizedCrop.get_params(Image.new("RGB", image_size), (1.5, 2.0), (3 / 4, 4 / 3))
    assert random_crop_box(image_size, (1.5, 2.0), (3 / 4, 4 / 3), np.random.default_rng(0)) == expected


def test_training_crops_are_reproducible_by_seed_epoch_and_index():
    transform, image = create_train_transforms(32), make_image("RGB", 90, 70)
    first = transform(image, (1, 2, 3))
    np.testing.assert_array_equal(first, transform(image, (1, 2, 3)))
    np.testing.assert_array_equal(first, transform(np.asarray(image), np.random.default_rng((1, 2, 3))))
    assert not np.array_equal(first, transform(image, (1, 2, 4)))
    rng = np.random.default_rng(0)
    assert not np.array_equal(transform(image, rng), transform(image, rng))


@pytest.mark.parametrize("settings", [{"scale": (0, 1)}, {"scale": (1, 0.5)}, {"ratio": (2, 1)}, {"ratio": (-1, 1)}])
def test_wrong_training_ranges_are_refused(settings):
    with pytest.raises(InputError, match="range of positive numbers"):
        create_train_transforms(**settings)


def test_transforms_can_be_sent_to_worker_processes():
    image = make_image("RGB", 50, 40)
    evaluate, train = pickle.loads(pickle.dumps((create_transforms(32), create_train_transforms(32))))
    np.testing.assert_array_equal(evaluate(image), create_transforms(32)(image))
    np.testing.assert_array_equal(train(image, 5), create_train_transforms(32)(image, 5))
