"""The decoder of coca-pytorch's CoCa as the cells that the decode engine runs; see `generation.engine.DecodeCells`.

The cache has one key and one value a position, rotated already. No token sees the class token or minds padding.
"""

from typing import TYPE_CHECKING

from mindspore import Tensor, nn, ops

from mindone_coca.generation.cache import WriteInPlace, hidden_slots
from mindone_coca.model.coca_pytorch.layers import ParallelBlock, future_mask

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
    """Run all tokens of a prompt at once, see `DecodeCells.prompt_pass`; also the form where no cache is valid."""

    def __init__(self, model: "ParallelCoCa") -> None:
        super().__init__(auto_prefix=False)
        self.text, self.decoder = model.text, model.text_decoder

    def construct(self, ids: Tensor, length: Tensor, *cross: Tensor) -> tuple[Tensor, ...]:
        count = ids.shape[1]
        positions, mask = ops.arange(0, count, 1), future_mask(count)
        keys_values: tuple[Tensor, ...] = ()
        x = self.text.token_emb(ids).astype(self.text.dtype)
        for layer in self.text.unimodal_layers:
            query, key, value, gated = layer.project(x, positions)
            x = layer.add_branches(x, layer.attend(query, key, value, mask), gated)
            keys_values += (key[:, None], value[:, None])
        index = 0
        for layer in self.decoder.multimodal_layers:
            query, key, value, gated = layer.self_attn.project(x, positions)
            x = layer.self_attn.add_branches(x, layer.self_attn.attend(query, key, value, mask), gated)
            keys_values += (key[:, None], value[:, None])
            x = x + layer.cross_attn.attend(x, cross[index], cross[index + 1])
            index += 2
        return self.decoder.logits(ops.gather(x, length - 1, 1)), *keys_values


class ParallelTokenStep(nn.Cell):
    """One token for every row, with the cache: see `DecodeCells.token_step`."""

    def __init__(self, model: "ParallelCoCa") -> None:
        super().__init__(auto_prefix=False)
        self.text, self.decoder, self.write = model.text, model.text_decoder, WriteInPlace()

    def self_attend(
        self, block: ParallelBlock, x: Tensor, position: Tensor, keys: Tensor, values: Tensor, mask: Tensor
    ) -> Tensor:
        """x (R, 1, D), cached keys and values (B, 1, slots, d), mask (B, beams, slots) -> x after the block."""
        query, key, value, gated = block.project(x, position[None])
        images, _, slots, width = keys.shape
        keys = self.write(keys, key, position).reshape(images, slots, width)
        values = self.write(values, value, position).reshape(images, slots, width)
        query = query.reshape(images, -1, block.heads, width)  # (B, beams, H, d)
        attended = block.attend(query, keys, values, mask).reshape(x.shape[0], 1, -1)
        return block.add_branches(x, attended, gated)

    def construct(
        self, ids: Tensor, position: Tensor, lineage: Tensor, cached: tuple[Tensor, ...], *cross: Tensor
    ) -> tuple[Tensor, ...]:
        images, beams, length = lineage.shape
        mask = hidden_slots(lineage).reshape(images, beams, beams * length)
        x = self.text.token_emb(ops.gather(ids, position, 1))[:, None].astype(self.text.dtype)  # (R, 1, D)
        index = 0
        for layer in self.text.unimodal_layers:
            x = self.self_attend(layer, x, position, cached[index], cached[index + 1], mask)
            index += 2
        for i in range(len(self.decoder.multimodal_layers)):
            layer = self.decoder.multimodal_layers[i]
            x = self.self_attend(layer.self_attn, x, position, cached[index], cached[index + 1], mask)
            x = x + layer.cross_attn.attend(x, cross[2 * i], cross[2 * i + 1])
            index += 2
        return (self.decoder.logits(x[:, 0]),)
