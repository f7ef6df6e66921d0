"""Arguments by wrong names, and images that are none: one line that names the mistake, wherever users type them."""

# mypy: disable-error-code="call-arg, arg-type"
# the wrong arguments are what is tested

import inspect

import mindspore as ms
import numpy as np
import pytest
from PIL import Image

from mindone_coca import CoCa, ParallelCoCa, Tokenizer, VideoCaptioner, create_model, create_transforms
from mindone_coca.argument_names import check_argument_types
from mindone_coca.errors import InputError
from mindone_coca.preprocess.transforms import create_train_transforms
from tests.models import CONFIGS
from tests.parallel_models import SMALL

WRONG = {
    "create_model: unknown argument 'checkpoint'; did you mean 'checkpoint_path'?": lambda: create_model(
        "coca_tiny", checkpoint="x"
    ),
    "create_transforms: unknown argument 'imagesize'; did you mean 'image_size'?": lambda: create_transforms(
        imagesize=48
    ),
    "create_train_transforms: unknown argument 'scales'; did you mean 'scale'?": lambda: create_train_transforms(
        scales=(0.9, 1.0)
    ),
    "VideoCaptioner: unknown argument 'fusions'; did you mean 'fusion'?": lambda: VideoCaptioner(
        "coca_tiny", fusions="pool"
    ),
    "VideoCaptioner: unknown argument 'num_beams'; give it when you call the captioner": lambda: VideoCaptioner(
        "coca_tiny", num_beams=4
    ),
    "CoCa: unknown argument 'vision'; did you mean 'vision_cfg'?": lambda: CoCa(32, {}, {}, vision={}),
    "Tokenizer: unknown argument 'length'; did you mean 'context_length'?": lambda: Tokenizer()(["a"], length=9),
    "decode: unknown argument 'skip_special'; did you mean 'skip_special_tokens'?": lambda: Tokenizer().decode(
        [1], skip_special=True
    ),
    "ParallelCoCa: unknown argument 'depth'; remove it": lambda: ParallelCoCa(32, 90, 1, 1, depth=2),
}


@pytest.mark.parametrize("message", WRONG)
def test_a_wrong_name_is_refused_before_any_work(message):
    for kind in (InputError, TypeError):
        with pytest.raises(kind) as caught:
            WRONG[message]()
        assert str(caught.value) == message


@pytest.fixture(scope="module", params=["coca", "parallel_coca"])
def model(request):
    return create_model(CONFIGS["base"] if request.param == "coca" else SMALL)


def test_methods_name_wrong_arguments(model):
    name = type(model).__name__
    for call, message in (
        (lambda: model.encode_image(image=None), "encode_image: unknown argument 'image'; did you mean 'images'?"),
        (lambda: model.encode_text(None, normalise=True), "encode_text: unknown argument 'normalise'; did you mean "),
        (lambda: model(texts=None), f"{name}: unknown argument 'texts'; did you mean 'text'?"),
    ):
        with pytest.raises(InputError) as caught:
            call()
        assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model, images: model.generate(images, num_beams="4"), "num_beams: must be int, got str '4'"),
        (lambda model, images: model.generate(images, seq_len=9.5), "seq_len: must be int, got float 9.5"),
        (lambda model, images: model.generate(images, None, "9"), "seq_len: must be int, got str '9'"),
        (lambda model, images: model.generate(images, seed="a"), "seed: must be int or None, got str 'a'"),
        (lambda model, images: model.generate(images, temperature=None), "temperature: must be float, got NoneType"),
        (lambda model, images: model.generate(images, generation_type=1), "generation_type: must be str, got int 1"),
        (lambda model, images: model.generate(images[:0]), "images: give at least one"),
        (lambda model, images: model.encode_image(images[:0]), "images: give at least one"),
        (
            lambda model, images: model.encode_text(np.ones((0, 5), int)),
            "text: must be ids of shape (B, T), got (0, 5)",
        ),
        (lambda *_: create_model(5), "config: must be a path, a packaged name, a dict or a built config, got int 5"),
        (lambda *_: VideoCaptioner("coca_tiny", num_frames=2.5), "num_frames: must be int, got float 2.5"),
        (lambda *_: create_transforms("48"), "image_size is '48'; give one positive integer or (height, width)"),
        (lambda *_: create_transforms(48, mean="a"), "mean is 'a'; give one number or three"),
        (lambda *_: Tokenizer()(5), "the tokenizer takes strings, not int: 5"),
    ],
)
def test_values_of_a_wrong_kind_are_named(model, call, message):
    side = model.config.image_hw[0]
    with pytest.raises(InputError) as caught:
        call(model, np.zeros((1, 3, side, side), np.float32))
    assert str(caught.value).startswith(message)


