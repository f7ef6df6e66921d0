"""From logits to candidates and tokens, on the device: penalties, log-softmax, top-k, filters, inverse-CDF sampling."""

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from mindone_coca import kernels


def forbidden_rows(vocab_size: int, ids: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Two rows (V,) to add to scores: one forbids nothing, the other forbids these ids."""
    row = np.zeros(vocab_size, np.float32)
    nothing = Tensor(row.copy())
    row[list(ids)] = -np.inf
    return nothing, Tensor(row)


def forced_row(vocab_size: int, token: int) -> Tensor:
    """A row (V,) to add to scores that forbids all but one id."""
    row = np.full(vocab_size, -np.inf, np.float32)
    row[token] = 0
    return Tensor(row)


class Penalties(nn.Cell):
    """Minimum length and repetition, in that order. Source: transformers' MinLength- and RepetitionPenalty-processors.

    Args:
        repeats: penalise repetition at all.

    `construct` takes logits (R, V), the tokens so far (R, L), unused places of which repeat one of them, a row (V,),
    -inf at ids that may not come now, else 0, and the repetition penalty (), which divides positive and multiplies
    negative scores, once for each distinct token.
    """

    def __init__(self, repeats: bool) -> None:
        super().__init__()
        self.repeats, self.add_to_each = repeats, kernels.add_to_each()

    def construct(self, logits: Tensor, ids: Tensor, forbidden: Tensor, penalty: Tensor) -> Tensor:
        logits = self.add_to_each(logits, forbidden)
        return penalize_repetition(logits, ids, penalty) if self.repeats else logits


def penalize_repetition(logits: Tensor, ids: Tensor, repetition_penalty: Tensor) -> Tensor:
    seen = ops.gather_elements(logits, 1, ids)  # (R, L)
    seen = ops.select(seen < 0, seen * repetition_penalty, seen / repetition_penalty)
    return ops.tensor_scatter_elements(logits, ids, seen, 1)


def across(column: Tensor, x: Tensor) -> Tensor:
    """A column (R, 1) repeated to x's shape (R, V): on the CPU operators that broadcast take longer."""
    return ops.tile(column, (1, x.shape[1]))


def log_normalizer(logits: Tensor) -> Tensor:
    """log sum exp over the vocabulary, (R, V) -> (R, 1)."""
    largest = ops.amax(logits, 1, True)
    return largest + ops.log(ops.ReduceSum(keep_dims=True)(ops.exp(logits - across(largest, logits)), 1))


class BeamCandidates(nn.Cell):
    """Logits (R, V) -> the k best scores of each row, their ids and, if asked, their log-probabilities, each (R, k)."""

    settings = 2

    def __init__(self, k: int, normalize: bool, with_log_probs: bool, repeats: bool) -> None:
        super().__init__()
        self.penalties, self.outputs = Penalties(repeats), 2 + with_log_probs
        self.normalize = normalize
        self.with_log_probs = with_log_probs
        self.best = kernels.top_k(k)

    def construct(self, logits: Tensor, ids: Tensor, forbidden: Tensor, penalty: Tensor) -> tuple[Tensor, ...]:
        scores = logits - across(log_normalizer(logits), logits) if self.normalize else logits
        values, tokens = self.best(self.penalties(scores, ids, forbidden, penalty))
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

    settings = 5

    def __init__(self, top_k: int | None, with_log_probs: bool, repeats: bool) -> None:
        super().__init__()
        self.penalties, self.outputs = Penalties(repeats), 1 + with_log_probs
        self.k = top_k
        self.with_log_probs = with_log_probs
        self.sort = ops.TopK(sorted=True)
        self.best = kernels.top_k(top_k or 1)
        self.cumulate = ops.CumSum()
        self.argmax = ops.Argmax(axis=1, output_type=ms.int32)

    def keep(self, scores: Tensor, top_p: Tensor) -> Tensor:
        """Scores (R, V) -> which of them stay (R, V)."""
        if self.k is not None:
            return scores >= across(self.best(scores)[0][:, -1:], scores)
        descending = self.sort(scores, scores.shape[1])[0]
        ascending = ops.flip(ops.softmax(descending, -1), (1,))
        dropped = (self.cumulate(ascending, 1) <= 1 - top_p).astype(ms.int32).sum(1, keepdims=True)  # (R, 1)
        kept = ops.maximum(scores.shape[1] - dropped, 1)
        return scores >= across(ops.gather_elements(descending, 1, kept - 1), scores)

    def construct(
        self,
        logits: Tensor,
        ids: Tensor,
        forbidden: Tensor,
        penalty: Tensor,
        temperature: Tensor,
        top_p: Tensor,
        uniform: Tensor,
    ) -> tuple[Tensor, ...]:
        scores = self.penalties(logits, ids, forbidden, penalty)
        if self.k == 1:
            token = self.argmax(scores)  # greedy, whatever the number
            return (token, *self.log_prob(logits, token))
        best = ops.amax(scores, 1, True)
        weights = ops.exp((scores - across(best, scores)) / temperature) * self.keep(scores, top_p).astype(ms.float32)
        cumulated = self.cumulate(weights, 1)  # (R, V)
        threshold = across(uniform[:, None] * cumulated[:, -1:], cumulated)
        token = (cumulated <= threshold).astype(ms.int32).sum(1)  # (R,)
        return (token, *self.log_prob(logits, token))

    def log_prob(self, logits: Tensor, token: Tensor) -> tuple[Tensor, ...]:
        """The tokens' log-probabilities (R,) if they are wanted."""
        if not self.with_log_probs:
            return ()
        return ((ops.gather_elements(logits, 1, token[:, None]) - log_normalizer(logits))[:, 0],)
