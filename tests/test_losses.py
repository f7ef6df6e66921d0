"""The caption loss's sums and gradients, written out by hand, against torch's in double precision."""

import mindspore as ms
import numpy as np
import pytest

from mindone_coca import device
from mindone_coca.losses import CaptionLossSums
from tests.reference import torch

pytestmark = pytest.mark.graphs

ROWS, WIDTH, TOKENS = 10, 16, 50


@pytest.mark.parametrize("factor", [0.1, 20.0])  # unsure, and so sure that most probabilities are 0
@pytest.mark.parametrize("trains_projection", [True, False])
@pytest.mark.parametrize("pad_id", [0, 3])
def test_sums_and_gradients(factor, trains_projection, pad_id):
    device.ensure_configured()
    rng = np.random.default_rng(0)
    hidden = (factor * rng.standard_normal((2, ROWS // 2, WIDTH))).astype(np.float32)
    projection = rng.standard_normal((WIDTH, TOKENS)).astype(np.float32)
    labels = rng.integers(0, TOKENS, (2, ROWS // 2)).astype(np.int32)
    labels[0, 3:] = labels[1, 4:] = pad_id
    logits = torch.from_numpy(hidden @ projection).argmax(-1)
    labels[0, 0] = logits[0, 0]  # one that the model has right
    theirs = [torch.from_numpy(array).double().requires_grad_() for array in (hidden, projection)]
    log_z, at_labels, is_label = reference_terms(*theirs, torch.from_numpy(labels).long(), pad_id)
    entropy, squares = ((log_z - at_labels) * is_label).sum(), (log_z**2 * is_label).sum()
    (0.7 * entropy + 0.3 * squares).backward()

    sums = CaptionLossSums(pad_id)

    def weighted(hidden, projection):
        values = sums(hidden, projection, ms.Tensor(labels))
        return 0.7 * values[0] + 0.3 * values[1]

    arguments = (ms.Tensor(hidden), ms.Tensor(projection))
    values = sums(*arguments, ms.Tensor(labels))[:2]
    np.testing.assert_allclose([v.asnumpy() for v in values], [entropy.item(), squares.item()], rtol=5e-6)
    grads = ms.grad(weighted, (0, 1) if trains_projection else 0)(*arguments)
    for ours, their in zip(grads if trains_projection else (grads,), theirs):
        difference = np.abs(ours.asnumpy() - their.grad.numpy()).max()
        # float32 holds logits of hundreds that much less finely
        assert difference < 1e-5 * max(factor, 1) * their.grad.abs().max().item()


def reference_terms(hidden, projection, labels, pad_id):
    logits = hidden @ projection
    is_label = (labels != pad_id).double()
    return logits.logsumexp(-1), logits.gather(-1, labels[..., None])[..., 0], is_label


def test_padding_alone_is_nothing():
    device.ensure_configured()
    sums = CaptionLossSums()
    rng = np.random.default_rng(0)
    hidden = ms.Tensor(rng.standard_normal((2, 3, WIDTH)).astype(np.float32))
    projection = ms.Tensor(rng.standard_normal((WIDTH, TOKENS)).astype(np.float32))
    labels = ms.Tensor(np.zeros((2, 3), np.int32))
    assert [float(v.asnumpy()) for v in sums(hidden, projection, labels)[:2]] == [0, 0]

    def total(hidden):
        values = sums(hidden, projection, labels)
        return values[0] + values[1]

    grad = ms.grad(total)(hidden)
    assert not grad.asnumpy().any()
