"""Frames in, captions out: the model's part, in batches of few sizes over frames of several files."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Generic, Protocol, TypeVar

import mindspore as ms
import numpy as np
from mindspore import Tensor

from mindone_coca import batch_sizes, graph_cache
from mindone_coca.captioning.options import CaptionOptions
from mindone_coca.model.base import ImageTextModel
from mindone_coca.model.video import VideoEncoder, check_fusion
from mindone_coca.preprocess.tokenizer import Tokenizer
from mindone_coca.tensors import normalize

SCORE_DECIMALS = 4


class Framed(Protocol):
    """Something that gets one caption."""

    @property
    def pixels(self) -> Sequence[np.ndarray]:
        """Each frame as the model takes it, (3, S, S) float32."""


Item = TypeVar("Item", bound=Framed)


@dataclass(frozen=True)
class ScoredText:
    """A caption, one line, and the mean log-probability of its tokens.

    Attributes:
        rank_score: what beam search prefers captions by, which may order them otherwise than `score`; None: sampled.
    """

    text: str
    score: float | None  # None: not a number
    rank_score: float | None = None


@dataclass(frozen=True)
class Caption(ScoredText):
    """The best caption of an item.

    Attributes:
        alternatives: further ones, best first by `rank_score`, if several were asked for.
        image_feature, text_feature: (D,) float32, of unit length, if they were asked for.
    """

    alternatives: list[ScoredText] = field(default_factory=list)
    image_feature: np.ndarray | None = None
    text_feature: np.ndarray | None = None


@dataclass
class Encoded(Generic[Item]):
    """An item's image feature (D,), of unit length, and its tokens for the decoder (K, W), both float32."""

    item: Item
    feature: np.ndarray
    tokens: np.ndarray


@dataclass
class _Fusion(Generic[Item]):
    """An item some of whose frames are encoded; several are fused by their mean."""

    item: Item
    features: list[np.ndarray] = field(default_factory=list)
    tokens: np.ndarray | None = None

    def add(self, feature: np.ndarray, tokens: np.ndarray) -> None:
        self.features.append(feature)
        self.tokens = tokens if self.tokens is None else self.tokens + tokens

    @property
    def complete(self) -> bool:
        return len(self.features) == len(self.item.pixels)

    def result(self) -> Encoded[Item]:
        count = len(self.features)
        if self.tokens is None:
            raise ValueError("an item without frames has nothing to caption")
        if count == 1:
            return Encoded(self.item, self.features[0], self.tokens)
        feature = np.mean(self.features, 0)
        return Encoded(self.item, feature / np.linalg.norm(feature), self.tokens / np.float32(count))


