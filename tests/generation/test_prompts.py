"""Prompts as people have them: tokenizer output, padding, unequal lengths; each row as open_clip gives it alone."""

from collections.abc import Iterator, Sequence

import mindspore as ms
import numpy as np
import pytest

from mindone_coca import Tokenizer
from mindone_coca.errors import InputError
from mindone_coca.generation.prompts import by_length, in_order, read_prompts
from tests.generation.pairs import Pair, mean_log_probs, sampling_by
from tests.generation.reference_search import reference_search

TWO_BEAMS = {"num_beams": 2, "num_beam_groups": 1}
GREEDY = {"generation_type": "top_k"}
TOP_P = {"generation_type": "top_p", "top_p": 0.9}
LENGTHS = (5, 2, 4, 5)


def bare_prompts(pair: Pair, lengths: Sequence[int] = LENGTHS, seed: int = 0) -> list[np.ndarray]:
    """Start token and random ones; the longer prompts have the piece 0 inside."""
    rng = np.random.default_rng(seed)
    prompts = [np.append(pair.start, rng.integers(6, pair.start, length - 1)) for length in lengths]
    for prompt in prompts:
        prompt[2:-1] = 0
    return prompts


def fill(rows: list[np.ndarray], pad: int, width: int | None = None) -> np.ndarray:
    """Rows of unequal length -> (B, width), by default the longest's."""
    width = width or max(map(len, rows))
    return np.stack([np.pad(row, (0, width - len(row)), constant_values=pad) for row in rows])


def forms(pair: Pair, bare: list[np.ndarray]) -> Iterator[tuple[str, object]]:
    """The same prompts in each way of writing them."""
    rng = np.random.default_rng(9)
    ended = [np.append(row, pair.end) for row in bare]
    padded = fill(bare, pair.pad)
    yield "padded to the longest", padded
    yield "padded to the context", fill(bare, pair.pad, 30)
    yield "as the tokenizer gives them", fill(ended, pair.pad, 40)
    yield "as the tokenizer gives them, cut to the longest", fill(ended, pair.pad).tolist()
    yield "with anything behind the end token", [[*row, *rng.integers(0, pair.vocab_size, 3)] for row in ended]
    yield "with end tokens for padding", fill(ended, pair.end)
    yield "lists of unequal length", [row.tolist() for row in bare]
    yield "arrays of unequal length", tuple(bare)
    yield "tensors of unequal length", [ms.Tensor(row) for row in bare]
    yield "a tensor", ms.Tensor(padded, ms.int32)


def joined(rows: list[np.ndarray], pad: int) -> np.ndarray:
    """What each row gave alone, (1, L) or (n, L), padded to a common width."""
    return fill([row for part in rows for row in part], pad)


@pytest.mark.graphs
def test_every_form_of_a_prompt_gives_what_open_clip_gives_its_row(base):
    images, bare = base.images(4, seed=9), bare_prompts(base)
    options = {**GREEDY, "seq_len": 20}
    alone = [base.theirs(image[None], prompt[None], **options) for image, prompt in zip(images, bare)]
    want = joined(alone, base.pad)
    assert len({row.shape[1] for row in alone}) > 1, "choose images whose captions differ in length"
    for form, text in forms(base, bare):
        np.testing.assert_array_equal(base.ours(images, text, **options), want, form)


@pytest.mark.graphs
def test_beam_search_continues_each_row_as_alone(base):
    images, bare = base.images(4, seed=2), bare_prompts(base)
    options = {**TWO_BEAMS, "seq_len": 20}
    alone = [reference_search(base, image[None], prompt[None], **options) for image, prompt in zip(images, bare)]
    for form, text in forms(base, bare):
        np.testing.assert_array_equal(base.ours(images, text, **options), joined(alone, base.pad), form)


@pytest.mark.graphs
def test_several_captions_of_each_row_with_their_scores(base):
    images, bare = base.images(4), bare_prompts(base)
    options = {"num_beams": 4, "num_beam_groups": 2, "num_return_sequences": 2, "return_scores": True, "seq_len": 20}
    ids, scores = base.ours(images, fill(bare, base.pad), **options)
    alone = [base.ours(image[None], prompt[None], **options) for image, prompt in zip(images, bare)]
    np.testing.assert_array_equal(ids, joined([part for part, _ in alone], base.pad))
    np.testing.assert_allclose(scores, np.concatenate([part for _, part in alone]), rtol=1e-5)
    for row, (image, prompt) in enumerate(zip(images, bare)):
        pair = ids[2 * row : 2 * row + 2]
        want = mean_log_probs(base, np.stack([image] * 2), pair, len(prompt), lambda token: token == base.end)
        np.testing.assert_allclose(scores[2 * row : 2 * row + 2], want, rtol=1e-5)


