"""Heads against torch: open_clip's model and its AttentionalPooler, a norm and a linear layer, on the same weights."""

import mindspore as ms
import numpy as np
import pytest

from mindone_coca.distributed import Ranks
from mindone_coca.errors import InputError
from mindone_coca.model.open_clip.family import OPEN_CLIP
from mindone_coca.tasks.heads import Classifier
from mindone_coca.tasks.predict import Predictor
from mindone_coca.tasks.settings import TaskCfg
from mindone_coca.tasks.step import TaskLoss
from mindone_coca.training.optim import AdamW, freeze_matching
from mindone_coca.training.settings import OptimConfig
from tests.models import CONFIGS, from_reference, make_config, relative_difference
from tests.reference import random_reference, torch
from tests.training.test_step import assert_gradients_match

# isort: split
from open_clip.transformer import AttentionalPooler

SMOOTHING = 0.2


class TorchHead(torch.nn.Module):
    """The composition a head is to be, with the head's weights."""

    def __init__(self, head, cfg: TaskCfg) -> None:
        super().__init__()
        queries, width = head.pooler.query.shape
        context = head.pooler.ln_k.gamma.shape[0]
        self.cfg = cfg
        self.pooler = AttentionalPooler(width, context, cfg.heads, queries)
        self.ln_post = torch.nn.LayerNorm(width)
        self.classifier = torch.nn.Linear(head.classifier.weight.shape[1], len(cfg.labels))
        if cfg.task == "video_classification":
            self.temporal_embedding = torch.nn.Parameter(torch.zeros(cfg.num_frames, context))
        ours = {p.name: p for p in head.get_parameters()}
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.copy_(torch.from_numpy(ours.pop(our_name(name)).asnumpy()))
        assert not ours

    def forward(self, features, text):
        if self.cfg.spec.reads_text:
            lengths = (text != 0).sum(1)
            hidden = torch.arange(text.shape[1])[None] >= lengths[:, None]
            pooled = [self.pool(features[:, n], hidden) for n in range(features.shape[1])]
        else:
            if self.cfg.task == "video_classification":
                features = features + self.temporal_embedding[None, :, None]
            pooled = [self.pooler(features.flatten(1, 2))]
        return self.classifier(torch.cat([self.ln_post(x).flatten(1) for x in pooled], 1))

    def pool(self, x, hidden):
        """open_clip's pooler with a mask, which it does not have."""
        pooler = self.pooler
        x, query = pooler.ln_k(x), pooler.ln_q(pooler.query).expand(len(x), -1, -1)
        return pooler.attn(query, x, x, key_padding_mask=hidden, need_weights=False)[0]


def our_name(name: str) -> str:
    if name.startswith("pooler."):
        ours = OPEN_CLIP.to_mindspore(name.replace("pooler.", "visual.attn_pool.", 1))
        assert ours is not None
        return ours.replace("visual.attn_pool", "head.pooler")
    return "head." + name.replace("ln_post.weight", "ln_post.gamma").replace("ln_post.bias", "ln_post.beta")


def torch_features(reference, cfg: TaskCfg, images, text):
    """What the head reads, of each image by itself: (B, n, K, C)."""
    features = []
    for n in range(images.shape[1]):
        if cfg.spec.reads_text:
            _, image_embs = reference._encode_image(images[:, n])
            _, token_embs = reference._encode_text(text)
            features.append(reference.text_decoder(image_embs, token_embs))
        else:
            visual = reference.visual
            features.append(visual.transformer(visual._embeds(images[:, n])))
    return torch.stack(features, 1)


