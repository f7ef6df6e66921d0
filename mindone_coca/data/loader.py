"""Batches of images and captions for training."""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from mindone_coca.data.batches import Batches
from mindone_coca.data.reading import SampleReader
from mindone_coca.data.samples import Source
from mindone_coca.data.settings import DataConfig
from mindone_coca.data.sources import open_sources
from mindone_coca.video.pictures import DEFAULT_RULES, PictureRules


@dataclass(frozen=True)
class Batch:
    """The part of a batch that one rank gets; its shapes are the same for every batch."""

    images: np.ndarray  # (B, 3, S, S) float32, or (B, F, 3, S, S) with frame_type multi_frames
    text: np.ndarray  # (B, T) int32
    names: list[str]  # of the files
    captions: list[str]  # what `text` says


class TrainingData(Batches):
    """The batches of each epoch, which depend on the arguments and the epoch's number only (see Batches).

    Args:
        sources: where the samples come from.
        tokenizer: `tokenizer([caption], context_length=T)` -> (1, T) int32.
        transform: `transform(image, seed)` -> (3, S, S) float32 when training, else `transform(image)`.
        training: shuffle, and draw captions, frames and crops by (seed, epoch, place in the order). Otherwise the
            samples come in order, with their first captions, and all epochs are alike.
        frame_type: "middle" or "random" take one frame of a video; "multi_frames" takes `num_frames`, and that many
            times the same image where there is no video.
        rules: how still pictures are read.
        options: batch_size, weights, rank, world_size, num_workers, max_bad_share of Batches.

    Raises InputError when there are fewer samples than one batch over all ranks.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        tokenizer: Callable[..., np.ndarray],
        transform: Callable[..., np.ndarray],
        *,
        context_length: int,
        seed: int = 0,
        training: bool = True,
        frame_type: str = "middle",
        num_frames: int = 16,
        rules: PictureRules = DEFAULT_RULES,
        **options,
    ):
        reader = SampleReader(
            sources,
            tokenizer,
            transform,
            context_length=context_length,
            seed=seed,
            training=training,
            frame_type=frame_type,
            num_frames=num_frames,
            rules=rules,
        )
        super().__init__(reader, seed=seed, training=training, **options)

    def epoch(self, epoch: int, start_batch: int = 0) -> Generator[Batch, None, None]:
        """The batches of an epoch from number `start_batch` on, bit for bit those of an uninterrupted epoch.

        Close the iterator when an epoch is left early: that ends the workers.

        A sample that cannot be read is logged once by name, kept in `bad_samples`, and replaced by the next of its
        source. Raises InputError when there are more of them in this epoch than `max_bad_share` of the samples tried
        so far (or of the first 1000), or a hundred in a row.
        """
        with closing(self._read_epoch(epoch, start_batch)) as batches:
            for images, text, notes in batches:
                yield Batch(images, text, [note["name"] for note in notes], [note["caption"] for note in notes])


def open_data(
    config: DataConfig,
    tokenizer: Callable[..., np.ndarray],
    transform: Callable[..., np.ndarray],
    *,
    batch_size: int,
    context_length: int,
    seed: int = 0,
    training: bool = True,
    rank: int = 0,
    world_size: int = 1,
) -> TrainingData:
    """The data of a config: `train`, or with `training=False` its `val`. Raises InputError naming what is wrong."""
    where = "data.train" if training else "data.val"
    sources, weights = open_sources(config.train if training else config.val, config, where)
    return TrainingData(
        sources,
        tokenizer,
        transform,
        batch_size=batch_size,
        context_length=context_length,
        seed=seed,
        weights=weights,
        training=training,
        rank=rank,
        world_size=world_size,
        num_workers=config.num_workers,
        max_bad_share=config.max_bad_share,
        frame_type=config.frame_type,
        num_frames=config.num_frames,
        rules=config.picture_rules,
    )
