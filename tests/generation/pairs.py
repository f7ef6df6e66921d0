"""Pairs of an open_clip model and ours with the same weights: small, and such that captions end early now and then."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from unittest import mock

import numpy as np

from mindone_coca.model.open_clip.model import CoCa
from tests.models import from_reference, make_config
from tests.reference import ReferenceCoCa, random_reference, torch

CONTEXT = 40  # two cache lengths: 32 and 40

_LONG = {"context_length": CONTEXT}
_ONE_LAYER = {**_LONG, "layers": 1}
CONFIGS = {
    "base": make_config(vision={"layers": 1}, text=_ONE_LAYER, multimodal=_ONE_LAYER),
    "odd_sizes": make_config(
        {"embed_dim": 36, "pad_id": 5},
        vision={"image_size": (30, 44), "patch_size": (7, 9), "layers": 1, "attn_pooler_heads": 3},
        text={**_LONG, "width": 36, "heads": 3, "ls_init_value": 0.3, "vocab_size": 333, "pad_id": 3},
        multimodal={**_LONG, "width": 36, "heads": 6, "ls_init_value": 0.5},
    ),
    "packed": make_config(
        {"quick_gelu": True},
        vision={"width": 32, "head_width": 8, "pool_type": "avg", "layers": 1},
        text=_ONE_LAYER,
        multimodal=_ONE_LAYER,
    ),
    "no_class_token": make_config(
        vision={"layers": 1}, text={**_ONE_LAYER, "embed_cls": False, "pool_type": "argmax"}, multimodal=_ONE_LAYER
    ),
    "bidirectional": make_config(
        vision={"layers": 1}, text={**_ONE_LAYER, "no_causal_mask": True}, multimodal=_ONE_LAYER
    ),
}
# how much the end token, and tokens that are padding to the text mask or to `generate`, are favoured: each shall come
# in some captions and not in others
_END = -1
_FAVOUR: dict[str, dict[int, float]] = {
    "base": {_END: 5, 0: 4},
    "odd_sizes": {_END: 3, 0: 2, 3: 3.5, 5: 3.5},
    "packed": {_END: 3, 0: 5},
    "no_class_token": {_END: 4, 0: 3},
    "bidirectional": {_END: 5.5, 0: 2},
}


@dataclass(frozen=True)
class Pair:
    """One set of random weights in open_clip (`reference`) and in ours (`model`)."""

    config: dict
    reference: ReferenceCoCa
    model: CoCa

    @property
    def vocab_size(self) -> int:
        return self.config["text_cfg"]["vocab_size"]

    @property
    def start(self) -> int:
        return self.vocab_size - 2

    @property
    def end(self) -> int:
        return self.vocab_size - 1

    @property
    def pad(self) -> int:
        return self.config.get("pad_id", 0)

    @property
    def ids(self) -> dict[str, int]:
        return {"sot_token_id": self.start, "eos_token_id": self.end}

    def images(self, count: int, seed: int = 0) -> np.ndarray:
        size = self.config["vision_cfg"]["image_size"]
        size = size if isinstance(size, tuple) else (size, size)
        # a colour for each image, so that captions differ
        rng = np.random.default_rng(seed)
        images = rng.standard_normal((count, 3, *size)) + 2 * rng.standard_normal((count, 3, 1, 1))
        return images.astype(np.float32)

    def prompt(self, count: int, length: int, seed: int = 0) -> np.ndarray:
        """Start token, then random tokens, 0 and repeated ones among them."""
        rng = np.random.default_rng(seed)
        prompt = rng.integers(6, self.start, (count, length))
        prompt[:, 0] = self.start
        if length > 3:
            prompt[0, 2] = 0
            prompt[-1, 3] = prompt[-1, 1]
        return prompt

    def theirs(self, images: np.ndarray, text: np.ndarray | None = None, **options) -> np.ndarray:
        """Captions by open_clip's generate."""
        prompt = None if text is None else torch.from_numpy(np.asarray(text))
        with torch.no_grad():
            return self.reference.generate(torch.from_numpy(images), prompt, **{**self.ids, **options}).numpy()

    def ours(self, images: np.ndarray | None, text: np.ndarray | None = None, **options):
        """Captions by ours, as arrays."""
        output = self.model.generate(images, text, **{**self.ids, **options})
        return tuple(part.asnumpy() for part in output) if isinstance(output, tuple) else output.asnumpy()

    def reference_logits(self, images: np.ndarray, ids: np.ndarray) -> torch.Tensor:
        """open_clip's logits (B, T, V)."""
        with torch.no_grad():
            return self.reference(torch.from_numpy(images), torch.from_numpy(ids), output_labels=False)["logits"]


