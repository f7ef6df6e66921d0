"""Fixtures of the decoding tests."""

from collections.abc import Iterator

import pytest

from tests.generation.pairs import Pair, get_pair
from tests.reference import torch


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """For open_clip's tiny models a second thread costs more than it gives."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def base() -> Pair:
    return get_pair("base")
