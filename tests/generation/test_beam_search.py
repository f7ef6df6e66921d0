"""Beam search beyond open_clip's: prompts, one beam, diversity, the textbook scores, several results, their scores."""

import numpy as np
import pytest

from tests.generation.pairs import mean_log_probs
from tests.generation.reference_search import reference_search

pytestmark = pytest.mark.graphs

TWO_BEAMS = {"num_beams": 2, "num_beam_groups": 1}


@pytest.mark.parametrize("length", [2, 5])
def test_a_prompt_is_continued(base, length):
    images, prompt = base.images(2), base.prompt(2, length)
    ours = base.ours(images, prompt, seq_len=20, **TWO_BEAMS)
    np.testing.assert_array_equal(ours, reference_search(base, images, prompt, seq_len=20, **TWO_BEAMS))
    np.testing.assert_array_equal(ours[:, :length], prompt)


def test_a_prompt_as_long_as_the_caption_gets_one_token(base):
    images, prompt = base.images(2), base.prompt(2, 8)
    for seq_len in (9, 8, 6):
        # transformers cannot lay out a caption longer than its limit; without the last token it is the limit of 9
        want = reference_search(base, images, prompt, seq_len=9, **TWO_BEAMS)
        ours = base.ours(images, prompt, seq_len=seq_len, **TWO_BEAMS)
        np.testing.assert_array_equal(ours, want[:, : ours.shape[1]])
        assert ours.shape[1] == 9


def test_a_flat_prompt_counts_for_every_image(base):
    images, prompt = base.images(2), base.prompt(1, 5)
    want = base.ours(images, np.repeat(prompt, 2, 0), **TWO_BEAMS)
    np.testing.assert_array_equal(base.ours(images, prompt[0], **TWO_BEAMS), want)
    flat = base.ours(images[:1], prompt[0], **TWO_BEAMS)
    np.testing.assert_array_equal(flat, base.ours(images[:1], prompt, **TWO_BEAMS)[0])


def test_one_beam(base):
    # open_clip needs two; two groups of one beam find the same caption twice
    want = base.theirs(base.images(2), num_beams=2, num_beam_groups=2)
    np.testing.assert_array_equal(base.ours(base.images(2), num_beams=1, num_beam_groups=1), want)
    np.testing.assert_array_equal(base.ours(base.images(2), num_beams=2, num_beam_groups=2), want)


@pytest.mark.parametrize("penalty", [0.7, 4.0])
def test_diversity_between_groups(base, penalty):
    options = {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": penalty, "seq_len": 20}
    images = base.images(2)
    want = reference_search(base, images, num_return_sequences=4, **options)
    np.testing.assert_array_equal(base.ours(images, num_return_sequences=4, **options), want)
    without = reference_search(base, images, num_return_sequences=4, **{**options, "diversity_penalty": 0.0})
    assert not np.array_equal(want, without)  # the penalty matters to these images


def test_diversity_with_other_penalties_and_a_prompt(base):
    images, prompt = base.images(2), base.prompt(2, 5)
    options = {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 2.0, "repetition_penalty": 1.2, "seq_len": 20}
    want = reference_search(base, images, prompt, min_seq_len=12, **options)
    np.testing.assert_array_equal(base.ours(images, prompt, min_seq_len=12, **options), want)


@pytest.mark.parametrize(
    "options", [{"normalize_scores": True}, {"length_penalty": 0.0}, {"normalize_scores": True, "length_penalty": 2.0}]
)
def test_scores_of_the_textbook(base, options):
    images = base.images(2, seed=2)
    want = reference_search(base, images, **options, **TWO_BEAMS)
    np.testing.assert_array_equal(base.ours(images, **options, **TWO_BEAMS), want)
    assert not np.array_equal(want, reference_search(base, images, **TWO_BEAMS))


def test_several_captions_of_an_image(base):
    images = base.images(2)
    options = {"num_beams": 4, "num_beam_groups": 2, "num_return_sequences": 2, "normalize_scores": True}
    ours = base.ours(images, **options)
    # transformers finds the same in both groups and returns each caption twice; ours returns captions that differ
    twice = reference_search(base, images, **{**options, "num_return_sequences": 4})
    want = twice[::2]
    np.testing.assert_array_equal(ours, want[:, : ours.shape[1]])
    assert (want[:, ours.shape[1] :] == base.pad).all()
    assert (ours[::2] != ours[1::2]).any(1).all()
    np.testing.assert_array_equal(
        ours[::2], base.ours(images, **{**options, "num_return_sequences": 1})[:, : ours.shape[1]]
    )


def test_scores_are_mean_log_probabilities(base):
    images, prompt = base.images(2), base.prompt(2, 4)
    options = {"num_beams": 4, "num_beam_groups": 2, "num_return_sequences": 2, "return_scores": True, "seq_len": 20}
    repeated = np.repeat(images, 2, 0)
    for text, length in ((None, 1), (prompt, 4)):
        ids, scores = base.ours(images, text, repetition_penalty=1.2, **options)
        want = mean_log_probs(base, repeated, ids, length, lambda token: token == base.end)
        assert scores.dtype == np.float32 and scores.shape == (4,)
        np.testing.assert_allclose(scores, want, rtol=1e-5)
        np.testing.assert_array_equal(
            ids, base.ours(images, text, repetition_penalty=1.2, **{**options, "return_scores": False})
        )


def test_rank_scores_are_what_orders_captions(base):
    options = {"num_beams": 4, "num_beam_groups": 1, "num_return_sequences": 4, "return_rank_scores": True}
    images = base.images(2)
    ids, scores, ranks = base.ours(images, normalize_scores=True, return_scores=True, **options)
    assert ranks.dtype == np.float32 and (np.diff(ranks.reshape(2, 4)) <= 0).all()
    # the sum of log-probabilities over the length that counts the start token, too
    lengths = np.array([[*row, base.end].index(base.end) + 1 for row in ids])
    lengths = np.minimum(lengths, ids.shape[1])
    np.testing.assert_allclose(ranks * lengths, scores * (lengths - 1), rtol=1e-4)
    logits_ids, ranks = base.ours(images, **options)
    assert (np.diff(ranks.reshape(2, 4)) <= 0).all()
    np.testing.assert_array_equal(logits_ids, base.ours(images, **{**options, "return_rank_scores": False}))


def test_image_tokens_instead_of_images(base):
    images = base.images(2)
    embs = base.model(images)["image_embs"]
    want = base.ours(images, **TWO_BEAMS)
    np.testing.assert_array_equal(base.ours(None, image_embs=embs, **TWO_BEAMS), want)
    np.testing.assert_array_equal(base.ours(None, image_embs=embs.asnumpy(), **TWO_BEAMS), want)


def test_captions_do_not_depend_on_their_company(base):
    images = base.images(2)
    together = base.ours(images, **TWO_BEAMS)
    for image, caption in zip(images, together):
        alone = base.ours(image[None], **TWO_BEAMS)[0]
        np.testing.assert_array_equal(caption[: len(alone)], alone)
        assert (caption[len(alone) :] == base.pad).all()


def test_no_search_ends_before_min_seq_len(base):
    images, at_least = base.images(4, seed=2), 24
    freely = [list(row).index(base.end) for row in base.ours(images, **TWO_BEAMS) if base.end in row]
    assert min(freely) < at_least, "choose images one of which has a short caption"
    ours = base.ours(images, min_seq_len=at_least, **TWO_BEAMS)
    np.testing.assert_array_equal(ours, base.theirs(images, min_seq_len=at_least, **TWO_BEAMS))
    assert not (ours[:, :at_least] == base.end).any()
