"""The decoder of coca-pytorch's CoCa as the cells that the decode engine runs; see `generation.engine.DecodeCells`.

The cache has one key and one value a position, rotated already. No token sees the class token or minds padding, so a
step's mask is the same for every row.
"""

from typing import TYPE_CHECKING

import mindspore as ms
from mindspore import Tensor, nn, ops

from mindone_coca.generation.cache import make_cache
from mindone_coca.model.coca_pytorch.layers import ParallelBlock, future_mask, multi_query_attend
from mindone_coca.model.layers import MASKED

if TYPE_CHECKING:
    from mindone_coca.model.coca_pytorch.model import ParallelCoCa


class ParallelCrossProjection(nn.Cell):
    """Image tokens (B, K, dim) -> each multimodal layer's key and value, (B, K, d)."""

    def __init__(self, model: "ParallelCoCa") -> None:
        super().__init__(auto_prefix=False)  # the model's cells are only borrowed: their parameters keep their names
        self.layers = model.text_decoder.multimodal_layers

    def construct(self, image_tokens: Tensor) -> tuple[Tensor, ...]:
        output: tuple[Tensor, ...] = ()
        for layer in self.layers:
            output += layer.cross_attn.key_value(image_tokens)
        return output


class ParallelPromptPass(nn.Cell):
    """Run all tokens of a prompt at once; also the uncached form, where the window slides.

    `construct` takes ids (B, T) of which the first `length` count, and returns the logits after the last of them
    (B, V), and, if cache_length is not 0, the unimodal and multimodal cache, each (2 layers, B, 1, cache_length, d).
    """

    def __init__(self, model: "ParallelCoCa") -> None:
        super().__init__(auto_prefix=False)
        self.text, self.decoder = model.text, model.text_decoder

    def construct(self, ids: Tensor, length: Tensor, cache_length: int, *cross: Tensor) -> tuple[Tensor, ...]:
        count = ids.shape[1]
        positions, mask = ops.arange(0, count, 1), future_mask(count)
        unimodal: tuple[Tensor, ...] = ()
        multimodal: tuple[Tensor, ...] = ()
        x = self.text.token_emb(ids).astype(self.text.dtype)
        for layer in self.text.unimodal_layers:
            query, key, value, gated = layer.project(x, positions)
            x = layer.add_branches(x, multi_query_attend(query, key, value, mask), gated)
            unimodal += (key[:, None], value[:, None])
        index = 0
        for layer in self.decoder.multimodal_layers:
            query, key, value, gated = layer.self_attn.project(x, positions)
            x = layer.self_attn.add_branches(x, multi_query_attend(query, key, value, mask), gated)
            multimodal += (key[:, None], value[:, None])
            x = x + layer.cross_attn.attend(x, cross[index], cross[index + 1])
            index += 2
        logits = self.decoder.logits(ops.gather(x, length - 1, 1))  # (B, V)
        if cache_length == 0:
            return (logits,)
        used = (ops.arange(0, count, 1) < length)[:, None]  # (T, 1): unused slots stay zero, a step adds to them
        return logits, make_cache(unimodal, used, cache_length), make_cache(multimodal, used, cache_length)


class ParallelTokenStep(nn.Cell):
    """One token for every row, with the cache: see `DecodeCells.token_step`."""

    def __init__(self, model: "ParallelCoCa") -> None:
        super().__init__(auto_prefix=False)
        self.text, self.decoder = model.text, model.text_decoder

    def self_attend(
        self, block: ParallelBlock, x: Tensor, position: Tensor, keys: Tensor, values: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x (R, 1, D), cached keys and values (R, 1, L, d) -> x after the block, its new key and value (R, 1, 1, d)."""
        query, key, value, gated = block.project(x, position[None])
        all_keys, all_values = ops.concat((keys[:, 0], key), 1), ops.concat((values[:, 0], value), 1)  # (R, L + 1, d)
        x = block.add_branches(x, multi_query_attend(query, all_keys, all_values, mask), gated)
        return x, key[:, None], value[:, None]

    def construct(
        self, ids: Tensor, position: Tensor, parents: Tensor, unimodal: Tensor, multimodal: Tensor, *cross: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        unimodal, multimodal = ops.gather(unimodal, parents, 1), ops.gather(multimodal, parents, 1)
        slots = ops.arange(0, ids.shape[1], 1)
        unused = (slots >= position).astype(ms.float32) * MASKED  # (L,)
        mask = ops.concat((unused, ops.zeros((1,), ms.float32)), 0)  # the new token comes last
        x = self.text.token_emb(ops.gather(ids, position, 1))[:, None].astype(self.text.dtype)  # (R, 1, D)
        new_unimodal: tuple[Tensor, ...] = ()
        new_multimodal: tuple[Tensor, ...] = ()
        cached = ops.unstack(unimodal, 0)
        for i in range(len(self.text.unimodal_layers)):
            block = self.text.unimodal_layers[i]
            x, key, value = self.self_attend(block, x, position, cached[2 * i], cached[2 * i + 1], mask)
            new_unimodal += (key, value)
        cached = ops.unstack(multimodal, 0)
        for i in range(len(self.decoder.multimodal_layers)):
            layer = self.decoder.multimodal_layers[i]
            x, key, value = self.self_attend(layer.self_attn, x, position, cached[2 * i], cached[2 * i + 1], mask)
            new_multimodal += (key, value)
            x = x + layer.cross_attn.attend(x, cross[2 * i], cross[2 * i + 1])
        slot = (slots == position)[:, None].astype(x.dtype)  # (L, 1)
        unimodal = unimodal + slot * ops.stack(new_unimodal, 0)
        multimodal = multimodal + slot * ops.stack(new_multimodal, 0)
        return self.decoder.logits(x[:, 0]), unimodal, multimodal
