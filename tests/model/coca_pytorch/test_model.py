"""coca-pytorch 0.1.0 and vit-pytorch against ours, live, on models drawn at random."""

import mindspore as ms
import numpy as np
import pytest

from mindone_coca import ParallelCoCa, device
from mindone_coca.errors import InputError
from mindone_coca.model.coca_pytorch.config import ParallelConfig, ViTCfg
from mindone_coca.model.coca_pytorch.family import COCA_PYTORCH
from mindone_coca.model.coca_pytorch.vit import build_vit
from mindone_coca.model.open_clip.config import CLIPVisionCfg
from mindone_coca.model.open_clip.vision import VisionTransformer
from tests.frames import fuse_frames
from tests.models import relative_difference
from tests.parallel_models import SMALL, from_reference, make_inputs, random_config, random_reference
from tests.reference import torch

TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-4


@pytest.fixture(scope="module", params=[1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (0, 2, 3, 4))])
def pair(request):
    config = random_config(request.param)
    reference = random_reference(config, seed=request.param)
    return config, reference, from_reference(reference, config)


@pytest.mark.graphs
def test_logits_and_embeddings(pair):
    config, reference, model = pair
    inputs = make_inputs(config)
    images, text = torch.from_numpy(inputs.images), torch.from_numpy(inputs.text)
    with torch.no_grad():
        want = reference(text, images)
        want_embeddings = reference(text, images, return_embeddings=True)
    assert relative_difference(model(inputs.text, inputs.images), want) < TOLERANCE
    embeddings = model(inputs.text, inputs.images, return_embeddings=True)
    for ours, theirs in zip(embeddings, want_embeddings, strict=True):
        assert relative_difference(ours, theirs) < TOLERANCE
    with torch.no_grad():
        latents = reference.text_to_latents(want_embeddings[0]), reference.img_to_latents(want_embeddings[1])
    assert relative_difference(model.encode_text(inputs.text), latents[0]) < TOLERANCE
    assert relative_difference(model.encode_image(inputs.images), latents[1]) < TOLERANCE


class WholeLoss(ms.nn.Cell):
    def __init__(self, model: ParallelCoCa) -> None:
        super().__init__(auto_prefix=False)
        self.model = model

    def construct(self, text: ms.Tensor, images: ms.Tensor) -> ms.Tensor:
        return self.model(text, images, return_loss=True)


@pytest.mark.graphs
def test_loss_and_gradients(pair):
    config, reference, model = pair
    inputs = make_inputs(config, batch=4)
    reference.zero_grad()
    loss = reference(torch.from_numpy(inputs.text), torch.from_numpy(inputs.images), return_loss=True)
    loss.backward()
    parameters = model.trainable_params()
    function = ms.value_and_grad(WholeLoss(model), None, ms.ParameterTuple(parameters))
    value, grads = function(ms.Tensor(inputs.text.astype(np.int32)), ms.Tensor(inputs.images))
    value, grads = float(value.asnumpy()), {p.name: g.asnumpy() for p, g in zip(parameters, grads)}
    assert abs(value / loss.item() - 1) < TOLERANCE
    want = {
        COCA_PYTORCH.to_mindspore(n): p.grad
        for n, p in reference.named_parameters()
        if p.grad is not None and p.numel()
    }
    assert grads.keys() == want.keys()  # the classifier gets no gradient there, and is no trainable parameter here
    norm = np.sqrt(sum(float((g.double() ** 2).sum()) for g in want.values()))
    worst = {
        name: np.abs(grads[name] - g.numpy()).max() / max(float(g.abs().max()), 1e-6 * norm) for name, g in want.items()
    }
    assert max(worst.values()) < GRADIENT_TOLERANCE, max(worst, key=worst.get)


@pytest.mark.graphs
def test_given_labels_and_image_tokens():
    reference = random_reference(SMALL)
    model = from_reference(reference, SMALL)
    inputs = make_inputs(SMALL)
    tokens = np.random.default_rng(1).standard_normal((3, 7, 24)).astype(np.float32)
    labels = np.roll(inputs.text, -1, 1)
    with torch.no_grad():
        ids, given = torch.from_numpy(inputs.text), torch.from_numpy(tokens)
        want = reference(ids, image_tokens=given, labels=torch.from_numpy(labels), return_loss=True)
    loss = model(inputs.text, image_tokens=tokens, labels=labels, return_loss=True)
    assert relative_difference(loss, want) < TOLERANCE


