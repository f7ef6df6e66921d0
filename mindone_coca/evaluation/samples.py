"""What to evaluate on: each image or video once, with all that is said of it, read ahead of the model."""

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image
from tqdm import tqdm

from mindone_coca.captioning.batches import PassageCaptioner, encode_texts
from mindone_coca.captioning.captioner import VideoCaptioner
from mindone_coca.captioning.options import CaptionOptions
from mindone_coca.captioning.reading import Passage
from mindone_coca.data.samples import BadSample, Sample, Source
from mindone_coca.errors import InputError
from mindone_coca.video.frames import read_frames

Argument = TypeVar("Argument")
Result = TypeVar("Result")
_FRAMES_AHEAD = 32
_TEXTS_AT_ONCE = 256


@dataclass(frozen=True)
class Item:
    """An image or video.

    Attributes:
        index: of its first row in the source.
        captions: or labels, of all its rows; at least one.
        image_id: COCO's, if the source has such.
    """

    index: int
    name: str
    captions: list[str]
    image_id: int | str | None


class Samples:
    """The images and videos of a source, rows of the same one put together, in the order of their first rows.

    Raises InputError for an image without text and for a file that does not exist; reading raises it for one that
    cannot be decoded. Unlike training, evaluation leaves none out.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        items: dict[str, Item] = {}
        for index in range(len(source)):
            sample = _sample(source, index)
            if isinstance(sample.content, Path) and not sample.content.is_file():
                raise InputError(f"{sample.name}: no such file, though the list names it")
            if sample.name in items:
                items[sample.name].captions.extend(sample.captions)
            else:
                items[sample.name] = Item(index, sample.name, list(sample.captions), sample.image_id)
        self.items = list(items.values())
        for item in self.items:
            if not item.captions:
                raise InputError(f"{item.name}: there is no text with it; give it one or remove it")

    def __len__(self) -> int:
        return len(self.items)

    def frames(self, number: int, options: CaptionOptions) -> list[Image.Image]:
        """The frames of item `number` that stand for it."""
        sample = _sample(self._source, self.items[number].index)
        return [frame.image for frame in read_frames(sample.encoded, options.frame_type, options.num_frames)]

    def passages(self, captioner: VideoCaptioner, options: CaptionOptions, workers: int) -> Iterator[Passage]:
        """All items as the model takes them, read by threads; `path` is the item's name."""

        def read(number: int) -> Passage:
            frames = self.frames(number, options)
            try:
                pixels = [captioner.transform(frame) for frame in frames]
            except (OSError, ValueError) as error:  # an image of a mode or size that Pillow cannot convert or resize
                raise InputError(f"{self.items[number].name}: cannot be read ({error})") from error
            return Passage(self.items[number].name, 0.0, 0.0, [0.0] * len(frames), pixels, [])

        ahead = max(workers, _FRAMES_AHEAD // options.frames_each)
        return read_ahead(read, range(len(self.items)), workers, ahead)

    def features(self, captioner: VideoCaptioner, options: CaptionOptions, workers: int) -> np.ndarray:
        """Image features (N, D) float32, of unit length."""
        passages = self.passages(captioner, options, workers)
        encoded = PassageCaptioner(captioner, options, keep_features=False).encode(passages)
        return finite(np.stack([item.feature for item in progress(encoded, len(self), "encoding images", "image")]))


def finite(features: np.ndarray) -> np.ndarray:
    """The features, if they are numbers: NaN compares with nothing and would pass for right."""
    if not np.isfinite(features).all():
        raise InputError("the model's features are not finite; are the weights sound, or is --dtype too small?")
    return features


def progress(items: Iterable[Result], total: int, description: str, unit: str) -> Iterable[Result]:
    """The items, with a bar on standard error where they take long."""
    interval = 1 if sys.stderr.isatty() else 60
    return tqdm(items, total=total, unit=unit, desc=description, mininterval=interval, delay=interval, leave=False)


def text_features(captioner: VideoCaptioner, texts: Sequence[str]) -> np.ndarray:
    """Text features (M, D), of unit length. The same text always has the same ones: it is encoded once."""
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    distinct = list(places)
    starts = range(0, len(distinct), _TEXTS_AT_ONCE)
    blocks = [
        encode_texts(captioner, distinct[start : start + _TEXTS_AT_ONCE])
        for start in progress(starts, len(starts), "encoding captions", "block")
    ]
    return finite(np.concatenate(blocks))[[places[text] for text in texts]]


def read_ahead(
    read: Callable[[Argument], Result], arguments: Sequence[Argument], workers: int, ahead: int
) -> Iterator[Result]:
    """The results in order, at most `ahead` of them computed by threads before they are asked for."""
    waiting: deque = deque()
    pool = ThreadPoolExecutor(workers, "reader")
    try:
        for argument in arguments:
            waiting.append(pool.submit(read, argument))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _sample(source: Source, index: int) -> Sample:
    try:
        return source[index]
    except BadSample as error:
        raise InputError(f"{error.name}: cannot be read ({error.reason})") from error
