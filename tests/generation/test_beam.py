"""Beam search's bookkeeping against transformers' on random score streams, and the penalty between groups."""

import numpy as np
import pytest
from transformers import BeamSearchScorer, HammingDiversityLogitsProcessor
from transformers.generation.beam_search import BeamHypotheses

from mindone_coca.generation.beam import BeamGroup, Hypotheses, best_hypotheses, diversity_scores
from tests.reference import torch

VOCAB, PAD = 24, 0


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 1.7])
def test_hypotheses_keep_what_transformers_keeps(length_penalty):
    rng = np.random.default_rng(0)
    done = 0
    for _ in range(40):
        size = int(rng.integers(1, 5))
        ours, theirs = Hypotheses(size, length_penalty), BeamHypotheses(size, length_penalty, early_stopping=False)
        for length in range(2, 12):
            total = float(rng.normal(length, 3))
            tokens = rng.integers(0, VOCAB, length)
            ours.add(tokens, total, length, 0.0, length)
            theirs.add(torch.from_numpy(tokens), total, generated_len=length)
            best = float(rng.normal(length, 3))
            assert ours.is_done(best, length) == theirs.is_done(best, length)
            done += ours.is_done(best, length)
        kept = {(item.score, tuple(item.tokens)) for item in ours.items}
        assert kept == {(score, tuple(tokens.tolist())) for score, tokens, _ in theirs.beams}
        assert len(kept) == size
    assert 20 < done < 380


def test_hypotheses_keep_their_own_tokens():
    kept, tokens = Hypotheses(1, 1.0), np.array([1, 2, 3])
    kept.add(tokens, 1.0, 3, 0.0, 2)
    tokens[:] = 9
    np.testing.assert_array_equal(kept.items[0].tokens, [1, 2, 3])


@pytest.mark.parametrize("end_ids", [(3,), (3, 7, 8)])
@pytest.mark.parametrize("length_penalty", [1.0, 0.4])
def test_a_group_advances_as_transformers_scorer(end_ids, length_penalty):
    """Random scores of each beam's next token, the end tokens' raised, up to 12 tokens."""
    finished, cut_off = 0, 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        size = int(rng.integers(2, 5))
        prompt = rng.integers(4, 7, rng.integers(1, 4))
        group = BeamGroup(prompt, size, end_ids, length_penalty)
        scorer = BeamSearchScorer(
            1, size, torch.device("cpu"), length_penalty=length_penalty, num_beam_hyps_to_keep=size
        )
        ids = torch.from_numpy(group.tokens)
        totals = torch.tensor([0.0] + [-1e9] * (size - 1))
        count = size * (1 + len(end_ids))
        level = rng.choice([-6, 1])  # below 0 longer captions are worse, so that groups are done early
        while ids.shape[1] < 12 and not group.done:
            scores = rng.normal(level, 1.5, (size, VOCAB)).astype(np.float32)
            scores[:, list(end_ids)] += rng.choice([0, 2])
            # theirs: all scores at once
            best, flat = (torch.from_numpy(scores) + totals[:, None]).view(1, -1).topk(count, dim=1)
            step = scorer.process(ids, best, flat % VOCAB, flat // VOCAB, PAD, list(end_ids))
            totals = step["next_beam_scores"]
            ids = torch.cat((ids[step["next_beam_indices"]], step["next_beam_tokens"][:, None]), 1)
            # ours: each beam's best
            tokens = np.argsort(-scores, 1)[:, :count]
            candidates = np.take_along_axis(scores, tokens, 1)
            group.advance(candidates, tokens, candidates.astype(np.float64), PAD)
            np.testing.assert_array_equal(group.tokens, ids)
            np.testing.assert_array_equal(group.scores, totals)
            np.testing.assert_array_equal(group.parents, step["next_beam_indices"])
            assert group.done == bool(scorer.is_done)
        finished, cut_off = finished + group.done, cut_off + (not group.done)
        # a finished group only grows padding
        if group.done:
            before = group.tokens[0]
            group.advance(candidates, tokens, candidates, PAD)
            np.testing.assert_array_equal(group.tokens, np.repeat([[*before, PAD]], size, 0))
            group.tokens = group.tokens[:, :-1]
        group.close()
        output = scorer.finalize(ids, totals, None, None, 12, PAD, list(end_ids))
        best = best_hypotheses([group], size)
        np.testing.assert_allclose([item.score for item in best], output["sequence_scores"], rtol=1e-6)
        for item, row in zip(best, output["sequences"].tolist()):
            assert row[: len(item.tokens)] == item.tokens.tolist()
            assert row[len(item.tokens) :] in ([], [end_ids[0], *[PAD] * (len(row) - len(item.tokens) - 1)])
            # the scores were their own log-probabilities: the sum comes out again, over the tokens it is said to sum
            length = len(prompt) + item.generated
            assert length - len(item.tokens) in (0, 1)
            np.testing.assert_allclose(item.log_prob, item.score * length**length_penalty, rtol=1e-5)
    assert finished >= 8 and cut_off >= 8


def test_the_best_of_several_groups():
    groups = [BeamGroup(np.array([1]), 2, (3,), 1.0) for _ in range(2)]
    for group, totals in zip(groups, ([4.0, 1.0], [3.0, 2.0])):
        for total in totals:
            group.hypotheses.add(np.array([1, int(total)]), total, 1, 0.0, 1)
    assert [item.score for item in best_hypotheses(groups, 3)] == [4.0, 3.0, 2.0]


def test_diversity_lowers_as_transformers_does():
    rng = np.random.default_rng(0)
    changed = 0
    for _ in range(20):
        size, groups, penalty = 2, 3, float(rng.uniform(0.1, 2))
        scores = rng.standard_normal((size, VOCAB)).astype(np.float32)
        chosen = rng.integers(0, VOCAB, 4)
        current = torch.from_numpy(np.concatenate((chosen, [0, 0])))
        processor = HammingDiversityLogitsProcessor(penalty, size * groups, groups)
        want = processor(torch.zeros(size, 1), torch.from_numpy(scores), current, beam_group_idx=2).numpy()
        tokens = np.argsort(-scores, 1)[:, :8]
        ours, order = diversity_scores(np.take_along_axis(scores, tokens, 1), tokens, chosen, penalty)
        tokens = np.take_along_axis(tokens, order, 1)
        np.testing.assert_array_equal(tokens[:, :4], np.argsort(-want, 1)[:, :4])  # 8 less the 4 that may fall
        np.testing.assert_allclose(ours, np.take_along_axis(want, tokens, 1), rtol=1e-6)
        changed += (order != np.arange(8)).any()
    assert changed > 5
