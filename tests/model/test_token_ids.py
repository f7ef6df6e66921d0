"""Ids that are none of the vocabulary, and texts that nobody tokenized: one line in every public method."""

from functools import cache

import mindspore as ms
import numpy as np
import pytest

from mindone_coca import ParallelCoCa, create_model
from mindone_coca.errors import InputError
from mindone_coca.model.base import ImageTextModel
from tests.models import CONFIGS
from tests.parallel_models import SMALL, make_inputs

VOCABULARY = {"coca": CONFIGS["base"]["text_cfg"]["vocab_size"], "parallel_coca": SMALL["num_tokens"]}


@cache
def get_model(family: str) -> ImageTextModel:
    return create_model(CONFIGS["base"] if family == "coca" else SMALL)


def run(family: str, method: str, text) -> None:
    """Hand the ids to one of the public methods. None of them may come to run the model."""
    model = get_model(family)
    images = np.zeros((1, 3, *model.config.image_hw), np.float32)
    if method == "encode_text":
        model.encode_text(text)
    elif method == "outputs":
        model.outputs(images, text)
    elif isinstance(model, ParallelCoCa):
        model(text, images)
    else:
        model(images, text)


def given(ids: list) -> dict:
    """The same ids in every form in which people hold them."""
    arrays = {"list": ids, "int64": np.array(ids), "int32": np.array(ids).astype(np.int32)}
    return arrays | {"tensor": ms.Tensor(np.array(ids)), "tensor32": ms.Tensor(np.array(ids), ms.int32)}


@pytest.mark.parametrize("method", ["encode_text", "outputs", "forward"])
@pytest.mark.parametrize("family", VOCABULARY)
def test_ids_beyond_the_vocabulary(family, method):
    size = VOCABULARY[family]
    cases = {
        # the first in reading order is named, with its row
        f"id {size} in row 1 ": [[1, size - 1, 0], [3, size, size + 5]],
        "id -1 in row 0 ": [[5, 6, -1], [size, 2, 3]],
        "id 49407 in row 2 ": [[1, 2], [3, 4], [0, 49407]],  # CLIP's end token for a smaller model
    }
    for named, ids in cases.items():
        for form, text in given(ids).items():
            with pytest.raises(InputError, match=f"^text: {named}") as caught:
                run(family, method, text)
            assert f"[0, {size})" in str(caught.value) and "\n" not in str(caught.value), form


@pytest.mark.parametrize("family", VOCABULARY)
def test_an_id_that_a_cast_would_wrap_into_the_vocabulary(family):
    for wide in (2**32 + 5, -(2**32) + 7, 2**33):
        for text in (np.array([[1, wide]]), ms.Tensor(np.array([[1, wide]]))):
            with pytest.raises(InputError, match=f"^text: id {wide} in row 0 "):
                run(family, "encode_text", text)


@pytest.mark.parametrize("ids", [[[1, 2], [90, 3]], [[1, -100], [2, 3]], [[1, 2], [3, 2**32 + 1]]], ids=str)
def test_labels_beyond_the_vocabulary(ids):
    inputs = make_inputs(SMALL)
    for labels in (ids, np.array(ids), ms.Tensor(np.array(ids))):
        with pytest.raises(InputError, match=r"^labels: id (90|-100|4294967297) in row [01] is not in \[0, 90\)"):
            get_model("parallel_coca")(np.ones((2, 2), int), inputs.images[:2], labels=labels, return_loss=True)


@pytest.mark.parametrize("method", ["encode_text", "forward"])
@pytest.mark.parametrize("family", VOCABULARY)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (["a cat"], r"must be ids, got text; tokenize it first: Tokenizer\(\)\(texts, context_length\)$"),
        ("a cat", "must be ids, got text; tokenize it first"),
        (np.array(["a cat", "a dog"], object), "must be ids, got text; tokenize it first"),
        ([["a", "cat"], ["a", "dog"]], "must be ids, got text; tokenize it first"),
        ([b"a cat"], "must be ids, got text; tokenize it first"),
        ([[1, 2], [3]], r"rows of unequal length; pad them, as Tokenizer\(\)"),
        ([[1.0, 2.5]], r"must be ids as integers, got float64 \(1, 2\)"),
        (ms.Tensor([[1.0, 2.0]], ms.float16), "must be ids as integers, got float16"),
        (np.array([[True, False]]), "must be ids as integers, got bool"),
        ([[2**70]], "must be ids as integers, got object"),
        ([1, 2, 3], r"must be ids of shape \(B, T\), got \(3,\)"),
        (np.ones((1, 0), int), r"must be ids of shape \(B, T\), got \(1, 0\)"),
    ],
    ids=str,
)
def test_what_is_no_id_is_refused(family, method, text, message):
    with pytest.raises(InputError, match="^text: " + message) as caught:
        run(family, method, text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", VOCABULARY)
def test_the_whole_vocabulary_is_taken(family):
    ids = [[0, VOCABULARY[family] - 1, 3]]
    for form, text in given(ids).items():
        checked = get_model(family).check_text(text)
        assert checked.dtype == ms.int32 and checked.asnumpy().tolist() == ids, form
