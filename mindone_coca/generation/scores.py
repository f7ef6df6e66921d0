"""From logits to candidates and tokens, on the device: penalties, log-softmax, top-k, filters, inverse-CDF sampling."""

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops


def forbidden_rows(vocab_size: int, ids: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Two rows (V,) to add to scores: one forbids nothing, the other forbids these ids."""
    row = np.zeros(vocab_size, np.float32)
    nothing = Tensor(row.copy())
    row[list(ids)] = -np.inf
    return nothing, Tensor(row)


def apply_penalties(logits: Tensor, forbidden: Tensor, ids: Tensor, repetition_penalty: Tensor | None) -> Tensor:
    """Minimum length and repetition, in that order. Source: transformers' MinLength- and RepetitionPenalty-processors.

    Args:
        logits: (R, V). forbidden: (V,), -inf at ids that may not come now, else 0.
        ids: (R, L), the tokens so far; unused places repeat one of them.
        repetition_penalty: divides positive and multiplies negative scores, once per distinct token; None does nothing.
    """
    logits = logits + forbidden
    if repetition_penalty is None:
        return logits
    seen = ops.gather_elements(logits, 1, ids)  # (R, L)
    seen = ops.select(seen < 0, seen * repetition_penalty, seen / repetition_penalty)
    return ops.tensor_scatter_elements(logits, ids, seen, 1)


def log_normalizer(logits: Tensor) -> Tensor:
    """log sum exp over the vocabulary, (R, V) -> (R, 1)."""
    largest = ops.amax(logits, 1, True)
    return largest + ops.log(ops.exp(logits - largest).sum(1, keepdims=True))


class BeamCandidates(nn.Cell):
    """Logits (R, V) -> the k best scores of each row, their ids and their log-probabilities, each (R, k)."""

    def __init__(self, k: int, normalize: bool, with_log_probs: bool) -> None:
        super().__init__()
        self.k = k
        self.normalize = normalize
        self.with_log_probs = with_log_probs
        self.top_k = ops.TopK(sorted=True)

    def construct(
        self, logits: Tensor, forbidden: Tensor, ids: Tensor, repetition_penalty: Tensor | None
    ) -> tuple[Tensor, ...]:
        scores = logits - log_normalizer(logits) if self.normalize else logits
        values, tokens = self.top_k(apply_penalties(scores, forbidden, ids, repetition_penalty), self.k)
        if not self.with_log_probs:
            return values, tokens
        return values, tokens, ops.gather_elements(logits, 1, tokens.astype(ms.int32)) - log_normalizer(logits)


class Sampler(nn.Cell):
    """Logits (R, V) -> one token for each row (R,), and its log-probability (R,).

    The token is the first whose cumulated probability, in the order of ids, exceeds the row's uniform number. `top_k`
    keeps the k best, and ties with the last of them (k of 1 takes the first of the best); `top_p` drops the tail whose
    cumulated probability is at most 1 - top_p, and keeps at least one. Source: transformers' TopKLogitsWarper and
    TopPLogitsWarper.
    """

    def __init__(self, top_k: int | None, with_log_probs: bool) -> None:
        super().__init__()
        self.k = top_k
        self.with_log_probs = with_log_probs
        self.sort = ops.TopK(sorted=True)
        self.cumulate = ops.CumSum()
        self.argmax = ops.Argmax(axis=1, output_type=ms.int32)

    def keep(self, scores: Tensor, top_p: Tensor) -> Tensor:
        """Scores (R, V) -> which of them stay (R, V)."""
        if self.k is not None:
            return scores >= self.sort(scores, self.k)[0][:, -1:]
        descending = self.sort(scores, scores.shape[1])[0]
        ascending = ops.flip(ops.softmax(descending, -1), (1,))
        dropped = (self.cumulate(ascending, 1) <= 1 - top_p).astype(ms.int32).sum(1, keepdims=True)  # (R, 1)
        kept = ops.maximum(scores.shape[1] - dropped, 1)
        return scores >= ops.gather_elements(descending, 1, kept - 1)

    def construct(
        self,
        logits: Tensor,
        forbidden: Tensor,
        ids: Tensor,
        repetition_penalty: Tensor | None,
        temperature: Tensor,
        top_p: Tensor,
        uniform: Tensor,
    ) -> tuple[Tensor, ...]:
        scores = apply_penalties(logits, forbidden, ids, repetition_penalty)
        if self.k == 1:
            token = self.argmax(scores)  # greedy, whatever the number
            return (token, *self.log_prob(logits, token))
        best = ops.amax(scores, 1, True)
        weights = ops.exp((scores - best) / temperature) * self.keep(scores, top_p).astype(ms.float32)
        cumulated = self.cumulate(weights, 1)  # (R, V)
        threshold = uniform[:, None] * cumulated[:, -1:]
        token = (cumulated <= threshold).astype(ms.int32).sum(1)  # (R,)
        return (token, *self.log_prob(logits, token))

    def log_prob(self, logits: Tensor, token: Tensor) -> tuple[Tensor, ...]:
        """The tokens' log-probabilities (R,) if they are wanted."""
        if not self.with_log_probs:
            return ()
        return ((ops.gather_elements(logits, 1, token[:, None]) - log_normalizer(logits))[:, 0],)
