"""The order of samples: shuffled by (seed, epoch), sources mixed by their weights, computed without any state."""

from collections.abc import Sequence

import numpy as np

from mindone_coca.errors import InputError


class Mixture:
    """Which sample of which source stands at each slot of an epoch.

    An epoch has as many slots as the sources have samples. Without weights each sample has one slot. With weights a
    source gets its share of the slots, exact to one slot, and goes through its samples in shuffled passes that run on
    from epoch to epoch, so that each of them is used equally often whatever the weight.
    """

    def __init__(self, lengths: Sequence[int], weights: Sequence[float | None], seed: int, shuffle: bool = True):
        self._lengths, self._seed, self._shuffle = list(lengths), seed, shuffle
        given = [weight for weight in weights if weight is not None]
        if not given:
            self.shares = list(lengths)
        elif not shuffle:
            raise InputError("weight: a source that is read in order has none, take it out")
        elif len(given) < len(weights):
            raise InputError("weight: give one to each source or to none of them")
        elif min(given) < 0 or not 0 < sum(given) < float("inf"):
            raise InputError(f"weight: {given} must not be negative, nor all zero")
        else:
            self.shares = _largest_remainder(given, sum(lengths))

    def __len__(self) -> int:
        return sum(self.shares)

    def epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """-> (source, index in it) of each slot, two int arrays as long as the mixture."""
        sources = np.repeat(np.arange(len(self.shares)), self.shares)
        if not self._shuffle:
            return sources, np.concatenate([np.arange(length) for length in self._lengths])
        indices = np.concatenate([self._stretch(number, epoch) for number in range(len(self.shares))])
        order = np.random.default_rng([self._seed, 0, epoch]).permutation(len(sources))
        return sources[order], indices[order]

    def _stretch(self, source: int, epoch: int) -> np.ndarray:
        """The part of a source's endless row of shuffled passes that falls in this epoch."""
        length, share = self._lengths[source], self.shares[source]
        start, end = epoch * share, (epoch + 1) * share
        passes = [
            np.random.default_rng([self._seed, 1, source, number]).permutation(length)
            for number in range(start // length, -(-end // length))
        ]
        offset = start - start // length * length
        return np.concatenate([*passes, np.empty(0, np.int64)])[offset : offset + share].astype(np.int64)


def _largest_remainder(weights: Sequence[float], total: int) -> list[int]:
    """Whole numbers that add up to `total`, in proportion to the weights."""
    exact = np.asarray(weights, np.float64) / sum(weights) * total
    shares = np.floor(exact).astype(np.int64)
    shares[np.argsort(shares - exact, kind="stable")[: total - shares.sum()]] += 1
    return shares.tolist()
