"""The numbers that `make test-versions` compares with are what open_clip gives today."""

import json

import numpy as np
import pytest

from tests.versions import inputs
from tests.versions.make_numbers import numbers


@pytest.mark.graphs
def test_stored_numbers_are_open_clip_s():
    stored, now = json.loads(inputs.NUMBERS.read_text()), numbers()
    assert stored.keys() == now.keys()
    for name in ("image_features", "text_features"):
        np.testing.assert_allclose(stored[name], now[name], atol=1e-6)
    assert [stored["beam"], stored["greedy"]] == [now["beam"], now["greedy"]]
    for was, value in zip(stored["steps"], now["steps"], strict=True):
        np.testing.assert_allclose([*was.values()], [*value.values()], rtol=1e-5)
