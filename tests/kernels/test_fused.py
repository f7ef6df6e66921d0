"""The branch that Ascend takes, with reference operators in the place of Ascend's: open_clip's numbers."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import ParameterTuple, Tensor, ops

from mindone_coca import device, kernels
from mindone_coca.distributed import Ranks
from mindone_coca.generation.cache import KeyValueCache
from mindone_coca.kernels import ascend, plain
from mindone_coca.losses import caption_labels
from mindone_coca.model.open_clip.family import OPEN_CLIP
from mindone_coca.training.graphs import Loss
from mindone_coca.training.optim import as_scalar
from mindone_coca.training.settings import LossConfig
from tests.kernels import stubs
from tests.models import Graph, from_reference, make_config, one_layer, relative_difference
from tests.reference import random_reference, torch
from tests.training.reference_training import make_batch, reference_losses

pytestmark = pytest.mark.graphs

# heads of 16, which the operators take; of each tower one layer
CONFIG = one_layer(make_config(vision={"attn_pooler_heads": 2}, text={"heads": 2}, multimodal={"heads": 2}))
NARROW = one_layer(make_config())  # heads of 8 in the poolers and the text, which they do not take
BLOCKS = 3  # of self-attention: one in each tower


@pytest.fixture
def calls(monkeypatch):
    """Counts the calls of the operators that stand for Ascend's."""
    yield stubs.fake_ascend(monkeypatch)
    device.configure()


@pytest.fixture(scope="module")
def reference():
    return random_reference(CONFIG, seed=1, logit_std=3)


def test_features_and_logits(calls, reference):
    images, text = make_batch(CONFIG, 3)
    model = from_reference(reference, CONFIG)
    with torch.no_grad():
        want = reference(torch.from_numpy(images), torch.from_numpy(text).long())
    ours = model(images, text)
    for name in ("image_features", "text_features", "logits"):
        assert relative_difference(ours[name], want[name]) < 1e-5, name
    # the pooler and cross-attention too
    assert calls["flash_attention_score"] == BLOCKS + 2 and calls["gelu"] == BLOCKS + 1
    assert calls["layer_norm"] > 2 * BLOCKS and not calls["fused_infer_attention_score"]


def test_heads_that_the_operators_do_not_take(calls):
    """There the plain form stands in, and the rest is fused."""
    reference = random_reference(NARROW, seed=1)
    images, text = make_batch(NARROW, 3)
    with torch.no_grad():
        want = reference(torch.from_numpy(images), torch.from_numpy(text).long())
    assert relative_difference(from_reference(reference, NARROW)(images, text)["logits"], want["logits"]) < 1e-5
    assert calls["flash_attention_score"] == 1 and calls["gelu"] == BLOCKS + 1  # the image tower's heads are wide


@pytest.mark.parametrize("beams", [1, 2])
def test_prefill_and_decode(calls, reference, beams):
    """Logits after a prompt, then after each further token, of rows that continue one another's."""
    images, _ = make_batch(CONFIG, 2)
    vocabulary = CONFIG["text_cfg"]["vocab_size"]
    ids = np.random.default_rng(3).integers(1, vocabulary, (2 * beams, 6)).astype(np.int32)
    ids[:, :3] = ids[::beams].repeat(beams, 0)[:, :3]  # beams share the prompt
    ids[0, 3] = 0  # a token that hides the next one's place
    model = from_reference(reference, CONFIG)
    with torch.no_grad():
        pixels = torch.from_numpy(images).repeat_interleave(beams, 0)
        want = reference(pixels, torch.from_numpy(ids).long(), output_labels=False)["logits"].numpy()
    cells = model.decode_cells()
    cross = cells.cross_projection(model.encode_image_tokens(images)[1])
    calls.clear()
    length, prompt = 8, 3
    first = np.zeros((2, length), np.int32)
    first[:, :prompt] = ids[::beams, :prompt]
    logits, *keys_values = cells.prompt_pass(Tensor(first), Tensor(prompt, ms.int32), *cross)
    assert relative_difference(logits, want[::beams, prompt - 1]) < 1e-5
    assert calls["flash_attention_score"] == 3 and not calls["fused_infer_attention_score"]
    cache = KeyValueCache(cells.heads, 2, beams, length, ms.float32)
    for parameter, value in zip(cache.tensors, keys_values):
        whole = np.zeros(parameter.shape, np.float32)
        whole[:, :, :length] = value.asnumpy()
        parameter.set_data(Tensor(whole))
    padded = np.zeros((2 * beams, length), np.int32)
    padded[:, :6] = ids
    for position in range(prompt, 6):
        lineage = np.full((2, beams, length), -1, np.int32)
        lineage[:, :, :prompt] = 0
        lineage[:, :, prompt : position + 1] = np.arange(beams)[None, :, None]
        step = cells.token_step(
            Tensor(padded), Tensor(position, ms.int32), Tensor(lineage), tuple(cache.tensors), *cross
        )
        assert relative_difference(step[0], want[:, position]) < 1e-5, position
    assert calls["fused_infer_attention_score"] == 3 * 3 and calls["flash_attention_score"] == 3


