"""The caption loss's sums and gradients, written out by hand, against torch's in double precision."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mindone_coca import device
from mindone_coca.losses import CaptionLossSums, ContrastiveLoss
from tests.reference import open_clip, torch

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


class OneDevice(nn.Cell):
    """Stands for the gathering of rows from all devices, on the device that holds the rows from `start`: it returns
    those of the two arrays, of features or of totals, that has the given rows there."""

    def __init__(self, start: int, features: tuple[Tensor, Tensor], totals: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.start, self.features, self.totals = start, features, totals

    def construct(self, x: Tensor) -> Tensor:
        first, second = self.totals if x.shape[1] == 1 else self.features
        own = first[self.start : self.start + x.shape[0]]
        is_first = (abs(own - x).max() < 1e-4).astype(ms.float32)
        return is_first * first + (1 - is_first) * second


def test_two_devices_have_the_gradient_of_one_batch():
    device.ensure_configured()
    rng = np.random.default_rng(0)
    image, text = (torch.from_numpy(rng.standard_normal((6, 8))) for _ in range(2))
    image, text = (torch.nn.functional.normalize(x, dim=-1).requires_grad_() for x in (image, text))
    log_scale = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    want = open_clip.ClipLoss()(image, text, log_scale.exp())
    want.backward()
    logits = log_scale.exp() * image @ text.T
    features, totals = (
        tuple(Tensor(x.detach().numpy().astype(np.float32)) for x in pair)
        for pair in ((image, text), (logits.logsumexp(1, keepdim=True), logits.logsumexp(0)[:, None]))
    )
    loss, scale_grad = 0.0, 0.0
    for start in (0, 3):
        rows = slice(start, start + 3)
        output = ContrastiveLoss(OneDevice(start, features, totals))(
            features[0][rows], features[1][rows], Tensor(log_scale.item(), ms.float32)
        )
        loss, scale_grad = loss + float(output[0].asnumpy()), scale_grad + float(output[3].asnumpy())
        np.testing.assert_allclose(output[1].asnumpy(), image.grad[rows], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(output[2].asnumpy(), text.grad[rows], rtol=1e-4, atol=1e-6)
    assert loss == pytest.approx(want.item(), rel=1e-5)
    assert scale_grad == pytest.approx(log_scale.grad.item(), rel=1e-4)
