"""Decoding in float16: captions are valid, and the numbers near float32's; on the CPU it is computed in float32."""

import mindspore as ms
import numpy as np
import pytest

from mindone_coca import device
from mindone_coca.model.open_clip.model import CoCa
from tests.generation.pairs import Pair, mean_log_probs
from tests.models import from_reference, relative_difference

pytestmark = pytest.mark.graphs


@pytest.fixture(scope="module")
def half(base) -> CoCa:
    with device.half_on_cpu():
        return from_reference(base.reference, base.config, cast_dtype="float16")


def test_weights_are_float16(half):
    assert half.text.token_embedding.embedding_table.dtype == ms.float16


def test_on_the_cpu_it_is_float32_with_a_warning(base, recwarn):
    model = from_reference(base.reference, base.config, cast_dtype="float16")
    assert model.text.token_embedding.embedding_table.dtype == ms.float32
    [warning] = [str(one.message) for one in recwarn if "float16" in str(one.message)]
    assert warning.endswith("so float16 is computed in float32 here")
    images = base.images(2)
    ours = model.generate(images, **base.ids, num_beams=2, num_beam_groups=1).asnumpy()
    np.testing.assert_array_equal(ours, base.theirs(images, num_beams=2, num_beam_groups=1))


def test_logits(base, half):
    ids = base.prompt(2, 12)
    ours = half(base.images(2), ids, output_labels=False)["logits"]
    assert ours.dtype == ms.float32
    assert relative_difference(ours, base.reference_logits(base.images(2), ids)) < 5e-3


def test_captions(base, half):
    pair, images = Pair(base.config, base.reference, half), base.images(1)
    ids, scores = pair.ours(images, return_scores=True, num_beams=2, num_beam_groups=1)
    assert ids.dtype == np.int32 and ids.shape[0] == 1 and ids.shape[1] <= 30
    assert (ids[:, 0] == base.start).all() and ((ids >= 0) & (ids < base.vocab_size)).all()
    # float32 finds the same scores for these very captions
    np.testing.assert_allclose(scores, mean_log_probs(base, images, ids, 1, lambda token: token == base.end), atol=0.02)
