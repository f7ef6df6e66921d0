"""A small state dict, a whole model and the one line of an error, for the tests of what checkpoints are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mindone_coca.errors import InputError
from mindone_coca.weights.source import open_weights
from tests.reference import torch

STATE = {"visual.proj": torch.arange(12.0).reshape(4, 3), "text.cls_emb": torch.ones(3), "logit_scale": torch.ones(())}


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.visual = torch.nn.Linear(2, 3)

    def forward(self, x):
        return self.visual(x)


def message_of(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_weights(path)
    text = str(caught.value)
    assert "\n" not in text and text.startswith(f"{path}: ") and len(text) < 600
    return text


def assert_equal(path: Path, state: dict, **options: Any) -> None:
    """The file holds these tensors, in this order and to the bit."""
    weights = open_weights(path, **options)
    assert list(weights) == list(state)
    for name, tensor in state.items():
        weights[name].check()
        np.testing.assert_array_equal(weights[name].read(), tensor.detach().float().numpy())
