"""Single layers against torch's."""

import mindspore as ms
import numpy as np
import pytest

from mindone_coca import device, kernels
from mindone_coca.kernels import cpu
from mindone_coca.model.layers import LayerNorm, gelu_by_sigmoid
from tests.models import Graph
from tests.reference import open_clip, torch

pytestmark = pytest.mark.graphs


@pytest.fixture(autouse=True)
def _graph_mode():
    device.ensure_configured()


@pytest.mark.parametrize("count", [2_001, 20_001, 2 * cpu.PIECE - 4])  # few and many numbers go ways of their own
@pytest.mark.parametrize(
    ("ours", "theirs"), [(cpu.gelu, torch.nn.GELU), (gelu_by_sigmoid, open_clip.transformer.QuickGELU)]
)
def test_activation_and_its_gradient(ours, theirs, count):
    x = np.concatenate([np.linspace(-12, 12, count), [-1e4, -40, 40, 1e4]]).astype(np.float32)
    theirs_x = torch.from_numpy(x).double().requires_grad_()
    theirs_y = theirs()(theirs_x)
    theirs_y.sum().backward()
    cell = Graph(ours)
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
    ours = Graph(kernels.attention())(*map(ms.Tensor, (query, key, value, mask)))
    np.testing.assert_allclose(ours.asnumpy(), want.numpy(), atol=3e-6)


@pytest.mark.parametrize("rows", [7, 700])  # few numbers go another way
@pytest.mark.parametrize("middle", [0.0, 30.0])  # times the deviation
def test_layer_norm_and_its_gradients(rows, middle):
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal((2, rows, 24)).astype(np.float32) for _ in range(2))
    x = (x + middle * rng.standard_normal((2, rows, 1))).astype(np.float32)
    gamma, beta = (rng.standard_normal(24).astype(np.float32) for _ in range(2))
    reference = torch.nn.LayerNorm(24, dtype=torch.float64)
    with torch.no_grad():
        reference.weight.copy_(torch.from_numpy(gamma))
        reference.bias.copy_(torch.from_numpy(beta))
    theirs_x = torch.from_numpy(x).double().requires_grad_()
    theirs_y = reference(theirs_x)
    (theirs_y * torch.from_numpy(weight)).sum().backward()
    cell = LayerNorm(24)
    cell.gamma.set_data(ms.Tensor(gamma))
    cell.beta.set_data(ms.Tensor(beta))

    def weighted(x):
        return (cell(x) * ms.Tensor(weight)).sum()

    y = cell(ms.Tensor(x))
    backward = ms.grad(weighted, 0, ms.ParameterTuple([cell.gamma, cell.beta]))
    x_grad, (gamma_grad, beta_grad) = backward(ms.Tensor(x))
    tolerance = 2e-6 * (1 + middle)  # float32 holds x that much less finely
    for ours, theirs in (
        (y, theirs_y.detach()),
        (x_grad, theirs_x.grad),
        (gamma_grad, reference.weight.grad),
        (beta_grad, reference.bias.grad),
    ):
        assert np.abs(ours.asnumpy() - theirs.numpy()).max() < tolerance * theirs.abs().max().item()
