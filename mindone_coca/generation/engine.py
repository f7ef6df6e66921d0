"""The decoder as compiled graphs over a static key/value cache: encode once, then one token a step.

Each image's cross-attention keys and values are computed once. The cache holds the self-attention keys and values of
both decoders for a fixed number of positions; a step writes the new ones in place and compiles once for each size.
"""

from collections.abc import Callable, Sequence
from threading import RLock
from typing import Any, NamedTuple

import mindspore as ms
from mindspore import Tensor, nn, ops

from mindone_coca import batch_sizes, graph_cache
from mindone_coca.generation.cache import KeyValueCache, cache_sizes, prompt_sizes
from mindone_coca.generation.graphs import PromptGraph, StepGraph, WholeGraph
from mindone_coca.graph_cache import tag_cell


class DecodeCells(NamedTuple):
    """The three pieces of a family's decoder that the engine compiles.

    Attributes:
        cross_projection: image tokens (B, K, D) -> a tuple of tensors that cross-attention needs of them: matrices,
            which are weights, and tensors (B, ...), each image's own.
        prompt_pass: ids (B, T) of which the first `length` () count, `length`, and the tensors above -> a tuple of the
            logits after the last of them (B, V) and keys and values by turns, each (B, H, T, d), of all layers that
            attend to text.
        token_step: ids so far (R, L), of which the one at `position` is new, `position` (), the lineage (B, beams, L),
            see `cache.hidden_slots`, the cache's tensors, see `KeyValueCache`, and the tensors above -> a tuple whose
            first item are the next token's logits (R, V); it writes the new position's keys and values.
        heads: of each layer that attends to text, its heads H and their width d.
    """

    cross_projection: nn.Cell
    prompt_pass: nn.Cell
    token_step: nn.Cell
    heads: Sequence[tuple[int, int]]


class DecodeEngine:
    """The compiled pieces of one model, shared by every call of `generate`.

    Batches are padded to few sizes (`batch_sizes`), prompts and caches to a few lengths, so that a graph is reused
    whatever the inputs' sizes.

    Args:
        visual: images (B, 3, H, W) -> a feature and the decoder's tokens (B, K, width).
        limit: positions that can be run.
        width: of the decoder's image tokens. dtype: theirs.
        causal: no token sees a later one; only then a prefix's keys stay valid and are kept.
        tag: what the graphs depend on besides sources and arguments, see `graph_cache.tag_cell`.
    """

    def __init__(
        self,
        visual: nn.Cell,
        cells: DecodeCells,
        *,
        limit: int,
        vocab_size: int,
        width: int,
        dtype: ms.Type,
        causal: bool,
        tag: str,
    ) -> None:
        self.visual, self.cells = visual, cells
        self.limit, self.vocab_size, self.width, self.dtype, self.cacheable = limit, vocab_size, width, dtype, causal
        self.tag, self.lock = tag, RLock()  # searches write into the same caches: one at a time
        for cell in cells[:3]:
            cell.set_train(False)
            tag_cell(cell, tag)
        self.cache_sizes, self.prompt_sizes = cache_sizes(limit), prompt_sizes(limit)
        self._kept: dict[tuple, nn.Cell] = {}

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> tokens (B, K, D), in batches of few sizes."""
        encoded = [graph_cache.call(self.visual, images[part])[1] for part in batch_sizes.parts(images.shape[0])]
        return encoded[0] if len(encoded) == 1 else ops.concat(encoded, 0)

    def scorer(self, cell_type: type[nn.Cell], *arguments: Any) -> nn.Cell:
        """A cell that chooses next tokens, made with these arguments."""
        return self._keep((cell_type, *arguments), lambda: cell_type(*arguments))

    def cache(self, images: int, beams: int, length: int) -> KeyValueCache:
        return self._keep(
            (KeyValueCache, images, beams, length),
            lambda: KeyValueCache(self.cells.heads, images, beams, length, self.dtype),
        )

    def prompt_graph(self, cache: KeyValueCache, score: nn.Cell) -> nn.Cell:
        cells = self.cells.cross_projection, self.cells.prompt_pass
        return self._keep((PromptGraph, cache, score), lambda: PromptGraph(*cells, cache, score))

    def step_graph(self, cache: KeyValueCache, score: nn.Cell) -> nn.Cell:
        return self._keep((StepGraph, cache, score), lambda: StepGraph(self.cells.token_step, cache, score))

    def whole_graph(self, score: nn.Cell) -> nn.Cell:
        return self._keep((WholeGraph, score), lambda: WholeGraph(self.cells.prompt_pass, score))

    def _keep(self, key: tuple, make: Callable[[], nn.Cell]) -> nn.Cell:
        """The cell of that key, made at its first use so that it compiles once."""
        if key not in self._kept:
            cell = self._kept[key] = make()
            cell.set_train(False)
            names = [part.graph_tag if isinstance(part, nn.Cell) else repr(part) for part in key]
            tag_cell(cell, f"{self.tag} {names}")
        return self._kept[key]
