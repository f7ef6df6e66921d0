"""Batches for training: sharded by rank, shuffled by (seed, epoch), decoded in parallel by mindspore.dataset."""

import json
import logging
import math
import multiprocessing
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import mindspore.dataset as ds
import numpy as np

from ..errors import InputError
from .mixing import Mixture
from .reading import SampleReader
from .samples import Source
from .settings import DataConfig
from .sources import open_sources

log = logging.getLogger(__name__)

CHUNK_BYTES = 2**21  # of images that a worker hands over at once
CHUNKS_AHEAD = 18  # that mindspore.dataset keeps in shared memory for each worker: a queue of 16 and one at each end
RANKS_ON_A_HOST = 8  # that share its memory, at most
SHARE_COUNTED_FROM = 1000  # samples; among fewer, one bad one would weigh too much

Row = tuple[np.ndarray, np.ndarray, np.ndarray]  # images (k, 3, S, S), text (k, T), and JSON: names, captions, ...


@dataclass(frozen=True)
class Batch:
    """The part of a batch that one rank gets; its shapes are the same for every batch."""

    images: np.ndarray  # (B, 3, S, S) float32, or (B, F, 3, S, S) with frame_type multi_frames
    text: np.ndarray  # (B, T) int32
    names: list[str]  # of the files
    captions: list[str]  # what `text` says


class TrainingData:
    """The batches of each epoch, which depend on the arguments and the epoch's number only.

    Batch b of rank r of N holds the samples (b N + r) B to (b N + r + 1) B of the epoch's order: N ranks with batches
    of B see together what one process with batches of N B sees. What is left at the end and fills no batch is
    dropped; after the next shuffle it is another part of the samples.

    Args:
        sources: where the samples come from; `weights` says how they are mixed (see Mixture), None for one pass.
        tokenizer: `tokenizer([caption], context_length=T)` -> (1, T) int32.
        transform: `transform(image, seed)` -> (3, S, S) float32 when training, else `transform(image)`.
        batch_size: B, samples for each rank.
        training: shuffle, and draw captions, frames and crops by (seed, epoch, place in the order). Otherwise the
            samples come in order, with their first captions, and all epochs are alike.
        num_workers: parallel decoders, at most one for each core; 0 decodes where the batches are used.
        max_bad_share: see `epoch`.
        frame_type: "middle" or "random" take one frame of a video; "multi_frames" takes `num_frames`, and that many
            times the same image where there is no video.

    Raises InputError when there are fewer samples than one batch over all ranks.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        tokenizer: Callable[..., np.ndarray],
        transform: Callable[..., np.ndarray],
        *,
        batch_size: int,
        context_length: int,
        seed: int = 0,
        weights: Sequence[float | None] | None = None,
        training: bool = True,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 4,
        max_bad_share: float = 0.05,
        frame_type: str = "middle",
        num_frames: int = 16,
    ):
        if num_workers < 0:
            raise InputError(f"num_workers: {num_workers} must not be negative; 0 decodes without workers")
        if not 0 <= max_bad_share <= 1:
            raise InputError(f"max_bad_share: {max_bad_share} must be from 0 to 1")
        lengths = [len(source) for source in sources]
        self._mixture = Mixture(lengths, weights or [None] * len(lengths), seed, shuffle=training)
        self._reader = SampleReader(
            sources,
            tokenizer,
            transform,
            context_length=context_length,
            seed=seed,
            training=training,
            frame_type=frame_type,
            num_frames=num_frames,
        )
        self._batch_size, self._rank, self._world_size = batch_size, rank, world_size
        self._training, self._num_workers, self._max_bad_share = training, num_workers, max_bad_share
        self.bad_samples: dict[str, str] = {}  # name -> reason, of all that this process met
        self.batches_per_epoch = len(self._mixture) // (batch_size * world_size)
        if not self.batches_per_epoch:
            raise InputError(
                f"batch_size: {batch_size} on each of {world_size} devices is more than the {len(self._mixture)} "
                "samples there are; make it smaller"
            )

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self.batches_per_epoch

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `start_batch` on, bit for bit those of an uninterrupted epoch.

        Close the iterator when an epoch is left early: that ends the workers.

        A sample that cannot be read is logged once by name, kept in `bad_samples`, and replaced by the next of its
        source. Raises InputError when there are more of them in this epoch than `max_bad_share` of the samples tried
        so far (or of the first 1000), or a hundred in a row.
        """
        epoch = epoch if self._training else 0
        used = np.arange(self.batches_per_epoch * self._world_size * self._batch_size)
        slots = used.reshape(self.batches_per_epoch, self._world_size, self._batch_size)[start_batch:, self._rank]
        chunks = _Chunks(self._reader, epoch, slots, *self._mixture.epoch(epoch))
        tried = bad = 0
        with closing(_rows(chunks, self._num_workers, self._world_size)) as rows:
            for _ in slots:
                images, text, notes = zip(*(next(rows) for _ in range(chunks.per_batch)), strict=True)
                notes = [json.loads(note.tobytes()) for note in notes]
                passed_over = [pair for note in notes for pair in note["bad"]]
                tried, bad = tried + self._batch_size + len(passed_over), bad + len(passed_over)
                self._report(passed_over)
                self._check_share(bad, tried, stuck=any(note["stuck"] for note in notes))
                names, captions = ([item for note in notes for item in note[key]] for key in ("names", "captions"))
                yield Batch(np.concatenate(images), np.concatenate(text), names, captions)

    def _report(self, passed_over: list[tuple[str, str]]) -> None:
        for name, reason in passed_over:
            if name not in self.bad_samples:
                self.bad_samples[name] = reason
                log.warning("%s cannot be read and is skipped: %s", name, reason)

    def _check_share(self, bad: int, tried: int, stuck: bool) -> None:
        whole_epoch = self.batches_per_epoch * self._batch_size
        if stuck or bad > self._max_bad_share * max(tried, min(whole_epoch, SHARE_COUNTED_FROM)):
            name, reason = list(self.bad_samples.items())[-1]
            raise InputError(
                f"{bad} of {tried} samples cannot be read, more than max_bad_share {self._max_bad_share:g} allows or "
                f"too many in a row; the last: {name}: {reason}"
            )


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
    )


