"""Single layers against torch's."""

import mindspore as ms
import numpy as np
import pytest

from mindone_coca import device
from mindone_coca.model.layers import GELU, QuickGELU, attend
from tests.reference import open_clip, torch


@pytest.fixture(autouse=True)
def _graph_mode():
    device.ensure_configured()


@pytest.mark.parametrize("count", [2_001, 20_001])  # few numbers go another way
@pytest.mark.parametrize(("ours", "theirs"), [(GELU, torch.nn.GELU), (QuickGELU, open_clip.transformer.QuickGELU)])
def test_activation_and_its_gradient(ours, theirs, count):
    x = np.concatenate([np.linspace(-12, 12, count), [-1e4, -40, 40, 1e4]]).astype(np.float32)
    theirs_x = torch.from_numpy(x).double().requires_grad_()
    theirs_y = theirs()(theirs_x)
    theirs_y.sum().backward()
    cell = ours()
    value = cell(ms.Tensor(x)).asnumpy()
    gradient = ms.grad(cell)(ms.Tensor(x)).asnumpy()
    scale = np.maximum(np.abs(x), 1)
    assert (np.abs(value - theirs_y.detach().numpy()) / scale).max() < 1e-6
    assert (np.abs(gradient - theirs_x.grad.numpy()) / scale).max() < 2e-6


def test_attend_matches_torch_with_a_mask():
    rng = np.random.default_rng(0)
    query, key, value = (rng.standard_normal((2, 3, n, 8)).astype(np.float32) for n in (5, 7, 7))
    mask = np.where(rng.random((2, 1, 5, 7)) < 0.5, 0, -1e9).astype(np.float32)
    mask[..., 0] = 0
    want = torch.nn.functional.scaled_dot_product_attention(*map(torch.from_numpy, (query, key, value, mask)))
    ours = attend(*map(ms.Tensor, (query, key, value, mask)))
    np.testing.assert_allclose(ours.asnumpy(), want.numpy(), atol=3e-6)