@pytest.mark.graphs
def test_sampling_draws_the_shortest_prompts_first(base):
    """One row of each length, so that open_clip, run row by row in that order, draws the same numbers."""
    images, bare = base.images(3), bare_prompts(base, (5, 2, 4))
    uniforms = np.random.default_rng(3).random(200, np.float32).astype(np.float64)
    for fixed in (False, True):
        options = {**TOP_P, "seq_len": 16, "fixed_output_length": fixed}
        want = {}
        with sampling_by(uniforms):
            for row in (1, 2, 0):
                want[row] = base.theirs(images[row : row + 1], bare[row][None], **options)
        ours, scores = base.ours(images, [*map(list, bare)], uniforms=uniforms, return_scores=True, **options)
        np.testing.assert_array_equal(ours, joined([want[row] for row in range(3)], base.pad))
        assert scores.shape == (3,) and (ours.shape[1] == 16 or not fixed)
    seeded = [base.ours(images, fill(bare, base.pad), seed=7, seq_len=16, **TOP_P) for _ in range(2)]
    np.testing.assert_array_equal(*seeded)


@pytest.mark.graphs
def test_rows_of_one_length_draw_as_ever(base):
    """The tokenizer's output changes nothing for prompts of one length: a number for each row, step by step."""
    images, bare = base.images(2), bare_prompts(base, (4, 4))
    uniforms = np.random.default_rng(4).random(200, np.float32).astype(np.float64)
    with sampling_by(uniforms):
        want = base.theirs(images, np.stack(bare), **TOP_P)
    text = fill([np.append(row, base.end) for row in bare], base.pad, 30)
    np.testing.assert_array_equal(base.ours(images, text, uniforms=uniforms, **TOP_P), want)


@pytest.mark.graphs
@pytest.mark.parametrize("options", [GREEDY, TWO_BEAMS], ids=["greedy", "beam_search"])
def test_a_flat_prompt_with_an_end_token_or_padding(base, options):
    images, bare = base.images(2), bare_prompts(base, (4,))[0]
    want, alone = (base.ours(images[:count], bare, seq_len=16, **options) for count in (2, 1))
    assert alone.ndim == 1
    for rest in ([base.end], [base.end, 0, 0, 0], [0, 0, 0], [base.end, 7, base.end]):
        text = np.append(bare, rest)
        np.testing.assert_array_equal(base.ours(images, text, seq_len=16, **options), want)
        np.testing.assert_array_equal(base.ours(images[:1], text.tolist(), seq_len=16, **options), alone)


@pytest.mark.graphs
def test_prompts_around_the_length_of_the_caption(base):
    """Those of seq_len tokens or more get one token, beside others that get more."""
    images, bare = base.images(4), bare_prompts(base, (3, 7, 8, 9))
    for options in (GREEDY, TWO_BEAMS):
        alone = [base.ours(image[None], row[None], seq_len=8, **options) for image, row in zip(images, bare)]
        assert alone[0].shape[1] <= 8 < alone[3].shape[1]
        for text in (fill(bare, base.pad), fill([np.append(row, base.end) for row in bare], base.pad, 40)):
            np.testing.assert_array_equal(base.ours(images, text, seq_len=8, **options), joined(alone, base.pad))


@pytest.mark.graphs
def test_other_end_and_padding_ids_cut_too(base):
    images, bare = base.images(2), bare_prompts(base, (4, 2))
    options = {**TWO_BEAMS, "eos_token_id": [35, base.end], "pad_token_id": 3, "seq_len": 16}
    want = joined([base.ours(image[None], row[None], **options) for image, row in zip(images, bare)], 3)
    for text in (fill(bare, 3), [[*bare[0], 35, 9], [*bare[1], base.end, 3]]):
        np.testing.assert_array_equal(base.ours(images, text, **options), want)


@pytest.mark.graphs
def test_no_more_is_encoded_or_compiled_for_unequal_prompts(base, monkeypatch):
    images, bare = base.images(4), bare_prompts(base)
    encoded = []
    encode = type(base.model.visual).__call__

    def counting(self, pixels):
        encoded.append(len(pixels))
        return encode(self, pixels)

    monkeypatch.setattr(type(base.model.visual), "__call__", counting)
    ours = base.ours(images, fill(bare, base.pad), seq_len=12, **GREEDY)
    assert sum(encoded) == 4
    embs = base.model(images)["image_embs"]
    np.testing.assert_array_equal(base.ours(None, bare, image_embs=embs, seq_len=12, **GREEDY), ours)