class _Chunks:
    """The samples of the remaining batches in pieces that are read at once; random access for GeneratorDataset."""

    def __init__(self, reader: SampleReader, epoch: int, slots: np.ndarray, sources: np.ndarray, indices: np.ndarray):
        """`slots` (batches, B): places in the epoch's order, which is `sources` and `indices` in them."""
        self._reader, self._epoch, self._slots = reader, epoch, slots
        self._sources, self._indices = sources[slots], indices[slots]
        batch_size, image_bytes = slots.shape[1], 4 * math.prod(reader.image_shape())
        self._size = max(1, min(batch_size, CHUNK_BYTES // image_bytes))
        self.bytes_each = self._size * image_bytes
        self.per_batch = -(-batch_size // self._size)

    def __len__(self) -> int:
        return len(self._slots) * self.per_batch

    def __getitem__(self, number: int) -> Row:
        batch, piece = divmod(int(number), self.per_batch)
        part = slice(piece * self._size, (piece + 1) * self._size)
        places = zip(
            *(array[batch, part].tolist() for array in (self._sources, self._indices, self._slots)), strict=True
        )
        readings = [
            self._reader.read(int(source), int(index), self._epoch, int(slot)) for source, index, slot in places
        ]
        note = {
            "names": [reading.name for reading in readings],
            "captions": [reading.caption for reading in readings],
            "bad": [pair for reading in readings for pair in reading.bad],
            "stuck": any(reading.stuck for reading in readings),
        }
        images = np.stack([reading.images for reading in readings])
        text = np.stack([reading.text for reading in readings])
        return images, text, np.frombuffer(json.dumps(note).encode(), np.uint8)


def _rows(chunks: _Chunks, num_workers: int, world_size: int) -> Iterator[Row]:
    """The chunks in order, read ahead by workers.

    These are processes, because threads are slower than a single one for small images, unless the shared memory is
    too small to hand the images over, as in a container with the usual 64 MB: then they are threads.
    """
    if num_workers == 0:
        yield from (chunks[number] for number in range(len(chunks)))
        return
    num_workers = min(num_workers, multiprocessing.cpu_count())  # mindspore.dataset refuses more
    needed = min(world_size, RANKS_ON_A_HOST) * num_workers * CHUNKS_AHEAD * chunks.bytes_each
    processes = num_workers > 1 and shutil.disk_usage("/dev/shm").free > needed
    if num_workers > 1 and not processes:
        log.warning("/dev/shm has not the %d MB that worker processes need; using threads", needed >> 20)
    dataset = ds.GeneratorDataset(
        chunks,
        ["images", "text", "note"],
        shuffle=False,
        num_parallel_workers=num_workers,
        python_multiprocessing=processes,
    )
    iterator = dataset.create_tuple_iterator(num_epochs=1, output_numpy=True)
    try:
        yield from iterator
    finally:  # also when an epoch is left early: the workers end with the iterator
        iterator.stop()
