"""`generate`'s arguments: token ids, stopping criteria, lengths up to the limit, and every refusal, by name."""

import inspect
import re

import mindspore as ms
import numpy as np
import pytest
from transformers import MaxLengthCriteria

from mindone_coca.errors import InputError
from mindone_coca.model.open_clip.model import CoCa
from tests.generation.pairs import CONTEXT, sample_both
from tests.generation.reference_search import reference_search
from tests.reference import torch

pytestmark = pytest.mark.graphs

TWO_BEAMS = {"num_beams": 2, "num_beam_groups": 1}
TOP_P = {"generation_type": "top_p", "top_p": 0.9}


class Contains:
    """A criterion of the caller's: a row has met it once it contains the token. For tensors and for arrays."""

    def __init__(self, token: int) -> None:
        self.token = token

    def __call__(self, ids, scores):
        assert scores is None
        return (ids == self.token).any(1)


class LongEnough:
    """One flag for all rows, and no length limit for the result."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __call__(self, ids, scores):
        return ids.shape[1] >= self.length


class Limit(LongEnough):
    """As transformers' MaxLengthCriteria, which takes no arrays."""

    @property
    def max_length(self) -> int:
        return self.length


def test_arguments_by_position(base):
    images = base.images(2)
    # text, seq_len, max_seq_len, temperature, generation_type, top_p, top_k, pad, end and start ids, beams, groups, ...
    arguments = (None, 14, CONTEXT, 1.0, "beam_search", 0.1, 1, 0, 24, 17, 4, 2, 3)
    want = base.reference.generate(torch.from_numpy(images), *arguments).numpy()
    np.testing.assert_array_equal(base.model.generate(images, *arguments).asnumpy(), want)


@pytest.mark.parametrize("options", [TOP_P, TWO_BEAMS], ids=["top_p", "beam_search"])
@pytest.mark.parametrize(
    "ids",
    [
        {"sot_token_id": 5},
        {"eos_token_id": 3},
        {"pad_token_id": 119},
        {"sot_token_id": [17], "eos_token_id": [24], "pad_token_id": 25},
    ],
    ids=str,
)
def test_other_token_ids(base, options, ids):
    theirs, ours = sample_both(base, base.images(2), **options, **ids)
    np.testing.assert_array_equal(ours, theirs)


def test_several_end_tokens_in_beam_search(base):
    ends = [3, base.end]
    images = base.images(2)
    ours = base.ours(images, **TWO_BEAMS, eos_token_id=ends)
    np.testing.assert_array_equal(ours, base.theirs(images, **TWO_BEAMS, eos_token_id=ends))
    prompt = base.prompt(2, 4)
    want = reference_search(base, images, prompt, eos_token_id=tuple(ends), **TWO_BEAMS)
    np.testing.assert_array_equal(base.ours(images, prompt, **TWO_BEAMS, eos_token_id=ms.Tensor(ends)), want)
    assert (ours != base.ours(images, **TWO_BEAMS)[:, : ours.shape[1]]).any()


def test_several_end_tokens_in_sampling(base):
    """open_clip compares rows with end tokens one by one and fails, so: greedy by hand, from its logits."""
    ends, images = (25, base.end), base.images(2)
    want = np.full((2, 12), base.pad)
    for image, row in zip(images, want):
        ids = [base.start]
        while ids[-1] not in (*ends, base.pad) and len(ids) < 12:
            logits = base.reference_logits(image[None], np.array([ids]))[0, -1].numpy()
            if len(ids) < 5:
                logits[list(ends)] = -np.inf
            ids.append(ends[0] if len(ids) == 11 else int(logits.argmax()))
        row[: len(ids)] = ids
    ours = base.ours(images, generation_type="top_k", seq_len=12, eos_token_id=ends, fixed_output_length=True)
    np.testing.assert_array_equal(ours, want)


