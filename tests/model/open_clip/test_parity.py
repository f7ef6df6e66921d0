"""Features, token embeddings, labels and logits against open_clip itself, for every supported config key."""

from contextlib import nullcontext

import numpy as np
import pytest

from tests.models import CONFIGS, eager, from_reference, one_layer, relative_difference
from tests.reference import random_reference, torch

pytestmark = pytest.mark.graphs

TOLERANCE = 1e-5
DEEP = ("base", "odd_sizes")  # several layers; for the other kinds one in each tower does
# Kinds that are given text of several lengths, each a graph more; what the others have changes nothing about lengths.
# Of those the encoders are run without compiling: `test_forward` compiles both with the decoder.
LENGTHS = (*DEEP, "bidirectional", "no_class_token")


@pytest.fixture(scope="module", params=CONFIGS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def pair(name):
    config = CONFIGS[name] if name in DEEP else one_layer(CONFIGS[name])
    reference = random_reference(config, seed=3)
    return config, reference, from_reference(reference, config)


def make_inputs(config: dict, batch: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    size = config["vision_cfg"]["image_size"]
    images = rng.standard_normal((batch, 3, *(size if isinstance(size, tuple) else (size, size)))).astype(np.float32)
    text_cfg = config["text_cfg"]
    text = rng.integers(1, text_cfg["vocab_size"], (batch, text_cfg["context_length"])).astype(np.int64)
    pad = text_cfg.get("pad_id", 0)
    text[0, 9:] = pad  # padding at the end
    text[1, 4] = text[1, 5] = pad  # and inside
    text[2, 1] = 7
    return images, text


@pytest.fixture
def mode(name):
    with nullcontext() if name in LENGTHS else eager():
        yield


@pytest.mark.usefixtures("mode")
def test_image_features_and_tokens(pair):
    config, reference, model = pair
    images, _ = make_inputs(config)
    with torch.no_grad():
        want, want_tokens = reference._encode_image(torch.from_numpy(images))
        raw = reference.encode_image(torch.from_numpy(images), normalize=False)
    latent, tokens = model.encode_image_tokens(images)
    if isinstance(config["vision_cfg"]["attentional_pool"], str):
        want, raw = want[:, 0], raw[:, 0]  # open_clip keeps the axis of the single query
    assert relative_difference(latent, want) < TOLERANCE
    assert relative_difference(tokens, want_tokens) < TOLERANCE
    assert relative_difference(model.encode_image(images, normalize=False), raw) < TOLERANCE


@pytest.mark.usefixtures("mode")
def test_text_features_and_embeddings(name, pair):
    config, reference, model = pair
    _, text = make_inputs(config)
    longest = text.shape[1]
    lengths = [longest - 1, longest, 6] if name in LENGTHS else [longest - 1]
    for length in lengths if config["text_cfg"].get("embed_cls") else [longest]:
        with torch.no_grad():
            want, want_tokens = reference._encode_text(torch.from_numpy(text[:, :length]))
            raw = reference.encode_text(torch.from_numpy(text[:, :length]), normalize=False)
        assert relative_difference(model.encode_text(text[:, :length]), want) < TOLERANCE
        assert relative_difference(model.encode_text(text[:, :length], normalize=False), raw) < TOLERANCE
        tokens = model.text(model.check_text(text[:, :length]))[1]
        assert relative_difference(tokens, want_tokens) < TOLERANCE


def test_forward(name, pair):
    config, reference, model = pair
    images, text = make_inputs(config)
    for output_labels in (True, False) if name in LENGTHS else (True,):
        with torch.no_grad():
            want = reference(torch.from_numpy(images), torch.from_numpy(text), output_labels=output_labels)
        ours = model(images, text, output_labels=output_labels)
        assert set(ours) == set(want)
        for key, value in want.items():
            if key == "labels":
                np.testing.assert_array_equal(ours[key].asnumpy(), value.numpy())
                continue
            if key == "image_features" and value.ndim == 3:
                value = value[:, 0]
            assert relative_difference(ours[key], value) < TOLERANCE, key


def test_without_text_the_encodings_come_back():
    reference = random_reference(CONFIGS["base"])
    model = from_reference(reference, CONFIGS["base"])
    images, _ = make_inputs(CONFIGS["base"])
    with torch.no_grad():
        want = reference(torch.from_numpy(images))
    ours = model(images)
    assert set(ours) == set(want) == {"image_features", "image_embs"}
    for name, value in want.items():
        assert relative_difference(ours[name], value) < TOLERANCE, name


def test_given_image_encodings_replace_the_image():
    config = CONFIGS["base"]
    reference = random_reference(config)
    model = from_reference(reference, config)
    images, text = make_inputs(config)
    with torch.no_grad():
        latent, embs = reference._encode_image(torch.from_numpy(images))
        want = reference(None, torch.from_numpy(text), image_latent=latent, image_embs=embs)["logits"]
    ours = model(None, text, image_latent=latent.numpy(), image_embs=embs.numpy())
    assert relative_difference(ours["logits"], want) < TOLERANCE