def test_gradients(calls, reference):
    images, text = make_batch(CONFIG, 4)
    reference.zero_grad()
    sum(reference_losses(reference, images, text, LossConfig()).values()).backward()
    wanted = {name: p.grad.numpy() for name, p in reference.named_parameters() if p.grad is not None}
    total = np.sqrt(sum((grad.astype(np.float64) ** 2).sum() for grad in wanted.values()))
    model = from_reference(reference, CONFIG)
    parameters = ParameterTuple(model.trainable_params())
    function = ms.value_and_grad(Loss(model, LossConfig(), Ranks()), None, parameters, has_aux=True)
    _, grads = function(Tensor(images), Tensor(text), Tensor(caption_labels(text)), as_scalar(1))
    ours = {parameter.name: grad.asnumpy() for parameter, grad in zip(parameters, grads)}
    for name, grad in wanted.items():
        got = ours[OPEN_CLIP.to_mindspore(name)]
        error = np.abs(got - grad).max() / max(np.abs(grad).max(), 1e-6 * total)
        assert error < 1e-5 or name.endswith("in_proj_bias"), (name, error)  # a key's bias has a gradient of noise
    assert calls["flash_attention_score"] == BLOCKS + 2


@pytest.mark.graphs
@pytest.mark.parametrize("case", ["rows", "causal", "none", "one head"])
def test_the_graph_compiler_takes_it(monkeypatch, case):
    monkeypatch.setattr(ascend, "NOT_FUSED", ms.float64)
    monkeypatch.setattr(ops, "flash_attention_score", stubs.graph_flash)
    rng = np.random.default_rng(0)
    query, key, value = (Tensor(rng.standard_normal((2, 3, n, 16)).astype(np.float32)) for n in (4, 5, 5))
    masks = {"rows": (2, 1, 1, 5), "causal": (1, 1, 4, 5), "none": None, "one head": (1, 4, 5)}
    mask = masks[case]
    if mask is not None:
        hidden = rng.random(mask) < 0.3
        hidden[..., 0] = False
        mask = Tensor(np.where(hidden, kernels.MASKED, 0).astype(np.float32))
    if case == "one head":
        query, key, value = query[:, 0], key[:, 0], value[:, 0]
    got, want = (Graph(kernel)(query, key, value, mask) for kernel in (ascend.attention, plain.attention))
    np.testing.assert_allclose(got.asnumpy(), want.asnumpy(), atol=1e-6)


FORMS = (kernels.linear, kernels.layer_norm, kernels.gelu, kernels.attention, kernels.decode_attention)


@pytest.mark.parametrize(
    ("product", "choice", "homes"),
    [
        ("CPU", "auto", {"cpu"}),
        ("A2", "auto", {"ascend", "plain"}),
        ("A3", "auto", {"ascend", "plain"}),
        ("910A", "auto", {"plain"}),
        ("310P", "auto", {"plain"}),
        ("GPU", "auto", {"plain"}),
        ("A2", "portable", {"plain"}),
        ("CPU", "portable", {"plain"}),
    ],
)
def test_the_form_is_chosen_by_product_when_a_cell_is_made(product, choice, homes, monkeypatch):
    monkeypatch.setattr(device, "product", lambda: product)
    device.configure(kernels=choice)
    try:
        made = {form().__module__.rpartition(".")[2] for form in FORMS}
    finally:
        device.configure()
    assert made == homes


def test_float32_is_not_fused():
    """Without the tests' change float32 takes the plain form."""
    x = Tensor(np.zeros((1, 1, 1, 16), np.float32))
    assert not ascend.can_fuse(x) and ascend.can_fuse(x.astype(ms.float16))
    assert not ascend.can_fuse(Tensor(np.zeros((1, 1, 1, 24)), ms.float16))
