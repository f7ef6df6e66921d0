"""Beam search's bookkeeping, on the host, for one image at a time.

Source: transformers 4.51's BeamSearchScorer and BeamHypotheses, as open_clip.coca_model.CoCa calls them. Scores are
summed; a finished caption's score is its sum over length ** length_penalty, the length counting every token from the
start token to the end token, prompt included.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)  # equal arrays have no single truth value; a caption is itself only
class Hypothesis:
    """A finished caption: its tokens without the end token, its score, and its tokens' summed log-probability."""

    tokens: np.ndarray
    score: float
    log_prob: float
    generated: int  # tokens that log_prob sums over, the end token among them


class Hypotheses:
    """The best `size` finished captions of one group of beams."""

    def __init__(self, size: int, length_penalty: float) -> None:
        self.size = size
        self.length_penalty = length_penalty
        self.items: list[Hypothesis] = []

    def add(self, tokens: np.ndarray, total: float, length: int, log_prob: float, generated: int) -> None:
        """Offer a caption of summed score `total`; `length` is what the sum is divided by."""
        score = total / length**self.length_penalty
        if len(self.items) < self.size or score > self.worst:
            self.items.append(Hypothesis(tokens.copy(), score, log_prob, generated))
            if len(self.items) > self.size:
                self.items.remove(min(self.items, key=lambda item: item.score))

    @property
    def worst(self) -> float:
        return min(item.score for item in self.items)

    def is_done(self, best_total: float, length: int) -> bool:
        """Whether no open beam can still do better, by the best candidate's score at this length."""
        return len(self.items) >= self.size and self.worst >= best_total / length**self.length_penalty


class BeamGroup:
    """The open beams of one group of one image: tokens (size, length), summed scores (size,), finished captions."""

    def __init__(self, prompt: np.ndarray, size: int, end_ids: tuple[int, ...], length_penalty: float) -> None:
        self.size = size
        self.end_ids = end_ids
        self.tokens = np.repeat(prompt[None], size, 0)
        self.prompt_length = len(prompt)
        # only the first beam counts at the start, so that the beams differ
        self.scores = np.full(size, -1e9, np.float32)
        self.scores[0] = 0
        self.log_probs = np.zeros(size)
        self.parents = np.arange(size)
        self.hypotheses = Hypotheses(size, length_penalty)
        self.done = False

    @property
    def last_tokens(self) -> np.ndarray:
        return self.tokens[:, -1]

    def advance(self, scores: np.ndarray, tokens: np.ndarray, log_probs: np.ndarray, pad_id: int) -> None:
        """Take the next tokens from each beam's candidates, all (size, k), best first."""
        if self.done:
            self.tokens = np.concatenate((self.tokens[[0] * self.size], np.full((self.size, 1), pad_id)), 1)
            self.parents = np.zeros(self.size, np.int64)
            return
        count = self.size * max(2, 1 + len(self.end_ids))
        totals = scores.astype(np.float32) + self.scores[:, None]
        order = np.argsort(-totals, axis=None, kind="stable")[:count]
        beams, columns = np.unravel_index(order, totals.shape)
        length = self.tokens.shape[1] + 1  # with the token that comes now
        next_beams: list[int] = []
        for rank, (beam, column) in enumerate(zip(beams, columns)):
            if tokens[beam, column] not in self.end_ids:
                next_beams.append(rank)
            elif rank < self.size:
                total, log_prob = float(totals[beam, column]), self.log_probs[beam] + log_probs[beam, column]
                self.hypotheses.add(self.tokens[beam], total, length, log_prob, length - self.prompt_length)
            if len(next_beams) == self.size:
                break
        beams, columns = beams[next_beams], columns[next_beams]
        best_total = float(totals.flat[order[0]])
        self.tokens = np.concatenate((self.tokens[beams], tokens[beams, columns][:, None]), 1)
        self.scores = totals[beams, columns]
        self.log_probs = self.log_probs[beams] + log_probs[beams, columns]
        self.parents = beams
        self.done = self.hypotheses.is_done(best_total, length)

    def close(self) -> None:
        """At the length limit: offer the open beams as captions too."""
        if not self.done:
            length = self.tokens.shape[1]
            for tokens, total, log_prob in zip(self.tokens, self.scores, self.log_probs):
                self.hypotheses.add(tokens, float(total), length, log_prob, length - self.prompt_length)


def best_hypotheses(groups: list[BeamGroup], count: int) -> list[Hypothesis]:
    """The `count` best captions of an image's groups, best first; the later offered wins a tie."""
    offered = sorted((item for group in groups for item in group.hypotheses.items), key=lambda item: item.score)
    return offered[::-1][:count]


def diversity_scores(
    scores: np.ndarray, tokens: np.ndarray, chosen: np.ndarray, penalty: float
) -> tuple[np.ndarray, np.ndarray]:
    """Lower candidates by `penalty` for each earlier group's beam that chose the same token this step.

    Source: transformers' HammingDiversityLogitsProcessor. Takes scores and tokens (size, k), returns the scores and the
    order in which each row's candidates now stand.
    """
    times = (tokens[..., None] == chosen).sum(-1)
    scores = scores - np.float32(penalty) * times.astype(np.float32)
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(scores, order, 1), order
