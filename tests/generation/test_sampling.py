"""Sampling where it is more than one token after another: windows, limits, prompts, seeds, scores."""

import numpy as np
import pytest

from tests.generation.pairs import CONTEXT, get_pair, mean_log_probs, sample_both, sampling_by

pytestmark = pytest.mark.graphs

TOP_P = {"generation_type": "top_p", "top_p": 0.9}


def compare(pair, images, text=None, seed=0, **options) -> np.ndarray:
    theirs, ours = sample_both(pair, images, text, seed, **{**TOP_P, **options})
    np.testing.assert_array_equal(ours, theirs)
    return ours


@pytest.mark.parametrize("max_seq_len", [1, 6])
def test_the_window_slides(base, max_seq_len):
    ours = compare(base, base.images(2), max_seq_len=max_seq_len, seq_len=24, min_seq_len=15)
    assert ours.shape[1] > max_seq_len + 4


def test_the_window_slides_over_a_prompt_at_once(base):
    compare(base, base.images(2), base.prompt(2, 9), max_seq_len=6, seq_len=20)
    compare(base, base.images(2), base.prompt(2, 7), max_seq_len=6, seq_len=7)  # the window alone is seq_len - 1


def test_captions_longer_than_the_context_in_a_window(base):
    seq_len = CONTEXT + 8
    options = {"max_seq_len": 6, "seq_len": seq_len, "min_seq_len": seq_len - 1, "pad_token_id": 1}
    assert compare(base, base.images(1), **options).shape == (1, seq_len)


def test_no_causal_mask_in_a_window():
    pair = get_pair("bidirectional")
    compare(pair, pair.images(1), pair.prompt(1, 5), seq_len=14, max_seq_len=8)


def test_prompts_that_have_ended(base):
    """A last token that is padding ends a row at once; behind it the end token says that it is one."""
    images, prompt = base.images(2), base.prompt(2, 4)
    prompt[0, -1] = base.pad
    uniforms = np.random.default_rng(1).random(100)
    marked = np.append(prompt, [[base.end]] * 2, 1)
    for fixed in (False, True):
        options = {**TOP_P, "fixed_output_length": fixed, "seq_len": 12}
        with sampling_by(uniforms):
            want = base.theirs(images, prompt, **options)
        ours = base.ours(images, marked, uniforms=uniforms, **options)
        np.testing.assert_array_equal(ours, want)
        assert (ours[0, 4:] == base.pad).all()
        assert (ours[1, 4:] != base.pad).any()
    marked[1, 3] = base.pad
    np.testing.assert_array_equal(base.ours(images, marked, seq_len=12, **TOP_P), marked[:, :4])
    assert base.ours(images, marked, seq_len=12, fixed_output_length=True, **TOP_P).shape == (2, 12)


def test_prompts_as_long_as_the_caption(base):
    for length in (7, 8, 9):
        ours = compare(base, base.images(2), base.prompt(2, length), seq_len=8)
        assert ours.shape == (2, max(8, length + 1))
        assert (length == 7) == bool((ours[:, -1] == base.end).all())


def test_a_flat_prompt(base):
    prompt = base.prompt(1, 4)[0]
    flat = compare(base, base.images(1), prompt)
    assert flat.ndim == 1
    uniforms = np.random.default_rng(0).random(100)
    # for several images open_clip fails; ours takes the prompt for each
    want = base.ours(base.images(2), np.repeat(prompt[None], 2, 0), uniforms=uniforms, **TOP_P)
    np.testing.assert_array_equal(base.ours(base.images(2), prompt, uniforms=uniforms, **TOP_P), want)


def test_a_finished_row_draws_no_numbers(base):
    """Else the rows that go on would see other numbers than open_clip's."""
    images = base.images(2, seed=2)
    ours = compare(base, images, seed=4)
    lengths = [[*row, base.end].index(base.end) for row in ours]
    assert len(set(lengths)) > 1  # rows end at different times


def test_scores_are_mean_log_probabilities(base):
    images, prompt = base.images(2), base.prompt(2, 4)
    stops = (base.end, base.pad)
    for text, length in ((None, 1), (prompt, 4)):
        for seq_len in (7, 24):  # at 7 the end token is forced
            uniforms = np.random.default_rng(seq_len).random(100)
            options = {**TOP_P, "seq_len": seq_len, "temperature": 1.3, "repetition_penalty": 1.2, "uniforms": uniforms}
            ids, scores = base.ours(images, text, return_scores=True, **options)
            np.testing.assert_array_equal(ids, base.ours(images, text, **options))
            np.testing.assert_allclose(scores, mean_log_probs(base, images, ids, length, stops.__contains__), rtol=1e-5)


def test_a_seed_reproduces(base):
    images = base.images(2)
    first, again, other = (base.ours(images, seed=seed, **TOP_P) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or (first != other).any()
    unseeded = {base.ours(images, **TOP_P).tobytes() for _ in range(4)}
    assert len(unseeded) > 1


def test_seeds_draw_from_the_distribution(base):
    """The first token's frequencies over many seeds against open_clip's probabilities."""
    images = np.repeat(base.images(1), 2, 0)
    logits = base.reference_logits(images[:1], np.full((1, 1), base.start))[0, -1].double()
    logits[base.end] = -np.inf  # min_seq_len
    probabilities = (logits / 1.5).softmax(0).numpy()
    options = {"generation_type": "top_p", "top_p": 1.0, "temperature": 1.5, "seq_len": 3, "min_seq_len": 2}
    drawn = np.concatenate([base.ours(images, seed=seed, **options)[:, 1] for seed in range(120)])
    found = np.bincount(drawn, minlength=base.vocab_size) / len(drawn)
    deviation = np.sqrt(probabilities * (1 - probabilities) / len(drawn))
    assert (np.abs(found - probabilities) < 4.5 * deviation + 2 / len(drawn)).all()
