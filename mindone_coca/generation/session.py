"""One decoding run over a batch of images: which image sits in which rows of the device's cache."""

from collections.abc import Iterable, Mapping

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from mindone_coca import batch_sizes, graph_cache
from mindone_coca.generation.cache import UNUSED, KeyValueCache, round_up
from mindone_coca.generation.engine import DecodeEngine


class DecodeSession:
    """Feeds rows of tokens to the engine and brings back what a scorer makes of each row's logits.

    Images are padded to one of few slots. Every image has the same number of rows (beams). Images that are not
    asked for any more are finished: when fewer slots would do, the cache moves to the smaller batch.

    Args:
        image_embs: image tokens (B, K, D).
        rows_each: rows of each image after the prompt, on which all of them agree.
        longest: the most tokens that will be run.
        score: a cell (logits (R, V), ids (R, L), its settings) -> a tuple of tensors (R, ...); its attributes
            `settings` and `outputs` are the numbers of both.
    """

    def __init__(self, engine: DecodeEngine, image_embs: Tensor, rows_each: int, longest: int, score: nn.Cell) -> None:
        self.engine, self.rows_each, self.score = engine, rows_each, score
        self.cache_length = round_up(longest, engine.cache_sizes) if engine.cacheable else 0
        self.cache: KeyValueCache | None = None  # filled by the prompt
        count = image_embs.shape[0]
        padded = batch_sizes.padded(count)
        if padded > count:
            image_embs = ops.concat((image_embs, ops.tile(image_embs[-1:], (padded - count, 1, 1))), 0)
        self.image_embs = image_embs
        self.cross: tuple[Tensor, ...] = ()
        self.slots: list[int | None] = [*range(count), *[None] * (padded - count)]
        self.lineage = np.full((padded, rows_each, self.cache_length), UNUSED, np.int32)
        if not self.cache_length:
            self._share_nothing()

    def _share_nothing(self) -> None:
        """Without a cache every row runs whole, with its image's keys and values for itself."""
        if not self.cross:
            self.cross = tuple(graph_cache.call(self.engine.cells.cross_projection, self.image_embs))
        self._pick_images(np.repeat(np.arange(len(self.slots)), self.rows_each))

    def _pick_images(self, slots: np.ndarray) -> None:
        index = Tensor(slots.astype(np.int32))
        # matrices are weights, the others have images first
        self.cross = tuple(t if t.ndim == 2 else ops.gather(t, index, 0) for t in self.cross)

    def drop_cache(self) -> None:
        """From now on run whole rows: the window slides, so every position changes."""
        if self.cache_length:
            self.cache_length, self.cache = 0, None
            self._share_nothing()

    def _shrink(self, images: set[int]) -> None:
        """Move to fewer slots if those suffice for the images that go on."""
        size = batch_sizes.padded(len(images))
        if size == len(self.slots) or not batch_sizes.may_shrink() or (self.cache_length and self.cache is None):
            return
        kept = [slot for slot, image in enumerate(self.slots) if image in images]
        picked = np.array(kept + [kept[-1]] * (size - len(kept)))
        if self.cache is not None:
            self._pick_images(picked)
            smaller = self.engine.cache(size, self.rows_each, self.cache_length)
            smaller.take_over(picked, self.cache)
            self.cache, self.lineage = smaller, self.lineage[picked]
        else:
            self._pick_images((picked[:, None] * self.rows_each + np.arange(self.rows_each)).ravel())
        self.slots = [*(self.slots[slot] for slot in kept), *[None] * (size - len(kept))]

    def place(self, going_on: Iterable[int]) -> tuple[dict[int, np.ndarray], int]:
        """Where the next run will have the images that go on: each one's rows (one before a cached prompt is run,
        then rows_each), and how many rows there are."""
        images = set(going_on)
        self._shrink(images)
        each = 1 if self.cache_length and self.cache is None else self.rows_each
        places = {
            image: np.arange(slot * each, (slot + 1) * each) for slot, image in enumerate(self.slots) if image in images
        }
        return places, len(self.slots) * each

    def run(
        self, ids: Mapping[int, np.ndarray], parents: Mapping[int, np.ndarray], settings: Iterable[Tensor]
    ) -> list[np.ndarray]:
        """Run the next token of every row of the images that go on; `place` says where they are.

        Args:
            ids: each image's rows (rows_each, length); all of one length. On the first call the rows are the prompt.
            parents: for each of them the row of the same image that it continues, by the last call's numbers.
            settings: the scorer's; those of rows are (R, ...).
        Returns:
            the scorer's outputs. To it, free places of a row repeat the row's first token.
        """
        places, rows = self.place(ids)
        some = next(iter(ids.values()))
        length = some.shape[1]
        width = self.cache_length if self.cache else round_up(length, self.engine.prompt_sizes)
        table = np.repeat(some[:1], rows, 0)
        for image, own in places.items():
            table[own] = ids[image][: len(own)]
        table = Tensor(np.concatenate((table, np.repeat(table[:, :1], width - length, 1)), 1), ms.int32)
        if not self.cache_length:
            graph = self.engine.whole_graph(self.score)
            output = graph_cache.call(graph, table, Tensor(length, ms.int32), *settings, *self.cross)
        elif self.cache is None:
            self.cache = self.engine.cache(len(self.slots), self.rows_each, self.cache_length)
            graph = self.engine.prompt_graph(self.cache, self.score)
            output = graph_cache.call(graph, self.image_embs, table, Tensor(length, ms.int32), *settings)
            self.cross = tuple(output[self.score.outputs :])
            self.lineage[:, :, :length] = 0  # the prompt stands in the first beam's slots
        else:
            self._branch(parents, length - 1)
            graph = self.engine.step_graph(self.cache, self.score)
            position, lineage = Tensor(length - 1, ms.int32), Tensor(self.lineage)
            output = graph_cache.call(graph, table, position, lineage, *settings, *self.cross)
        return [part.asnumpy() for part in output[: self.score.outputs]]

    def _branch(self, parents: Mapping[int, np.ndarray], position: int) -> None:
        """Let each row go on from its parent, and write the new position into slots of its own."""
        for slot, image in enumerate(self.slots):
            if image is not None and image in parents:
                self.lineage[slot] = self.lineage[slot][parents[image]]
        self.lineage[:, :, position] = np.arange(self.rows_each)