def favour(reference: ReferenceCoCa, tokens: Mapping[int, float]) -> None:
    """Turn one channel into a constant, and through it raise these tokens' logits."""
    decoder = reference.text_decoder
    with torch.no_grad():
        decoder.ln_final.weight[0], decoder.ln_final.bias[0] = 0, 1
        decoder.text_projection[0] = 0
        for token, amount in tokens.items():
            decoder.text_projection[0, token] = amount


def let_short_text_run(reference: ReferenceCoCa) -> None:
    """Without a class token open_clip runs full-length text only; padding changes nothing before it, so pad and cut."""
    forward = reference.forward

    def padded(image, text, *args, **kwargs):
        count = text.shape[1]
        output = forward(image, torch.nn.functional.pad(text, (0, CONTEXT - count)), *args, **kwargs)
        return {**output, "logits": output["logits"][:, :count]}

    reference.forward = padded


@cache
def get_pair(name: str) -> Pair:
    """Built, and so compiled, once for all tests."""
    config = CONFIGS[name]
    reference = random_reference(config, seed=3 if name == "base" else 1, logit_std=3)
    favour(reference, _FAVOUR[name])
    model = from_reference(reference, config)
    if name == "no_class_token":
        let_short_text_run(reference)
    return Pair(config, reference, model)


@contextmanager
def sampling_by(uniforms: Iterable[float]) -> Iterator[None]:
    """torch.multinomial by these uniform numbers: inverse CDF in the order of ids, in float64."""
    stream = iter(uniforms)

    def draw(probabilities: torch.Tensor, count: int) -> torch.Tensor:
        assert count == 1
        cumulated = np.cumsum(probabilities.double().numpy(), 1)
        threshold = np.array([next(stream) for _ in cumulated])[:, None] * cumulated[:, -1:]
        return torch.from_numpy((cumulated <= threshold).sum(1, keepdims=True))

    with mock.patch.object(torch, "multinomial", draw):
        yield


def sample_both(pair: Pair, images: np.ndarray, text: np.ndarray | None = None, seed: int = 0, **options):
    """Captions by open_clip and by ours, sampled with the same uniform numbers."""
    uniforms = np.random.default_rng(seed).random(4000, np.float32).astype(np.float64)
    with sampling_by(uniforms):
        theirs = pair.theirs(images, text, **options)
    return theirs, pair.ours(images, text, uniforms=uniforms, **options)


def mean_log_probs(
    pair: Pair, images: np.ndarray, ids: np.ndarray, prompt_length: int, ends: Callable[[int], bool]
) -> np.ndarray:
    """Mean log-probability of each row's tokens after the prompt, up to the first that ends it: one pass of open_clip
    over the whole caption."""
    log_probs = torch.log_softmax(pair.reference_logits(images, ids[:, :-1].astype(np.int64)).double(), -1).numpy()
    means = []
    for row, tokens in zip(log_probs, ids):
        stop = next((i for i in range(prompt_length, len(tokens)) if ends(tokens[i])), len(tokens) - 1) + 1
        means.append(np.mean([row[i - 1, tokens[i]] for i in range(prompt_length, stop)]))
    return np.array(means)
