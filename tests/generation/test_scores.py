"""Penalties, filters and draws against transformers' processors and torch."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from transformers import (
    MinLengthLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from mindone_coca.generation.scores import (
    BeamCandidates,
    Penalties,
    Sampler,
    forbidden_rows,
    log_normalizer,
)
from tests.reference import torch

ROWS, VOCAB, ENDS = 6, 50, (3, 49)


@pytest.fixture
def logits() -> np.ndarray:
    return (4 * np.random.default_rng(0).standard_normal((ROWS, VOCAB))).astype(np.float32)


@pytest.fixture
def ids() -> np.ndarray:
    ids = np.random.default_rng(1).integers(0, VOCAB, (ROWS, 9))
    ids[:, 5] = ids[:, 2]  # a token seen twice is lowered once
    ids[0, 1] = 3
    return ids


@pytest.mark.parametrize("penalty", [None, 0.6, 1.0, 1.3])
@pytest.mark.parametrize("forbid", [False, True])
def test_penalties(logits, ids, penalty, forbid):
    want = torch.from_numpy(logits)
    want = MinLengthLogitsProcessor(10 if forbid else 2, list(ENDS))(torch.from_numpy(ids), want)
    if penalty is not None:
        want = RepetitionPenaltyLogitsProcessor(penalty)(torch.from_numpy(ids), want)
    ours = Penalties(penalty is not None)(
        Tensor(logits),
        Tensor(np.concatenate((ids, ids[:, :1]), 1), ms.int32),  # a free place repeats the first
        forbidden_rows(VOCAB, ENDS)[forbid],
        Tensor(penalty or 1.0, ms.float32),
    )
    np.testing.assert_allclose(ours.asnumpy(), want.numpy(), rtol=1e-6)


def test_log_normalizer(logits):
    for scale in (1, 30):  # exp would overflow
        want = torch.logsumexp(torch.from_numpy(scale * logits).double(), 1, keepdim=True)
        np.testing.assert_allclose(log_normalizer(Tensor(scale * logits)).asnumpy(), want, rtol=1e-5)


@pytest.mark.parametrize("normalize", [False, True])
def test_candidates(logits, ids, normalize):
    cell = BeamCandidates(7, normalize, True, False)
    inputs = Tensor(logits), Tensor(ids, ms.int32), forbidden_rows(VOCAB, ENDS)[1], Tensor(1.0, ms.float32)
    values, tokens, log_probs = cell(*inputs)
    normalized = torch.log_softmax(torch.from_numpy(logits), 1)
    scores = (normalized if normalize else torch.from_numpy(logits)).clone()
    scores[:, list(ENDS)] = -np.inf
    want = scores.topk(7)
    np.testing.assert_array_equal(tokens.asnumpy(), want.indices)
    np.testing.assert_allclose(values.asnumpy(), want.values, rtol=1e-5)
    np.testing.assert_allclose(log_probs.asnumpy(), normalized.gather(1, want.indices), rtol=1e-5)


def kept(scores: np.ndarray, top_k: int | None, top_p: float = 1.0) -> np.ndarray:
    return Sampler(top_k, False, False).keep(Tensor(scores), Tensor(top_p, ms.float32)).asnumpy()


@pytest.mark.parametrize("top_k", [1, 5, VOCAB])
def test_top_k_keeps_what_transformers_keeps(logits, top_k):
    want = TopKLogitsWarper(top_k)(None, torch.from_numpy(logits)).isfinite()
    np.testing.assert_array_equal(kept(logits, top_k), want)


def test_top_k_keeps_ties_with_the_last():
    scores = np.array([[1, 3, 2, 2, 2, 0]], np.float32)
    want = TopKLogitsWarper(2)(None, torch.from_numpy(scores)).isfinite()
    np.testing.assert_array_equal(kept(scores, 2), want)
    assert want.sum() == 4


@pytest.mark.parametrize("top_p", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_top_p_keeps_what_transformers_keeps(logits, top_p):
    for scale in (0.1, 1):
        scores = (scale * logits).astype(np.float32)
        scores[:, list(ENDS)] = -np.inf
        want = TopPLogitsWarper(top_p)(None, torch.from_numpy(scores)).isfinite()
        finite = np.isfinite(scores)  # at weight 0 it does not matter whether they stay
        np.testing.assert_array_equal(kept(scores, None, top_p) & finite, want)


@pytest.mark.graphs
@pytest.mark.parametrize("options", [(None, 1.0), (None, 0.8), (4, 0.0), (1, 0.0)])
@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_a_token_is_the_inverse_of_the_cumulated_probability(logits, ids, options, temperature):
    top_k, top_p = options
    warper = TopPLogitsWarper(top_p) if top_k is None else TopKLogitsWarper(top_k)
    scores = torch.from_numpy(logits).clone()
    scores[:, list(ENDS)] = -np.inf
    scores = RepetitionPenaltyLogitsProcessor(1.4)(torch.from_numpy(ids), scores)
    probabilities = torch.softmax(warper(None, scores).double() / temperature, 1).numpy()
    cumulated = np.cumsum(probabilities, 1)
    sampler = Sampler(top_k, True, True)
    for u in (0.0, 0.2, 0.61, 0.97, 1 - 2**-24):
        token, log_prob = sampler(
            Tensor(logits),
            Tensor(ids, ms.int32),
            forbidden_rows(VOCAB, ENDS)[1],
            Tensor(1.4, ms.float32),
            Tensor(temperature, ms.float32),
            Tensor(top_p, ms.float32),
            Tensor(np.full(ROWS, u, np.float32)),
        )
        token = token.asnumpy()
        rows = np.arange(ROWS)
        assert (probabilities[rows, token] > 0).all()  # at either end too
        if u != 1 - 2**-24:
            np.testing.assert_array_equal(token, (cumulated <= u).sum(1))
        want = torch.log_softmax(torch.from_numpy(logits), 1)[rows, token]
        np.testing.assert_allclose(log_prob.asnumpy(), want, rtol=1e-5, atol=1e-6)
