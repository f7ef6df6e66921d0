"""Epochs in batches: sharded by rank, shuffled by (seed, epoch), read in parallel by mindspore.dataset."""

import gc
import json
import logging
import math
import multiprocessing
import shutil
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

import mindspore.dataset as ds
import numpy as np

from mindone_coca.account import shorten
from mindone_coca.data.mixing import Mixture
from mindone_coca.data.samples import BadSample
from mindone_coca.errors import InputError

log = logging.getLogger(__name__)

CHUNK_BYTES = 2**21  # of images that a worker hands over at once
CHUNKS_AHEAD = 18  # that mindspore.dataset keeps in shared memory for each worker: a queue of 16 and one at each end
RANKS_ON_A_HOST = 8  # that share its memory, at most
SHARE_COUNTED_FROM = 1000  # samples; among fewer, one bad one would weigh too much
MAX_BAD_RUN = 100  # so many unreadable samples in a row are no accident

Row = tuple[np.ndarray, np.ndarray, np.ndarray]  # images (k, ...), text (k, T), and JSON: notes, bad samples


@dataclass(frozen=True)
class Reading:
    """One sample as the model takes it."""

    images: np.ndarray  # float32, of the reader's image_shape()
    text: np.ndarray  # (T,) int32
    note: dict[str, Any]  # the rest, as JSON values


class Reader(Protocol):
    """Turns (source, index) into arrays. Every draw depends on (seed, epoch, slot) only, never on what came before."""

    lengths: list[int]  # samples of each source
    text_length: int  # T

    def image_shape(self) -> tuple[int, ...]:
        """The shape of one sample's images."""

    def read(self, source: int, index: int, epoch: int, slot: int) -> Reading:
        """Read sample `index` of source number `source` for its slot in the epoch. Raises BadSample."""