@pytest.mark.parametrize("seq_len", [CONTEXT, CONTEXT + 1])
def test_captions_as_long_as_the_model_goes(base, seq_len):
    options = {"seq_len": seq_len, "min_seq_len": seq_len - 1, "pad_token_id": 1}
    for kind in ({"generation_type": "top_k"}, TWO_BEAMS):
        ours = base.ours(base.images(1), **kind, **options)
        np.testing.assert_array_equal(ours, base.theirs(base.images(1), **kind, **options))
        assert ours.shape == (1, seq_len)


def test_open_clip_ends_where_ours_says_so(base):
    with pytest.raises(RuntimeError):
        base.theirs(base.images(1), seq_len=CONTEXT + 2, min_seq_len=CONTEXT + 1, **TWO_BEAMS)


def test_stopping_criteria_in_sampling(base):
    images = base.images(2)
    for criteria in ([Contains(25), LongEnough(11)], [LongEnough(35)], [Contains(3), Contains(25), LongEnough(20)]):
        theirs, ours = sample_both(base, images, stopping_criteria=criteria, **TOP_P)
        np.testing.assert_array_equal(ours, theirs)


def test_stopping_criteria_in_beam_search(base):
    images = base.images(2)
    for criteria in ([LongEnough(9)], [LongEnough(34)]):
        ours = base.ours(images, stopping_criteria=criteria, **TWO_BEAMS)
        np.testing.assert_array_equal(ours, base.theirs(images, stopping_criteria=criteria, **TWO_BEAMS))
    for image in images:
        criteria = [Contains(25), LongEnough(20)]
        ours = base.ours(image[None], stopping_criteria=iter(criteria), **TWO_BEAMS)
        np.testing.assert_array_equal(ours, base.theirs(image[None], stopping_criteria=criteria, **TWO_BEAMS))


def test_a_stopping_criterion_with_a_length(base):
    """It bounds beam search's result, which else has room for an end token."""
    images = base.images(2)
    ours = base.ours(images, stopping_criteria=[Limit(9)], **TWO_BEAMS)
    np.testing.assert_array_equal(ours, base.theirs(images, stopping_criteria=[MaxLengthCriteria(9)], **TWO_BEAMS))
    assert ours.shape == (2, 9)
    assert base.ours(images, stopping_criteria=[LongEnough(9)], **TWO_BEAMS).shape == (2, 10)


def test_stopping_criteria_that_never_hold_are_named(base):
    for options in (TOP_P, TWO_BEAMS):
        with pytest.raises(InputError, match=f"stopping_criteria.*{CONTEXT} positions"):
            # nothing ends before: the end token is not allowed, and padding is a token that does not come
            base.ours(base.images(1), stopping_criteria=[], min_seq_len=99, seq_len=100, pad_token_id=1, **options)


def test_prompts_as_tensors_arrays_and_lists(base):
    prompt = base.prompt(1, 4)
    want = base.ours(base.images(1), prompt, **TWO_BEAMS)
    for text in (ms.Tensor(prompt.astype(np.int32)), prompt.astype(np.int32), prompt.tolist()):
        np.testing.assert_array_equal(base.ours(ms.Tensor(base.images(1)), text, **TWO_BEAMS), want)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("num_beam", "; did you mean 'num_beams'?"),
        ("max_len", "; did you mean 'max_seq_len'?"),
        ("topk", "; did you mean 'top_k'?"),
        ("do_sample", "; remove it"),
    ],
)
def test_an_argument_by_a_wrong_name(base, wrong, message):
    """One line that a program prints, and still what Python raises."""
    for error in (InputError, TypeError):
        with pytest.raises(error, match=f"^generate: unknown argument '{wrong}'{re.escape(message)}$"):
            base.model.generate(base.images(1), **{wrong: 4})


def test_arguments_keep_their_names_for_python():
    names = list(inspect.signature(CoCa.generate).parameters)
    assert names[:4] == ["model", "image", "text", "seq_len"] and names[-1] == "uniforms"


