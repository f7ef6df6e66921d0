"""One decoding run over a batch of images: which image sits in which rows of the device's cache."""

from collections.abc import Mapping

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

from mindone_coca import graph_cache
from mindone_coca.generation.cache import round_up
from mindone_coca.generation.engine import DecodeEngine


class DecodeSession:
    """Feeds rows of tokens to the engine and finds each image's logits.

    Images are padded to a power of two slots. Every image has the same number of rows (beams). Images that are not
    asked for any more are finished: when half the slots would do, the cache moves to the smaller batch.

    Args:
        image_embs: image tokens (B, K, D).
        rows_each: rows of each image after the prompt, on which all of them agree.
        longest: the most tokens that will be run.
    """

    def __init__(self, engine: DecodeEngine, image_embs: Tensor, rows_each: int, longest: int) -> None:
        self.engine = engine
        self.rows_each = rows_each
        self.cache_length = round_up(longest, engine.cache_sizes) if engine.cacheable else 0
        self.rows_in_cache = 0  # rows of each image in the cache: none yet, one after the prompt, then rows_each
        self.unimodal: Tensor | None = None
        self.multimodal: Tensor | None = None
        count = image_embs.shape[0]
        padded = 1 << (count - 1).bit_length()
        if padded > count:
            image_embs = ops.concat((image_embs, ops.tile(image_embs[-1:], (padded - count, 1, 1))), 0)
        self.cross = tuple(graph_cache.call(engine.cells.cross_projection, image_embs))
        self.slots: list[int | None] = [*range(count), *[None] * (padded - count)]
        if not self.cache_length:
            self._share_nothing()

    def _share_nothing(self) -> None:
        """Without a cache every row runs whole, with its image's keys and values for itself."""
        self._pick_images(np.repeat(np.arange(len(self.slots)), self.rows_each))

    def _pick_images(self, slots: np.ndarray) -> None:
        index = Tensor(slots.astype(np.int32))
        # matrices are weights, the others have images first
        self.cross = tuple(t if t.ndim == 2 else ops.gather(t, index, 0) for t in self.cross)

    def drop_cache(self) -> None:
        """From now on run whole rows: the window slides, so every position changes."""
        if self.cache_length:
            self.cache_length, self.unimodal, self.multimodal = 0, None, None
            self._share_nothing()

    def _shrink(self, images: Mapping[int, object]) -> None:
        """Move to fewer slots if that many suffice."""
        size = 1 << (len(images) - 1).bit_length()
        if size == len(self.slots):
            return
        kept = [slot for slot, image in enumerate(self.slots) if image in images]
        picked = np.array(kept + [kept[-1]] * (size - len(kept)))
        rows_each = self.rows_in_cache if self.cache_length else self.rows_each
        rows = (picked[:, None] * rows_each + np.arange(rows_each)).ravel()
        if self.cache_length:
            self._pick_images(picked)
            if self.rows_in_cache:
                index = Tensor(rows.astype(np.int32))
                self.unimodal = ops.gather(self.unimodal, index, 1)
                self.multimodal = ops.gather(self.multimodal, index, 1)
        else:
            self._pick_images(rows)
        self.slots = [*(self.slots[slot] for slot in kept), *[None] * (size - len(kept))]

    def logits(self, ids: Mapping[int, np.ndarray], parents: Mapping[int, np.ndarray]) -> tuple[Tensor, Tensor, dict]:
        """Run the next token of every row of the images that go on.

        Args:
            ids: each image's rows (rows_each, length); all of one length. On the first call the rows are the prompt.
            parents: for each of them the row of the same image that it continues, by the last call's numbers.
        Returns:
            logits (R, V); the ids behind them (R, width), whose free places repeat the first token; and for each image
            its rows among R (one row after a cached prompt).
        """
        self._shrink(ids)
        length = next(iter(ids.values())).shape[1]
        whole = not self.cache_length or not self.rows_in_cache
        rows_now = 1 if whole and self.cache_length else self.rows_each
        if not whole and self.rows_in_cache < self.rows_each:
            self._share_prompt()
        table = np.repeat(next(iter(ids.values()))[:1], len(self.slots) * rows_now, 0)
        origin = np.zeros(len(table), np.int32)
        places = {}
        for slot, image in enumerate(self.slots):
            if image is not None and image in ids:
                rows = np.arange(slot * rows_now, (slot + 1) * rows_now)
                table[rows] = ids[image][:rows_now]
                origin[rows] = slot * rows_now + (0 if whole else parents[image])
                places[image] = rows
        prompt = table
        width = self.cache_length or round_up(length, self.engine.prompt_sizes)
        table = Tensor(np.concatenate((table, np.repeat(table[:, :1], width - length, 1)), 1), ms.int32)
        if whole:
            logits = self._run_whole(prompt)
        else:
            logits, self.unimodal, self.multimodal = graph_cache.call(
                self.engine.cells.token_step,
                table,
                Tensor(length - 1, ms.int32),
                Tensor(origin),
                self.unimodal,
                self.multimodal,
                *self.cross,
            )
        return logits, table, places

    def _share_prompt(self) -> None:
        """Give every row its copy of the prompt's cache, which was run once an image."""
        index = Tensor(np.repeat(np.arange(len(self.slots)), self.rows_each).astype(np.int32))
        self.unimodal, self.multimodal = ops.gather(self.unimodal, index, 1), ops.gather(self.multimodal, index, 1)
        self.rows_in_cache = self.rows_each

    def _run_whole(self, ids: np.ndarray) -> Tensor:
        """Run ids (rows, length) from the beginning -> logits (rows, V)."""
        length = ids.shape[1]
        padded = np.pad(ids, ((0, 0), (0, round_up(length, self.engine.prompt_sizes) - length)))
        output = graph_cache.call(
            self.engine.cells.prompt_pass,
            Tensor(padded, ms.int32),
            Tensor(length, ms.int32),
            self.cache_length,
            *self.cross,
        )
        if self.cache_length:
            self.unimodal, self.multimodal, self.rows_in_cache = output[1], output[2], 1
        return output[0]
