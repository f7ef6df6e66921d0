"""The order of an epoch: each sample once without weights, exact shares and even use with them."""

from itertools import pairwise

import numpy as np
import pytest

from mindone_coca.data.mixing import Mixture
from mindone_coca.errors import InputError


def pairs(mixture, epoch):
    return list(zip(*(array.tolist() for array in mixture.epoch(epoch)), strict=True))


def test_without_weights_each_sample_once_in_a_new_order_each_epoch():
    mixture = Mixture([5, 40], [None, None], seed=3)
    everything = [(0, n) for n in range(5)] + [(1, n) for n in range(40)]
    orders = [pairs(mixture, epoch) for epoch in range(4)]
    assert all(sorted(order) == everything for order in orders)
    assert all(one != other for one, other in pairwise(orders))
    assert orders[2] == pairs(Mixture([5, 40], [None, None], seed=3), 2)
    assert orders[2] != pairs(Mixture([5, 40], [None, None], seed=4), 2)


def test_weights_give_exact_shares_and_even_use():
    mixture = Mixture([10, 90, 7], [3.0, 1.0, 0.0], seed=0)
    assert mixture.shares == [80, 27, 0]
    used = {}
    for epoch in range(20):
        order = pairs(mixture, epoch)
        assert np.bincount([source for source, _ in order], minlength=3).tolist() == [80, 27, 0]
        for pair in order:
            used[pair] = used.get(pair, 0) + 1
    assert {used[0, n] for n in range(10)} == {160}  # 20 x 80 draws of 10 samples
    assert {used[1, n] for n in range(90)} == {6}  # 20 x 27 draws of 90 samples
    sources = mixture.epoch(0)[0]
    assert 25 <= (sources[:54] == 0).sum() <= 50  # mixed, not one source after the other


def test_in_order():
    assert pairs(Mixture([2, 3], [None, None], seed=0, shuffle=False), 5) == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]


@pytest.mark.parametrize(
    ("weights", "shuffle", "word"),
    [
        ([1.0, None], True, "each"),
        ([-1.0, 2.0], True, "negative"),
        ([0.0, 0.0], True, "zero"),
        ([1.0, 1.0], False, "in order"),
    ],
)
def test_wrong_weights(weights, shuffle, word):
    with pytest.raises(InputError, match=word):
        Mixture([2, 3], weights, seed=0, shuffle=shuffle)
