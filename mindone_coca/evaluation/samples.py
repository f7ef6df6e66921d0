"""What to evaluate on: each image or video once, with all that is said of it, read ahead of the model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mindone_coca.captioning.batches import encode_texts
from mindone_coca.captioning.captioner import VideoCaptioner
from mindone_coca.captioning.options import CaptionOptions
from mindone_coca.captioning.reading import ReadAhead, ReadingFailed
from mindone_coca.data.samples import BadSample, Sample, Source
from mindone_coca.data.settings import DataConfig, SourceConfig
from mindone_coca.data.sources import open_unlabelled
from mindone_coca.errors import InputError
from mindone_coca.progress import progress
from mindone_coca.video.frames import read_frames
from mindone_coca.video.pictures import DEFAULT_RULES, PictureRules

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


@dataclass(frozen=True)
class Pictures:
    """The frames of an item as the model takes them, each (3, S, S) float32."""

    pixels: list[np.ndarray]


class Samples:
    """The images and videos of a source, rows of the same one put together, in the order of their first rows.

    Raises InputError for an image without text and for a file that does not exist; reading raises it for one that
    cannot be decoded. Unlike training, evaluation leaves none out.
    """

    def __init__(self, source: Source, rules: PictureRules = DEFAULT_RULES) -> None:
        self._source, self._rules = source, rules
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
        frames = read_frames(sample.encoded, options.frame_type, options.num_frames, self._rules)
        return [frame.image for frame in frames]

    def pictures(self, captioner: VideoCaptioner, options: CaptionOptions, workers: int) -> Iterator[Pictures]:
        """All items as the model takes them, in order, read by threads."""

        def read(number: int) -> Iterator[Pictures]:
            frames = self.frames(number, options)
            try:
                yield Pictures([captioner.transform(frame) for frame in frames])
            except (OSError, ValueError) as error:  # an image of a mode or size that Pillow cannot convert or resize
                raise InputError(f"{self.items[number].name}: cannot be read ({error})") from error

        with ReadAhead(read, workers, options.frames_each) as reader:
            for _, found in reader.files(range(len(self.items))):
                try:
                    yield from found
                except ReadingFailed as error:
                    raise InputError(str(error)) from error

    def features(self, captioner: VideoCaptioner, options: CaptionOptions, workers: int) -> np.ndarray:
        """Image features (N, D) float32, of unit length."""
        encoded = captioner.batches(options).encode(self.pictures(captioner, options, workers))
        return finite(np.stack([one.feature for one in progress(encoded, len(self), "encoding images", "images")]))


def open_samples(config: SourceConfig, rules: PictureRules = DEFAULT_RULES) -> tuple[Source, Samples]:
    """A source of which no row may be bad, and its samples. Raises InputError naming what is wrong."""
    source = open_unlabelled(config, DataConfig(train=None, max_bad_share=0.0))
    return source, Samples(source, rules)


def finite(features: np.ndarray) -> np.ndarray:
    """The features, if they are numbers: NaN compares with nothing and would pass for right."""
    if not np.isfinite(features).all():
        raise InputError("the model's features are not finite; are the weights sound, or is --dtype too small?")
    return features


def text_features(captioner: VideoCaptioner, texts: Sequence[str]) -> np.ndarray:
    """Text features (M, D), of unit length. The same text always has the same ones: it is encoded once."""
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    distinct = list(places)
    starts = range(0, len(distinct), _TEXTS_AT_ONCE)
    blocks = [
        encode_texts(captioner.model, captioner.tokenizer, distinct[start : start + _TEXTS_AT_ONCE])
        for start in progress(starts, len(starts), "encoding captions", "blocks")
    ]
    return finite(np.concatenate(blocks))[[places[text] for text in texts]]


def _sample(source: Source, index: int) -> Sample:
    try:
        return source[index]
    except BadSample as error:
        raise InputError(f"{error.name}: cannot be read ({error.reason})") from error