class BatchCaptioner:
    """Captions items with one model: the one way from frames to captions.

    Args:
        keep_features: encode the captions too, and keep both features with them.

    Attributes:
        seconds_busy: time spent in the model so far.

    Raises:
        InputError: a fusion of frames that the model does not have.
    """

    def __init__(
        self, model: ImageTextModel, tokenizer: Tokenizer, options: CaptionOptions, keep_features: bool = False
    ) -> None:
        check_fusion(model, options.fusion)
        self._model, self._tokenizer, self._options, self._keep_features = model, tokenizer, options, keep_features
        self._batch = options.batch
        self._video_encoder = VideoEncoder(model, "pool") if options.fusion == "pool" else None
        self.seconds_busy = 0.0

    def __call__(self, items: Iterable[Item]) -> Iterator[tuple[Item, Caption]]:
        """Caption items in order; of segments, near-duplicates of the one before are merged into it.

        How items are batched depends on their number alone, so the same ones always give the same captions.
        """
        encoded = self.encode(items)
        if self._options.in_segments and self._options.merge_similarity < 1:
            encoded = merge_similar(encoded, self._options.merge_similarity)
        while batch := list(islice(encoded, self._batch)):
            begin = time.perf_counter()
            captions = self._caption(batch)
            self.seconds_busy += time.perf_counter() - begin
            yield from zip((one.item for one in batch), captions)

    def encode(self, items: Iterable[Item]) -> Iterator[Encoded[Item]]:
        """Encode items in order, each one's frames fused as the options say."""
        return self._encode_frames(items) if self._video_encoder is None else self._encode_whole(items)

    def _encode_frames(self, items: Iterable[Item]) -> Iterator[Encoded[Item]]:
        """Frames of several items share batches."""
        open_fusions: deque[_Fusion[Item]] = deque()
        pixels: deque[np.ndarray] = deque()

        def run(size: int) -> Iterator[Encoded[Item]]:
            features, tokens = self._run_tower(np.stack([pixels.popleft() for _ in range(size)]))
            for feature, token in zip(features, tokens):
                open_fusions[0].add(feature, token)
                if open_fusions[0].complete:
                    yield open_fusions.popleft().result()

        for item in items:
            open_fusions.append(_Fusion(item))
            pixels.extend(item.pixels)
            while len(pixels) >= self._batch:
                yield from run(self._batch)
        for part in batch_sizes.parts(len(pixels)):
            yield from run(part.stop - part.start)

    def _run_tower(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        begin = time.perf_counter()
        features, tokens = self._model.encode_image_tokens(images)
        arrays = features.asnumpy(), tokens.astype(ms.float32).asnumpy()
        self.seconds_busy += time.perf_counter() - begin
        return arrays

    def _encode_whole(self, items: Iterable[Item]) -> Iterator[Encoded[Item]]:
        """The pooler reads all frames of an item at once."""
        for item in items:
            begin = time.perf_counter()
            latent, tokens = graph_cache.call(self._video_encoder, Tensor(np.stack(item.pixels)[None]))
            arrays = normalize(latent).asnumpy()[0], tokens.astype(ms.float32).asnumpy()[0]
            self.seconds_busy += time.perf_counter() - begin
            yield Encoded(item, *arrays)

    def _caption(self, batch: list[Encoded]) -> list[Caption]:
        ids, *scores = self._model.generate(
            None,
            self._prompts(len(batch)),
            image_embs=np.stack([one.tokens for one in batch]),
            return_scores=True,
            return_rank_scores=True,
            **self._options.generation,
        )
        texts = [one_line(self._tokenizer.decode(row, skip_special_tokens=True)) for row in ids.asnumpy()]
        scored = [ScoredText(text, *map(_rounded, both)) for text, *both in zip(texts, *(s.asnumpy() for s in scores))]
        each = len(scored) // len(batch)
        captions = [
            Caption(best.text, best.score, best.rank_score, others)
            for best, *others in (scored[i : i + each] for i in range(0, len(scored), each))
        ]
        if not self._keep_features:
            return captions
        features = encode_texts(self._model, self._tokenizer, [caption.text for caption in captions])
        return [
            replace(caption, image_feature=one.feature, text_feature=feature)
            for caption, one, feature in zip(captions, batch, features)
        ]

    def _prompts(self, count: int) -> np.ndarray | None:
        """The start token and the prompt's tokens for each of a batch, (B, P)."""
        if self._options.prompt is None:
            return None
        ids = [self._tokenizer.sot_token_id, *self._tokenizer.encode(self._options.prompt)]
        return np.repeat(np.array([ids]), count, 0)


def _rounded(score: np.floating) -> float | None:
    return None if np.isnan(score) else round(float(score), SCORE_DECIMALS)


def merge_similar(encoded: Iterable[Encoded], threshold: float) -> Iterator[Encoded]:
    """Let a segment grow over those after it, of its file, whose cosine with it is at least `threshold`. Its own frame
    stays."""
    kept: Encoded | None = None
    for one in encoded:
        same = kept is not None and kept.item.path == one.item.path
        if kept is not None and same and float(kept.feature @ one.feature) >= threshold:
            kept.item.end = one.item.end
            continue
        if kept is not None:
            yield kept
        kept = one
    if kept is not None:
        yield kept


def encode_texts(model: ImageTextModel, tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    """Text features (N, D), of unit length, in batches of few sizes."""
    ids = tokenizer(texts, model.text.context_length)
    return np.concatenate([model.encode_text(ids[part]).asnumpy() for part in batch_sizes.parts(len(texts))])


def one_line(caption: str) -> str:
    """The caption with its white space, line ends too, as single spaces."""
    return " ".join(caption.split())