class Batches:
    """The batches of each epoch, which depend on the arguments and the epoch's number only.

    Batch b of rank r of N holds the samples (b N + r) B to (b N + r + 1) B of the epoch's order: N ranks with batches
    of B see together what one process with batches of N B sees.

    Args:
        weights: how the reader's sources are mixed (see Mixture), None for one pass.
        batch_size: B, samples for each rank.
        training: shuffle by (seed, epoch). Otherwise the samples come in order, and all epochs are alike.
        num_workers: parallel readers, at most one for each core; 0 reads where the batches are used.
        max_bad_share: of samples that cannot be read; beyond it an epoch ends with an InputError.
        keep_rest: what is left at the end and fills no batch becomes a last, smaller one on the ranks that it reaches.
            Otherwise it is dropped; after the next shuffle it is another part of the samples.

    Raises InputError when there are fewer samples than one batch over all ranks, unless `keep_rest`.
    """

    def __init__(
        self,
        reader: Reader,
        *,
        batch_size: int,
        seed: int = 0,
        weights: Sequence[float | None] | None = None,
        training: bool = True,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 4,
        max_bad_share: float = 0.05,
        keep_rest: bool = False,
    ):
        if num_workers < 0:
            raise InputError(f"num_workers: {num_workers} must not be negative; 0 decodes without workers")
        if not 0 <= max_bad_share <= 1:
            raise InputError(f"max_bad_share: {max_bad_share} must be from 0 to 1")
        self._reader = reader
        self._mixture = Mixture(reader.lengths, weights or [None] * len(reader.lengths), seed, shuffle=training)
        self._batch_size, self._world_size = batch_size, world_size
        self._training, self._num_workers, self._max_bad_share = training, num_workers, max_bad_share
        self.bad_samples: dict[str, str] = {}  # name -> reason, of all that this process met
        together, count = batch_size * world_size, len(self._mixture)
        whole = np.arange(count // together * together).reshape(-1, world_size, batch_size)[:, rank].ravel()
        rest = np.arange(whole.size * world_size + rank * batch_size, count)[:batch_size]
        self._slots = np.concatenate([whole, rest]) if keep_rest else whole  # this rank's places in an epoch's order
        self.batches_per_epoch = -(-len(self._slots) // batch_size)
        if not self.batches_per_epoch and not keep_rest:
            raise InputError(
                f"batch_size: {batch_size} on each of {world_size} devices is more than the {count} samples there "
                "are; make it smaller"
            )

    @property
    def samples(self) -> int:
        """Samples in an epoch's order, over all ranks, with those that fill no batch."""
        return len(self._mixture)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self.batches_per_epoch

    def _read_epoch(
        self, epoch: int, start_batch: int = 0
    ) -> Generator[tuple[np.ndarray, np.ndarray, list[dict[str, Any]]], None, None]:
        """Images, text and notes of each batch from number `start_batch` on."""
        epoch = epoch if self._training else 0
        slots = self._slots[start_batch * self._batch_size :]
        chunks = _Chunks(self._reader, epoch, slots, self._batch_size, *self._mixture.epoch(epoch))
        tried = bad = 0
        with closing(_rows(chunks, self._num_workers, self._world_size)) as rows:
            for batch in range(self.batches_per_epoch - start_batch):
                images, text, about = zip(*(next(rows) for _ in range(chunks.pieces(batch))), strict=True)
                about = [json.loads(block.tobytes()) for block in about]
                notes = [note for block in about for note in block["notes"]]
                passed_over = [pair for block in about for pair in block["bad"]]
                tried, bad = tried + len(notes) + len(passed_over), bad + len(passed_over)
                self._report(passed_over)
                self._check_share(bad, tried, stuck=any(block["stuck"] for block in about))
                yield np.concatenate(images), np.concatenate(text), notes

    def _report(self, passed_over: list[tuple[str, str]]) -> None:
        for name, reason in passed_over:
            if name not in self.bad_samples:
                self.bad_samples[name] = reason
                log.warning("%s cannot be read and is skipped: %s", shorten(name, 1000), shorten(reason, 1000))

    def _check_share(self, bad: int, tried: int, stuck: bool) -> None:
        if stuck or bad > self._max_bad_share * max(tried, min(len(self._slots), SHARE_COUNTED_FROM)):
            name, reason = list(self.bad_samples.items())[-1]
            raise InputError(
                f"{bad} of {tried} samples cannot be read, more than max_bad_share {self._max_bad_share:g} allows or "
                f"too many in a row; the last: {shorten(name, 1000)}: {shorten(reason, 1000)}"
            )


class _Chunks:
    """The samples of the remaining batches in pieces that are read at once; random access for GeneratorDataset."""

    def __init__(
        self,
        reader: Reader,
        epoch: int,
        slots: np.ndarray,
        batch_size: int,
        sources: np.ndarray,
        indices: np.ndarray,
    ):
        """`slots`: places in the epoch's order, which is `sources` and `indices` in them; B of them make a batch."""
        self._reader, self._epoch, self._slots, self._batch_size = reader, epoch, slots, batch_size
        self._sources, self._indices = sources[slots], indices[slots]
        image_bytes = 4 * math.prod(reader.image_shape())
        self._size = max(1, min(batch_size, CHUNK_BYTES // image_bytes))
        self.bytes_each = self._size * image_bytes
        self._per_batch = -(-batch_size // self._size)

    def pieces(self, batch: int) -> int:
        """How many chunks make the batch."""
        return -(-min(self._batch_size, len(self._slots) - batch * self._batch_size) // self._size)

    def __len__(self) -> int:
        whole, rest = divmod(len(self._slots), self._batch_size)
        return whole * self._per_batch + -(-rest // self._size)

    def __getitem__(self, number: int) -> Row:
        batch, piece = divmod(int(number), self._per_batch)
        start, end = batch * self._batch_size + piece * self._size, (batch + 1) * self._batch_size
        part = slice(start, min(start + self._size, end))
        bad: list[tuple[str, str]] = []
        places = zip(*(array[part].tolist() for array in (self._sources, self._indices, self._slots)), strict=True)
        tried = [self._read(source, index, slot, bad) for source, index, slot in places]
        readings = [reading for reading in tried if reading is not None]
        stuck = len(readings) < len(tried)
        if stuck:
            blank = Reading(np.zeros(self._reader.image_shape(), np.float32), np.zeros(self._reader.text_length), {})
            readings = [blank] * len(tried)
        about = {"notes": [reading.note for reading in readings], "bad": bad, "stuck": stuck}
        images = np.stack([reading.images for reading in readings])
        text = np.stack([reading.text for reading in readings]).astype(np.int32)
        return images, text, np.frombuffer(json.dumps(about).encode(), np.uint8)

    def _read(self, source: int, index: int, slot: int, bad: list[tuple[str, str]]) -> Reading | None:
        """The sample, or in place of one that cannot be read the next of its source: so a batch keeps its shape, and
        the same seed gives the same batches wherever the run starts and however many processes read."""
        length = self._reader.lengths[source]
        for step in range(min(length, MAX_BAD_RUN)):
            try:
                return self._reader.read(source, (index + step) % length, self._epoch, slot)
            except BadSample as error:
                bad.append((error.name, error.reason))
        return None


def _rows(chunks: _Chunks, num_workers: int, world_size: int) -> Generator[Row, None, None]:
    """The chunks in order, read ahead by workers.

    These are processes, because threads are slower than a single one for small images, unless the shared memory is
    too small to hand the images over, as in a container with the usual 64 MB: then they are threads.
    """
    if num_workers == 0:
        yield from (chunks[number] for number in range(len(chunks)))
        return
    if not len(chunks):  # mindspore.dataset refuses to read nothing
        return
    num_workers = min(num_workers, multiprocessing.cpu_count())  # mindspore.dataset refuses more
    needed = min(world_size, RANKS_ON_A_HOST) * num_workers * CHUNKS_AHEAD * chunks.bytes_each
    processes = num_workers > 1 and shutil.disk_usage("/dev/shm").free > needed
    if num_workers > 1 and not processes:
        log.warning("/dev/shm has not the %d MB that worker processes need; using threads", needed >> 20)
    if processes:
        # a worker that freed what is garbage now might wait forever, as for FFmpeg's threads, which no fork takes along
        gc.collect()
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