def make_inputs(config: dict, cfg: TaskCfg, batch: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    size, vocabulary = config["vision_cfg"]["image_size"], config["text_cfg"]["vocab_size"]
    images = rng.standard_normal((batch, cfg.images, 3, size, size)).astype(np.float32)
    text = rng.integers(1, vocabulary - 2, (batch, config["text_cfg"]["context_length"])).astype(np.int32)
    lengths = rng.integers(3, text.shape[1] + 1, batch)
    text[np.arange(text.shape[1])[None] >= lengths[:, None]] = 0
    text[np.arange(batch), lengths - 1] = vocabulary - 1  # the end token
    # of two classes one alone: the gradients at opposite labels cancel, and their sum is mostly rounding
    labels = rng.integers(0, len(cfg.labels) if len(cfg.labels) > 2 else 1, batch).astype(np.int32)
    labels[1] = -1
    return images, text, labels


ONE_LAYER = {"vision": {"layers": 1}, "text": {"layers": 1}, "multimodal": {"layers": 1}}
NO_POOLER = make_config({"embed_dim": 32}, vision={"attentional_pool": False, "width": 32})
CASES = {
    "video": (
        make_config(vision={"width": 32, "head_width": 8, "layers": 1}),
        TaskCfg("video_classification", list("abc"), heads=2, num_frames=3),
    ),
    "nlvr2": (make_config(**ONE_LAYER), TaskCfg("nlvr2", ["false", "true"], heads=8, queries=2)),
    "classification": (CONFIGS["base"], TaskCfg("classification", list("abcd"), heads=4, queries=2)),
    "vqa": (NO_POOLER, TaskCfg("vqa", list("abcde"), heads=4)),
}
MORE = ("classification", "vqa")  # of two layers, and slower to compile


@pytest.mark.graphs
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in MORE)) for n in CASES])
def test_logits_loss_and_gradients(name):
    config, cfg = CASES[name]
    reference = random_reference(config, seed=2)
    model = from_reference(reference, config)
    ms.set_seed(3)
    classifier = Classifier(model, cfg)
    freeze_matching(classifier, classifier.unread())
    images, text, labels = make_inputs(config, cfg, 5)

    reference = reference.double()
    reference.text_decoder.text_projection = None  # gives the decoder's normalised outputs
    head = TorchHead(classifier.head, cfg).double()
    inputs = torch.from_numpy(images).double(), torch.from_numpy(text).long()
    logits = head(torch_features(reference, cfg, *inputs), inputs[1])
    loss = torch.nn.functional.cross_entropy(
        logits, torch.from_numpy(labels).long(), label_smoothing=SMOOTHING, ignore_index=-1
    )
    loss.backward()
    grads = {our_name(key): p.grad for key, p in head.named_parameters()}
    grads |= {OPEN_CLIP.to_mindspore(key): p.grad for key, p in reference.named_parameters()}

    parameters = classifier.trainable_params()
    step = ms.value_and_grad(
        TaskLoss(classifier, SMOOTHING, Ranks()), None, ms.ParameterTuple(parameters), has_aux=True
    )
    values, ours = step(ms.Tensor(images), ms.Tensor(text), ms.Tensor(labels), ms.Tensor(1.0, ms.float32))
    total, right, part, count = (float(value.asnumpy()) for value in values)
    assert abs(total / loss.item() - 1) < 5e-6 and part == total and count == 4
    assert right == int((logits.argmax(1).numpy() == labels).sum())
    # what is trained is all that the logits depend on, no more and no less
    reached = {key for key, grad in grads.items() if grad is not None and grad.abs().max() > 0}
    if model.config.vision_cfg.attentional_pool and cfg.spec.reads_text:
        reached.discard("logit_scale")
    assert {p.name for p in parameters} == reached
    assert_gradients_match({p.name: g.asnumpy().astype(np.float64) for p, g in zip(parameters, ours)}, grads)

    predictor = Predictor(classifier)
    assert relative_difference(predictor(images, text), torch.softmax(logits, -1)) < 1e-5
    if cfg.task == "video_classification":
        check_views(predictor, (config, cfg))


def check_views(predictor: Predictor, inputs: tuple[dict, TaskCfg]) -> None:
    clips = [make_inputs(*inputs, 5, seed)[0] for seed in range(2)]
    each = [predictor(clip, None) for clip in clips]
    assert np.abs(each[0] - each[1]).max() > 1e-3
    predictor.views = 2
    np.testing.assert_allclose(predictor(np.concatenate(clips, 1), None), (each[0] + each[1]) / 2, atol=1e-7)
    predictor.views = 1
    # the order of frames is seen
    assert np.abs(predictor(clips[0][:, ::-1].copy(), None) - each[0]).max() > 1e-4


def test_learning_rates_of_head_and_model():
    config, cfg = CASES["video"]
    classifier = Classifier(from_reference(random_reference(config), config), cfg)
    optimiser = AdamW(classifier, OptimConfig(), Ranks(), encoder_rate=0.1)
    for parameter, group in zip(optimiser.parameters, optimiser.group_of):
        assert optimiser.groups[group][0] == (1.0 if parameter.name.startswith("head.") else 0.1), parameter.name


def test_heads_that_do_not_divide_the_width():
    config = CONFIGS["base"]
    with pytest.raises(InputError, match=r"head\.heads: 3 does not divide"):
        Classifier(from_reference(random_reference(config), config), TaskCfg("classification", list("ab"), heads=3))
