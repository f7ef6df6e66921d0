"""The usage examples of open_clip's CoCa documentation, run on ours beside open_clip with the same weights.

As documented they fail in open_clip itself: both towers need `output_tokens=True`, and the image tokens the decoder's
width, here by an attentional pool.
"""

import numpy as np
import pytest

from mindone_coca import CLIPTextCfg, CLIPVisionCfg, CoCa, MultimodalCfg
from tests.generation.pairs import favour, sampling_by
from tests.models import from_reference, relative_difference
from tests.reference import ReferenceCoCa, draw_parameters, open_clip, torch

pytestmark = pytest.mark.graphs

CONTEXT, VOCAB, START, END = 24, 49408, 49406, 49407


def model_options(vision_class, text_class, multimodal_class) -> dict:
    """What either package's CoCa is constructed from."""
    return {
        "embed_dim": 48,
        "vision_cfg": vision_class(
            layers=1,
            width=64,
            head_width=16,
            patch_size=16,
            image_size=64,
            attentional_pool=True,
            attn_pooler_heads=4,
            attn_pooler_queries=8,
            output_tokens=True,
        ),
        "text_cfg": text_class(
            context_length=CONTEXT, vocab_size=VOCAB, width=48, heads=4, layers=1, embed_cls=True, output_tokens=True
        ),
        "multimodal_cfg": multimodal_class(context_length=CONTEXT, width=48, heads=4, layers=1),
    }


@pytest.fixture(scope="module")
def models() -> tuple[ReferenceCoCa, CoCa]:
    """open_clip's model and ours, constructed from their own config objects."""
    torch.manual_seed(0)
    reference = ReferenceCoCa(
        **model_options(open_clip.CLIPVisionCfg, open_clip.CLIPTextCfg, open_clip.coca_model.MultimodalCfg)
    ).eval()
    draw_parameters(reference, logit_std=3)
    favour(reference, {END: 8})
    return reference, from_reference(reference, model_options(CLIPVisionCfg, CLIPTextCfg, MultimodalCfg))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32)


@pytest.fixture(scope="module")
def texts() -> np.ndarray:
    return open_clip.SimpleTokenizer(context_length=CONTEXT)(["a photo of a cat", "a dog on a beach"]).numpy()


def test_training_forward(models, images, texts):
    reference, model = models
    with torch.no_grad():
        want = reference(torch.from_numpy(images), torch.from_numpy(texts))
    ours = model(images, texts)
    assert ours["image_features"].shape == ours["text_features"].shape == (2, 48)
    assert ours["logits"].shape == (2, CONTEXT - 1, VOCAB)
    for name in ("image_features", "text_features", "logits", "logit_scale"):
        assert relative_difference(ours[name], want[name]) < 1e-5, name
    np.testing.assert_array_equal(ours["labels"].asnumpy(), texts[:, 1:])


def test_contrastive_similarity(models, images, texts):
    reference, model = models
    with torch.no_grad():
        image_features = reference.encode_image(torch.from_numpy(images), normalize=True)
        text_features = reference.encode_text(torch.from_numpy(texts), normalize=True)
        want = reference.logit_scale.exp() * image_features @ text_features.T
    image_features = model.encode_image(images, normalize=True)
    text_features = model.encode_text(texts, normalize=True)
    similarity = model.logit_scale.exp() * image_features @ text_features.T
    assert similarity.shape == (2, 2)
    assert relative_difference(similarity, want) < 1e-5


def test_beam_search_with_10_beams_in_5_groups(models, images):
    reference, model = models
    options = {
        "seq_len": 20,
        "generation_type": "beam_search",
        "num_beams": 10,
        "num_beam_groups": 5,
        "min_seq_len": 5,
    }
    ours = model.generate(images[:1], **options).asnumpy()
    np.testing.assert_array_equal(ours, reference.generate(torch.from_numpy(images[:1]), **options).numpy())
    assert ours[0, 0] == START


def test_nucleus_sampling_with_repetition_penalty(models, images):
    reference, model = models
    options = {"seq_len": 20, "generation_type": "top_p", "top_p": 0.9, "temperature": 1.0, "repetition_penalty": 1.2}
    uniforms = np.random.default_rng(0).random(100, np.float32).astype(np.float64)
    with sampling_by(uniforms):
        want = reference.generate(torch.from_numpy(images[:1]), **options).numpy()
    ours = model.generate(images[:1], uniforms=uniforms, **options).asnumpy()
    np.testing.assert_array_equal(ours, want)
    assert model.generate(images[:1], seed=1, **options).shape[0] == 1
