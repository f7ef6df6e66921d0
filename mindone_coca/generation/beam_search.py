"""Beam search: the device scores candidates, the host keeps the beams."""

from typing import TYPE_CHECKING

import numpy as np
from mindspore import Tensor

from mindone_coca.generation.beam import BeamGroup, best_hypotheses, diversity_scores
from mindone_coca.generation.engine import DecodeEngine
from mindone_coca.generation.graphs import scalar
from mindone_coca.generation.scores import BeamCandidates, forbidden_rows
from mindone_coca.generation.session import DecodeSession

if TYPE_CHECKING:
    from mindone_coca.generation.settings import GenerationConfig

Candidates = tuple[np.ndarray, np.ndarray, np.ndarray]  # scores, ids, log-probabilities, each (rows, k), best first


def beam_search(
    engine: DecodeEngine, image_embs: Tensor, prompt: np.ndarray, config: "GenerationConfig"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Search captions for image tokens (B, K, D) from prompts (B, P).

    Returns:
        ids (B * num_return_sequences, L), their mean token log-probabilities, and the scores by which they are ordered.
    """
    # without a penalty between them all groups find the same beams, so one stands for all
    group_count = config.num_beam_groups if config.diversity_penalty else 1
    size = config.num_beams // config.num_beam_groups
    searches = [
        [BeamGroup(row, size, config.end_ids, config.length_penalty) for _ in range(group_count)] for row in prompt
    ]
    # enough candidates to fill a group when all end tokens and all tokens of earlier groups fall out
    k = max(2, 1 + len(config.end_ids)) * size + (config.num_beams if config.diversity_penalty else 0)
    options = config.normalize_scores, config.return_scores, config.repetition_penalty != 1
    score = engine.scorer(BeamCandidates, min(k, engine.vocab_size), *options)
    forbidden = forbidden_rows(engine.vocab_size, config.end_ids)
    penalty = scalar(config.repetition_penalty)
    longest = config.longest_run(prompt.shape[1], engine.limit)
    session = DecodeSession(engine, image_embs, group_count * size, longest, score)

    length = prompt.shape[1]
    while True:
        config.check_position(length, engine.limit)
        going_on = [i for i, groups in enumerate(searches) if not all(group.done for group in groups)]
        ids = {i: np.concatenate([group.tokens for group in searches[i]]) for i in going_on}
        parents = {
            i: np.concatenate([n * size + group.parents for n, group in enumerate(searches[i])]) for i in going_on
        }
        places, _ = session.place(ids)
        scores, tokens, *rest = session.run(ids, parents, (forbidden[length < config.min_seq_len], penalty))
        log_probs = rest[0] if rest else np.zeros_like(scores)
        for i, groups in enumerate(searches):
            rows = places.get(i, np.zeros(1, int))  # a finished image's beams only grow padding
            _advance(groups, (scores[rows], tokens[rows], log_probs[rows]), config)
        length += 1
        done = all(group.done for groups in searches for group in groups)
        if done or config.should_stop(np.concatenate([group.tokens for groups in searches for group in groups])):
            break
    for groups in searches:
        for group in groups:
            group.close()
    return _collect(searches, config)


def _advance(groups: list[BeamGroup], candidates: Candidates, config: "GenerationConfig") -> None:
    """Let each group choose its next tokens from its rows of the candidates (one row for all beams after a prompt)."""
    chosen: list[np.ndarray] = []
    for number, group in enumerate(groups):
        rows = np.arange(number * group.size, (number + 1) * group.size) % len(candidates[0])
        scores, tokens, log_probs = (part[rows] for part in candidates)
        if chosen:
            scores, order = diversity_scores(scores, tokens, np.concatenate(chosen), config.diversity_penalty)
            tokens, log_probs = np.take_along_axis(tokens, order, 1), np.take_along_axis(log_probs, order, 1)
        group.advance(scores, tokens, log_probs, config.pad_id)
        chosen.append(group.last_tokens)


def _collect(searches: list[list[BeamGroup]], config: "GenerationConfig") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lay out the best captions: the end token after each that leaves room for it, then padding."""
    best = [item for groups in searches for item in best_hypotheses(groups, config.num_return_sequences)]
    longest = max(len(item.tokens) for item in best)
    # a prompt may reach past the limit: then there is no room for an end token
    width = longest + 1 if config.max_length is None else max(longest, min(longest + 1, config.max_length))
    ids = np.full((len(best), width), config.pad_id, np.int64)
    for row, item in zip(ids, best):
        row[: len(item.tokens)] = item.tokens
        if len(item.tokens) < width:
            row[len(item.tokens)] = config.end_ids[0]
    means = [item.log_prob / max(item.generated, 1) for item in best]
    return ids, np.array(means), np.array([item.score for item in best])
