"""Captions of models with contexts of 128 and 256 tokens, as long as these go, against open_clip's own."""

import numpy as np
import pytest

from tests.generation.pairs import Pair, sample_both
from tests.models import from_reference, make_config
from tests.reference import random_reference

pytestmark = pytest.mark.graphs


def pair(context: int) -> Pair:
    tower = {"context_length": context, "layers": 1}
    config = make_config(vision={"layers": 1}, text=tower, multimodal=tower)
    reference = random_reference(config, seed=3, logit_std=3)
    return Pair(config, reference, from_reference(reference, config))


@pytest.mark.parametrize("context", [128, 256])
def test_a_caption_to_the_end_of_the_context(context):
    both, length = pair(context), context - 6
    options = {"generation_type": "top_p", "top_p": 0.9, "seq_len": length, "min_seq_len": length - 1}
    theirs, ours = sample_both(both, both.images(1), pad_token_id=1, **options)
    np.testing.assert_array_equal(ours, theirs)
    assert ours.shape == (1, length) and len(set(ours[0])) > 20


def test_beams_past_the_usual_length():
    both = pair(128)
    options = {"num_beams": 2, "num_beam_groups": 1, "seq_len": 100, "min_seq_len": 90, "pad_token_id": 1}
    ours = both.ours(both.images(2), **options)
    np.testing.assert_array_equal(ours, both.theirs(both.images(2), **options))
    assert ours.shape[1] >= 90
