"""RandAugment against torchvision's operations, live, to the pixel; what is drawn, and that it is drawn again alike."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from mindone_coca.config import PreprocessCfg
from mindone_coca.errors import InputError
from mindone_coca.model.families import load_model_config
from mindone_coca.preprocess import augment
from mindone_coca.preprocess.augment import HIGHEST, OPERATIONS, AugmentConfig, rand_augment
from mindone_coca.preprocess.transforms import make_transform, to_pixels
from mindone_coca.training.job import training_transform
from tests.reference import torch
from tests.training.runs import TINY

# isort: split
from torchvision.transforms import InterpolationMode, autoaugment


def picture(width: int = 23, height: int = 17, seed: int = 0) -> Image.Image:
    """Smooth, of values that do not reach from 0 to 255."""
    small = np.random.default_rng(seed).integers(20, 200, (4, 5, 3)).astype(np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def test_each_operation_is_torchvision_s():
    image = picture()
    theirs = autoaugment.RandAugment(num_magnitude_bins=HIGHEST + 1)._augmentation_space(HIGHEST + 1, (17, 23))
    assert list(theirs) == list(OPERATIONS)
    for name, (magnitudes, signed) in theirs.items():
        operation = OPERATIONS[name]
        assert operation.signed == signed
        for magnitude in range(HIGHEST + 1):
            amount = operation.amount(image.size, magnitude)
            want = float(magnitudes[magnitude]) if magnitudes.ndim else 0.0
            assert amount == pytest.approx(want, abs=1e-4), (name, magnitude)
            for sign in (1, -1) if signed else (1,):
                wanted = autoaugment._apply_op(image, name, sign * amount, InterpolationMode.NEAREST, None)
                np.testing.assert_array_equal(operation.change(image, sign * amount), wanted, f"{name} {magnitude}")


def test_as_many_operations_as_asked_each_as_likely(monkeypatch):
    drawn: list[tuple[str, float]] = []

    def note(name: str) -> augment.Operation:
        def change(image: Image.Image, amount: float) -> Image.Image:
            drawn.append((name, amount))
            return image

        return augment.Operation(change, lambda size, magnitude: float(magnitude), name == "signed")

    monkeypatch.setattr(augment, "OPERATIONS", {name: note(name) for name in ("a", "b", "signed")})
    rng = np.random.default_rng(0)
    for _ in range(500):
        rand_augment(picture(), AugmentConfig(num_ops=3, magnitude=7), rng)
    counts = Counter(drawn)
    assert len(drawn) == 1500 and set(counts) == {("a", 7), ("b", 7), ("signed", 7), ("signed", -7)}
    assert all(430 < counts[name, 7] < 570 for name in "ab") and 200 < counts["signed", -7] < 300


@pytest.mark.parametrize("random_crop", [True, False])
def test_training_draws_by_its_seed_after_the_crop(random_crop):
    config = load_model_config(TINY)
    plain, changed = (training_transform(random_crop, config, a) for a in (None, AugmentConfig(2, 20)))
    image = picture(40, 40)
    seeds = [(0, 3, epoch, slot) for epoch in range(2) for slot in range(6)]
    results = [changed(image, seed) for seed in seeds]
    for seed, result in zip(seeds, results):
        np.testing.assert_array_equal(changed(image, seed), result)  # in any process, at any time
        # the same crop, then the operations, then the normalisation
        crop = Image.fromarray(to_pixels(plain(image, seed), config.preprocess))
        pixels = rand_augment(crop, AugmentConfig(2, 20), np.random.default_rng((*seed, 1)))
        np.testing.assert_array_equal(result, make_transform(config.image_hw, PreprocessCfg())(pixels))
    assert len({result.tobytes() for result in results}) > 8


def test_settings_out_of_range_are_refused():
    for settings, words in (({"num_ops": 0}, "num_ops: must be above 0"), ({"magnitude": 31}, "from 0 to 30, got 31")):
        with pytest.raises(InputError, match=words):
            AugmentConfig(**settings)
    assert torch  # which torchvision needs to be made fit first
