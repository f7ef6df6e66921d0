"""Passages in, captions out: the model's part, in batches of few sizes over frames of several files."""

import base64
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import mindspore as ms
import numpy as np

from mindone_coca.captioning.captioner import VideoCaptioner, one_line
from mindone_coca.captioning.options import CaptionOptions
from mindone_coca.captioning.reading import Passage
from mindone_coca.generation.engine import ENCODE_BATCHES, few_sizes

BATCH = ENCODE_BATCHES[0]
SCORE_DECIMALS = 4


@dataclass
class EncodedPassage:
    """A passage's image feature (D,), of unit length, and its tokens for the decoder (K, W), both float32."""

    passage: Passage
    feature: np.ndarray
    tokens: np.ndarray


@dataclass
class Captioned:
    """A passage with its caption: `segment` is what the journal keeps of it."""

    passage: Passage
    segment: dict[str, Any]


@dataclass
class _Fusion:
    """A passage some of whose frames are encoded; several are fused by their mean."""

    passage: Passage
    features: list[np.ndarray] = field(default_factory=list)
    tokens: np.ndarray | None = None

    def add(self, feature: np.ndarray, tokens: np.ndarray) -> None:
        self.features.append(feature)
        self.tokens = tokens if self.tokens is None else self.tokens + tokens

    @property
    def complete(self) -> bool:
        return len(self.features) == len(self.passage.pixels)

    def result(self) -> EncodedPassage:
        count = len(self.features)
        if count == 1:
            return EncodedPassage(self.passage, self.features[0], self.tokens)
        feature = np.mean(self.features, 0)
        return EncodedPassage(self.passage, feature / np.linalg.norm(feature), self.tokens / np.float32(count))


class PassageCaptioner:
    """Captions passages with one model.

    Attributes:
        seconds_busy: time spent in the model so far.
    """

    def __init__(self, captioner: VideoCaptioner, options: CaptionOptions, keep_features: bool) -> None:
        self._captioner, self._model = captioner, captioner.model
        self._options, self._keep_features = options, keep_features
        self.seconds_busy = 0.0

    def __call__(self, passages: Iterable[Passage]) -> Iterator[Captioned]:
        """Caption passages in order; of segments, near-duplicates of the one before are merged into it.

        How passages are batched depends on their number alone, so the same ones always give the same captions.
        """
        encoded = self.encode(passages)
        if self._options.in_segments and self._options.merge_similarity < 1:
            encoded = merge_similar(encoded, self._options.merge_similarity)
        while batch := list(islice(encoded, BATCH)):
            yield from self._caption(batch)

    def encode(self, passages: Iterable[Passage]) -> Iterator[EncodedPassage]:
        """Encode passages in order, each one's frames fused as the options say."""
        return self._encode_whole(passages) if self._options.fusion == "pool" else self._encode_frames(passages)

    def _encode_frames(self, passages: Iterable[Passage]) -> Iterator[EncodedPassage]:
        """Frames of several passages share batches."""
        open_fusions: deque[_Fusion] = deque()
        pixels: deque[np.ndarray] = deque()

        def run(size: int) -> Iterator[EncodedPassage]:
            features, tokens = self._run_tower(np.stack([pixels.popleft() for _ in range(size)]))
            for feature, token in zip(features, tokens):
                open_fusions[0].add(feature, token)
                if open_fusions[0].complete:
                    yield open_fusions.popleft().result()

        for passage in passages:
            open_fusions.append(_Fusion(passage))
            pixels.extend(passage.pixels)
            while len(pixels) >= BATCH:
                yield from run(BATCH)
        for part in few_sizes(len(pixels)):
            yield from run(part.stop - part.start)

    def _run_tower(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        begin = time.perf_counter()
        features, tokens = self._model.encode_image_tokens(images)
        arrays = features.asnumpy(), tokens.astype(ms.float32).asnumpy()
        self.seconds_busy += time.perf_counter() - begin
        return arrays

    def _encode_whole(self, passages: Iterable[Passage]) -> Iterator[EncodedPassage]:
        """The pooler reads all frames of a passage at once."""
        for passage in passages:
            begin = time.perf_counter()
            feature, tokens = self._captioner.encoder(np.stack(passage.pixels))
            arrays = feature.asnumpy()[0], tokens.astype(ms.float32).asnumpy()[0]
            self.seconds_busy += time.perf_counter() - begin
            yield EncodedPassage(passage, *arrays)

    def _caption(self, batch: list[EncodedPassage]) -> Iterator[Captioned]:
        begin = time.perf_counter()
        prompt = self._captioner.prompt_ids(self._options.prompt)
        ids, scores = self._model.generate(
            None, None if prompt is None else np.repeat(prompt, len(batch), 0),
            image_embs=np.stack([item.tokens for item in batch]), return_scores=True, **self._options.generation,
        )  # fmt: skip
        ids, scores = ids.asnumpy(), scores.asnumpy()
        each = len(ids) // len(batch)
        texts = [one_line(self._captioner.tokenizer.decode(row, skip_special_tokens=True)) for row in ids]
        captions = [
            {"caption": text, "score": round(float(score), SCORE_DECIMALS)} for text, score in zip(texts, scores)
        ]
        text_features = encode_texts(self._captioner, texts[::each]) if self._keep_features else None
        self.seconds_busy += time.perf_counter() - begin
        for i, item in enumerate(batch):
            passage = item.passage
            segment = {
                "start": round(passage.start, 6),
                "end": round(passage.end, 6),
                "times": [round(time, 6) for time in passage.times],
                **captions[i * each],
            }
            if each > 1:
                segment["alternatives"] = captions[i * each + 1 : (i + 1) * each]
            if passage.thumbnails:
                segment["thumbnails"] = passage.thumbnails
            if text_features is not None:
                segment["image_feature"] = pack(item.feature)
                segment["text_feature"] = pack(text_features[i])
            yield Captioned(passage, segment)


def merge_similar(encoded: Iterable[EncodedPassage], threshold: float) -> Iterator[EncodedPassage]:
    """Let a passage grow over those after it whose cosine with it is at least `threshold`. Its own frame stays."""
    kept: EncodedPassage | None = None
    for item in encoded:
        if kept is not None and float(kept.feature @ item.feature) >= threshold:
            kept.passage.end = item.passage.end
            continue
        if kept is not None:
            yield kept
        kept = item
    if kept is not None:
        yield kept


def encode_texts(captioner: VideoCaptioner, texts: list[str]) -> np.ndarray:
    """Text features (N, D), of unit length, in batches of few sizes."""
    ids = captioner.tokenizer(texts, captioner.model.text.context_length)
    return np.concatenate([captioner.model.encode_text(ids[part]).asnumpy() for part in few_sizes(len(texts))])


def pack(feature: np.ndarray) -> str:
    """Little-endian float32 in base64."""
    return base64.b64encode(feature.astype("<f4").tobytes()).decode()