def test_numbers_of_numpy_and_tensors_are_numbers():
    hints = {"count": int, "share": float, "name": str | None}
    check_argument_types({"count": np.int64(3), "share": np.float32(0.5), "name": None}, hints)
    check_argument_types({"count": np.array(3), "share": ms.Tensor(0.5), "name": "a"}, hints)
    check_argument_types({"count": True, "share": 1}, hints)


def test_signatures_stay():
    assert list(inspect.signature(create_model).parameters) == ["config", "checkpoint_path", "dtype"]
    assert next(iter(inspect.signature(create_transforms).parameters)) == "image_size"
    assert list(inspect.signature(VideoCaptioner).parameters)[:3] == ["config", "model_path", "dtype"]
    assert "vision_cfg" in inspect.signature(CoCa).parameters


def not_images(side: int) -> dict:
    """What people take for images (B, 3, side, side), by what is said to be wrong with it."""
    picture = Image.new("RGB", (side, side))
    floats = np.zeros((1, 3, side, side), np.float32)
    return {
        rf"must be floats of shape .*, got uint8 \({side}, {side}, 3\)": picture,
        rf"must be floats of shape .*, got uint8 \(2, {side}, {side}, 3\)": [picture, picture],
        r"must be floats of shape .*, got uint8 \(1, 3, ": floats.astype(np.uint8),
        r"must be floats of shape .*, got int32 \(1, 3, ": ms.Tensor(floats.astype(np.int32)),
        r"must be floats of shape .*, got <u5 \(\)": "a.jpg",
        r"must have shape .*, got rows of unequal shapes": [floats[0], floats[0, :, 1:]],
        rf"must have shape .*, got \(3, {side}, {side}\)": floats[0],
        r"must have shape .*, got \(1, 1, ": floats[:, :1],
        rf"must have shape .*, got \(1, {side}, {side}, 3\)": floats.transpose(0, 2, 3, 1),
        rf"must have shape .*, got \(1, 3, {side + 1}, ": np.zeros((1, 3, side + 1, side), np.float32),
    }


def test_what_is_no_image_is_refused(model):
    side = model.config.image_hw[0]
    ids = np.ones((1, 4), np.int32)
    for message, images in not_images(side).items():
        calls = [
            lambda images=images: model.encode_image(images),
            lambda images=images: model.encode_image_tokens(images),
            lambda images=images: model.generate(images),
            lambda images=images: model.outputs(images, ids),
            lambda images=images: model(ids, images) if isinstance(model, ParallelCoCa) else model(images, ids),
        ]
        for call in calls:
            with pytest.raises(InputError, match=f"^images: {message}") as caught:
                call()
            text = str(caught.value)
            assert f"(B, 3, {side}, {side})" in text and "\n" not in text
            assert text.endswith(f"create_transforms({side})(picture)[None] makes them of a picture")


def test_the_hint_is_right(model):
    side = model.config.image_hw[0]
    images = create_transforms(side)(Image.new("RGB", (70, 50)))[None]
    assert model.check_images(images).shape == (1, 3, side, side)
    for dtype in (np.float16, np.float64):
        assert model.check_images(images.astype(dtype)).shape == (1, 3, side, side)
    assert model.check_images(ms.Tensor(images, ms.bfloat16)).dtype == ms.bfloat16