class Patches(torch.nn.Module):
    """An image encoder of nobody's: the mean colour of each quarter, projected."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(images, 8).flatten(2).transpose(1, 2) @ self.weight


class OurPatches(ms.nn.Cell):
    def __init__(self, weight: np.ndarray) -> None:
        super().__init__()
        self.weight = ms.Parameter(weight, name="weight")

    def construct(self, images: ms.Tensor) -> ms.Tensor:
        means = images.reshape(-1, 3, 2, 8, 2, 8).mean((3, 5)).reshape(-1, 3, 4)
        return ms.ops.matmul(means.swapaxes(1, 2), self.weight)


@pytest.mark.graphs
def test_any_cell_is_an_image_encoder():
    weight = np.random.default_rng(2).standard_normal((3, 24)).astype(np.float32)
    reference = random_reference(SMALL)
    reference.img_encoder = Patches(torch.from_numpy(weight))
    settings = {k: v for k, v in SMALL.items() if k not in ("family", "img_encoder")}
    model = ParallelCoCa(**settings, img_encoder=OurPatches(weight), image_dim=24)
    given = {COCA_PYTORCH.to_mindspore(name): value for name, value in reference.state_dict().items()}
    for parameter in model.get_parameters():
        if "img_encoder" not in parameter.name:
            parameter.set_data(ms.Tensor(given[parameter.name].numpy().copy()))
    inputs = make_inputs(SMALL)
    with torch.no_grad():
        want = reference(torch.from_numpy(inputs.text), torch.from_numpy(inputs.images))
    assert relative_difference(model(inputs.text, inputs.images), want) < TOLERANCE


@pytest.mark.slow
def test_our_vision_transformer_is_an_image_encoder():
    cfg = CLIPVisionCfg(image_size=16, patch_size=8, layers=1, width=32, head_width=16)
    vision = VisionTransformer(cfg, 32)
    model = ParallelCoCa(16, 90, 1, 1, vision, image_dim=32, dim_head=8, heads=2, num_img_queries=3)
    inputs = make_inputs(SMALL)
    tokens = vision(ms.Tensor(inputs.images))[1]
    assert tokens.shape == (3, 4, 32)
    ours, want = model(inputs.text, inputs.images), model(inputs.text, image_tokens=tokens)
    assert ours.shape == (3, 12, 90)
    assert relative_difference(ours, want.asnumpy()) < TOLERANCE


@pytest.mark.slow
def test_several_frames_are_pooled_or_averaged():
    model = from_reference(random_reference(SMALL), SMALL)
    frames = make_inputs(SMALL).images
    encoded = model.visual.img_encoder(ms.Tensor(frames)).asnumpy()  # (F, N, 24)
    together = model.visual.pool(ms.Tensor(encoded.reshape(1, -1, 24)))[1]
    assert relative_difference(fuse_frames(model, "pool", frames)[1], together) < TOLERANCE
    apart = model.encode_image_tokens(frames)[1].asnumpy()
    assert relative_difference(fuse_frames(model, "mean", frames)[1], apart.mean(0, keepdims=True)) < TOLERANCE


@pytest.mark.slow
def test_half_precision_stays_close():
    reference = random_reference(SMALL)
    inputs = make_inputs(SMALL)
    exact = from_reference(reference, SMALL)(inputs.text, inputs.images).asnumpy()
    with device.half_on_cpu():
        half = from_reference(reference, SMALL, cast_dtype="float16")(inputs.text, inputs.images)
    assert half.dtype == ms.float32
    assert 0 < relative_difference(half, exact) < 2e-2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "images: give either"),
        ({"images": np.zeros((1, 3, 16, 16), np.float32), "image_tokens": np.zeros((1, 2, 24))}, "images: give either"),
        ({"images": np.zeros((1, 3, 8, 8), np.float32)}, r"images: must have shape \(B, 3, 16, 16\)"),
        ({"text": np.zeros((3,), np.int32), "images": 0}, "text: must be ids"),
        ({"text": np.zeros((1, 1), np.int32), "image_tokens": np.zeros((1, 2, 24)), "return_loss": True}, "two tokens"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments, message):
    cfg = ViTCfg("simple_vit", 16, 8, 24, 1, 2, 32, 8)
    model = ParallelCoCa(16, 90, 1, 1, build_vit(cfg), image_dim=24, dim_head=8, heads=2, num_img_queries=3)
    with pytest.raises(InputError, match=message):
        model(**{"text": np.ones((1, 4), np.int32), **arguments})
    with pytest.raises(InputError, match="img_encoder; give image_tokens"):
        ParallelCoCa(16, 90, 1, 1, dim_head=8)(np.ones((1, 4), np.int32), np.zeros((1, 3, 8, 8), np.float32))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim_head": 7}, "dim_head: rotary"),
        ({"dim": 0}, "dim: must be positive"),
        ({"pad_id": 200}, "pad_id: must lie in"),
        ({"img_encoder": None}, "give either img_encoder"),
        ({"vision_cfg": {}}, "give either img_encoder"),
        ({"img_encoder": None, "vision_cfg": {"attentional_pool": True}}, "a plain ViT"),
        ({"img_encoder": {"type": "vit", "image_size": 16}}, "'patch_size' is missing"),
        ({"unimodal_dept": 3}, "did you mean 'unimodal_depth'"),
        ({"family": "parallel"}, "did you mean 'parallel_coca'"),
    ],
)
def test_configs_that_cannot_be_built_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        ParallelConfig.from_dict({**random_config(0), "pad_id": 0, "num_tokens": 131, **changes})


@pytest.mark.parametrize("seed", range(3))
def test_a_config_survives_being_written(seed):
    config = ParallelConfig.from_dict(random_config(seed))
    assert ParallelConfig.from_dict(config.to_dict()) == config