SAMPLE = {"generation_type": "top_k"}
REFUSED = {
    "image: give": {"image": None},
    "images: must have shape": {"image": np.zeros((1, 3, 16, 16), np.float32)},
    "images: give at least one": {"image": np.zeros((0, 3, 32, 32), np.float32)},
    "image_embs: must have shape": {"image": None, "image_embs": np.zeros((1, 32), np.float32)},
    "image_embs: must have shape .*32": {"image": None, "image_embs": np.zeros((1, 8, 24), np.float32)},
    "generation_type: must be one of beam_search, top_k, top_p, got 'greedy'": {"generation_type": "greedy"},
    "seq_len: 5 must be larger than min_seq_len 5": {"seq_len": 5},
    "max_seq_len: must be positive": {"max_seq_len": 0, **SAMPLE},
    "repetition_penalty: must be positive": {"repetition_penalty": 0.0},
    r"text or sot_token_id: must lie in \[0, 120\).*got .*120": {"sot_token_id": 120},
    r"text or sot_token_id: must lie in \[0, 120\).*got .*-1": {"text": np.array([[118, -1]])},
    r"text or sot_token_id: must lie in \[0, 120\).*got .*49406": {"text": np.array([[49406, 3]])},
    r"eos_token_id: must lie in \[0, 120\)": {"eos_token_id": 49407},
    r"pad_token_id: must lie in \[0, 120\)": {"pad_token_id": 120},
    r"text: must be ids \(P,\) or \(1, P\), got int64 \(2, 3\)": {"text": np.ones((2, 3), np.int64)},
    r"text: must be ids .*\(1, 2, 3\)": {"text": np.ones((1, 2, 3), np.int64)},
    "text: the prompt in row 0 is empty; give at least the start token": {"text": np.ones((1, 0), np.int64)},
    "text: must be ids .*float64": {"text": np.ones((1, 3))},
    f"text: 41 tokens need 41 positions, but this model has {CONTEXT}; shorten text": {"text": np.ones(41, np.int64)},
    f"text: 41 tokens .*{CONTEXT}; shorten text": {"text": np.ones(41, np.int64), **SAMPLE},
    f"seq_len: 42 tokens need 41 positions, but this model has {CONTEXT}; shorten seq_len$": {"seq_len": 42},
    "seq_len: 42 tokens need 41 positions.*lower max_seq_len": {"seq_len": 42, **SAMPLE},
    "num_beams: must be at least 1": {"num_beams": 0},
    "num_beam_groups: 4 must divide num_beams 6": {"num_beam_groups": 4},
    "num_beam_groups: 0 must divide": {"num_beam_groups": 0},
    "num_beam_groups: 12 must divide": {"num_beam_groups": 12},
    "num_beams: 60 is too many for a vocabulary of 120": {"num_beams": 60},
    "diversity_penalty: must not be negative": {"diversity_penalty": -1.0},
    "diversity_penalty: needs num_beam_groups above 1": {"diversity_penalty": 1.0, "num_beam_groups": 1},
    "num_return_sequences: must be 1 to 2": {"num_return_sequences": 3},
    "num_return_sequences: must be 1 to 6": {"num_return_sequences": 7, "diversity_penalty": 1.0},
    "num_return_sequences: must be 1": {"num_return_sequences": 0},
    "num_return_sequences: only beam_search": {"num_return_sequences": 2, **SAMPLE},
    "temperature: must be positive": {"temperature": 0.0, **SAMPLE},
    "top_k: must be at least 1": {"top_k": 0, **SAMPLE},
    r"top_p: must lie in \[0, 1\]": {"generation_type": "top_p", "top_p": 1.1},
    "seed and uniforms": {"seed": 1, "uniforms": [0.5], **SAMPLE},
    "uniforms: .*ran out": {"uniforms": [0.5] * 3, "seq_len": 12, **SAMPLE},
    r"uniforms: needs numbers in \[0, 1\)": {"uniforms": [1.0] * 30, **SAMPLE},
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_run_is_refused_by_name(base, message):
    options = {"image": base.images(1), **base.ids, **REFUSED[message]}
    with pytest.raises(InputError, match="^" + message) as caught:
        base.model.generate(**options)
    assert "\n" not in str(caught.value)