def read(text, batch: int = 1, start: int = 49406, ends: tuple[int, ...] = (49407,), pad: int = 0) -> list[list[int]]:
    return [row.tolist() for row in read_prompts(text, batch, start, ends, pad)[0]]


@pytest.mark.graphs
def test_the_tokenizers_own_output():
    tokenizer = Tokenizer()
    texts = ["a photo of", "(!(", "two dogs!", ""]
    want = [[49406, *tokenizer.encode(text)] for text in texts]
    assert any(0 in row for row in want), "one word shall have the piece 0"
    for context in (77, 76, max(map(len, want)) + 1):
        assert read(tokenizer(texts, context), 4) == want
    assert read(tokenizer(texts[:1])[0]) == want[:1]


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ([49406, 320, 0, 263, 0, 0], [49406, 320, 0, 263]),  # "!" within a word stays
        ([49406, 320, 0, 49407, 0], [49406, 320, 0]),  # before an end token even the last 0
        ([49406, 0, 0], [49406]),
        ([49406], [49406]),
        ([320, 263], [320, 263]),  # no start token: as it is
        ([49407, 320, 49407], [49407, 320]),  # the first token never ends a prompt
    ],
)
def test_what_counts_as_padding(text, want):
    assert read(text) == [want]
    assert read([text, [49406, 5]], 2) == [want, [49406, 5]]  # whatever stands beside it


def test_vocabularies_where_one_token_has_two_meanings():
    assert read([[7, 3, 7, 0]], start=7, ends=(7,)) == [[7, 3]]  # start is end
    assert read([[0, 3, 0, 0], [0, 0, 0, 0]], 2, start=0, ends=(9,)) == [[0, 3], [0]]  # start is padding
    assert read([[1, 3, 9, 9]], start=1, ends=(9,), pad=9) == [[1, 3]]  # end is padding


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ([], "the prompt in row 0 is empty; give at least the start token"),
        ([[49406], []], "the prompt in row 1 is empty"),
        (np.ones((2, 0), int), "the prompt in row 0 is empty"),
        ([[49406, 5], [0, 0]], r"row 1 is padding alone \(id 0\); give at least the start token"),
        (["a photo of", "a"], r"must be ids, got text; tokenize it first: Tokenizer\(\)"),
        ("a photo of", "must be ids, got text; tokenize it first"),
        ([[1, 2], [3, 4.5]], "must be ids as integers, got float64"),
        ([[1, 2], 3], r"must be ids \(P,\) or \(2, P\), got rows of shapes \(2,\), \(\)"),
        ([[1, 2], [1], [3]], r"must be ids \(P,\) or \(2, P\), got rows of shapes \(2,\), \(1,\), \(1,\)"),
        ([[[1, 2], [1]], [3]], "rows of unequal length"),
        (5, r"must be ids \(P,\) or \(2, P\), got int64 \(\)"),
    ],
    ids=str,
)
def test_what_is_no_prompt_is_refused(text, message):
    with pytest.raises(InputError, match="^text: " + message) as caught:
        read_prompts(text, 2, 49406, (49407,), 0)
    assert "\n" not in str(caught.value)


def test_an_id_beyond_the_vocabulary_is_named_with_its_row(base):
    with pytest.raises(InputError, match=r"\[0, 120\).*got \[120\] in row 1$"):
        base.ours(base.images(2), [[118, 5], [118, 120, 4]])


@pytest.mark.parametrize("seed", range(3))
def test_rows_come_back_in_order(seed):
    rng = np.random.default_rng(seed)
    prompts = [rng.integers(1, 9, rng.integers(1, 6)) for _ in range(9)]
    parts = []
    for rows, ids in by_length(prompts, most=2):
        assert ids.shape == (len(rows), len(prompts[rows[0]])) and len(rows) <= 2
        parts.append((rows, (np.repeat(ids, 2, 0), np.repeat(rows, 2))))
    ids, numbers = in_order(parts, 2, 0)
    np.testing.assert_array_equal(ids, fill([row for row in prompts for _ in range(2)], 0))
    np.testing.assert_array_equal(numbers, np.repeat(np.arange(9), 2))
