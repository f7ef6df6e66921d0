"""The decoder as compiled graphs over a static key/value cache: encode once, then one token a step.

Each image's cross-attention keys and values are computed once. The cache holds the self-attention keys and values of
both decoders for a fixed number of positions; it travels through the graphs as a tensor, so a step is a pure function
and compiles once for each (rows, cache length).
"""

from typing import Any, NamedTuple

import mindspore as ms
from mindspore import Tensor, nn, ops

from mindone_coca import graph_cache
from mindone_coca.generation.cache import cache_sizes, prompt_sizes
from mindone_coca.graph_cache import few_sizes, tag_cell


class DecodeCells(NamedTuple):
    """The three pieces of a family's decoder that the engine compiles.

    Attributes:
        cross_projection: image tokens (B, K, D) -> a tuple of tensors that cross-attention needs of them: matrices,
            which are weights, and tensors (B, ...), each image's own.
        prompt_pass: ids (B, T) of which the first `length` () count, `length`, a Python int `cache_length`, and the
            tensors above -> the logits after the last of them (B, V) and, if cache_length is not 0, the unimodal and
            the multimodal cache, each (2 layers, B, H, cache_length, d), with zeros in places that are not used.
        token_step: ids so far (R, L), of which the one at `position` is new, `position` (), each row's parent (R,)
            among the cache's rows, both caches, and the tensors above -> the next token's logits (R, V) and the caches
            with their rows reordered and the new position written.
    """

    cross_projection: nn.Cell
    prompt_pass: nn.Cell
    token_step: nn.Cell


class DecodeEngine:
    """The compiled pieces of one model, shared by every call of `generate`.

    Batches are padded to powers of two, prompts and caches to a few lengths, so that a graph is reused whatever the
    inputs' sizes.

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
        for cell in cells:
            cell.set_train(False)
            tag_cell(cell, tag)
        self.cache_sizes, self.prompt_sizes = cache_sizes(limit), prompt_sizes(limit)
        self._score_cells: dict[tuple, nn.Cell] = {}

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> tokens (B, K, D), in batches of few sizes."""
        encoded = [graph_cache.call(self.visual, images[part])[1] for part in few_sizes(images.shape[0])]
        return encoded[0] if len(encoded) == 1 else ops.concat(encoded, 0)

    def score_cell(self, cell_type: type[nn.Cell], *arguments: Any) -> nn.Cell:
        """A scoring cell with these arguments, kept so that it compiles once."""
        key = (cell_type, *arguments)
        if key not in self._score_cells:
            self._score_cells[key] = cell_type(*arguments)
            tag_cell(self._score_cells[key], repr(arguments))
        return self._score_cells[key]
