"""The decoder of open_clip's CoCa as the cells that the decode engine runs; see `generation.engine.DecodeCells`.

A caption needs no class token, so none is computed here.
"""

from typing import TYPE_CHECKING

import mindspore as ms
from mindspore import Tensor, nn, ops

from mindone_coca import kernels
from mindone_coca.generation.cache import hidden_slots
from mindone_coca.model.attention import merge_heads, split_heads
from mindone_coca.model.layers import MASKED

if TYPE_CHECKING:
    from mindone_coca.model.open_clip.model import CoCa


class CrossProjection(nn.Cell):
    """Image tokens (B, K, D) -> for each multimodal layer its query weight (D, D), key and value (B, H, K, d)."""

    def __init__(self, model: "CoCa") -> None:
        super().__init__(auto_prefix=False)  # the model's cells are only borrowed: their parameters keep their names
        self.blocks = model.text_decoder.cross_attn

    def construct(self, image_embs: Tensor) -> tuple[Tensor, ...]:
        output: tuple[Tensor, ...] = ()
        for block in self.blocks:
            key, value = block.attn.project_key_value(block.ln_1_kv(image_embs))
            output += (block.attn.query_weight(image_embs.dtype), key, value)
        return output


class PromptPass(nn.Cell):
    """Run all tokens of a prompt at once, see `DecodeCells.prompt_pass`; also the form where no cache is valid."""

    def __init__(self, model: "CoCa") -> None:
        super().__init__(auto_prefix=False)
        self.text = model.text
        self.decoder = model.text_decoder

    def embed(self, ids: Tensor, length: Tensor) -> tuple[Tensor, Tensor | None]:
        """Ids (B, T) -> embeddings with positions and the additive mask of the unimodal decoder."""
        text = self.text
        x = text.embed(ids)  # (B, T, D)
        count = ids.shape[1]
        if text.causal:
            mask = text.causal_mask[:count, :count][None, None]
            if text.embed_cls:
                mask = ops.minimum(mask, text.key_mask(ids)[..., :count])
        elif text.embed_cls:
            # both ways, tokens see the class token, which stands right after the last of them
            slots = ops.arange(0, count + 1, 1)
            at_length = (slots == length).astype(x.dtype)[None, :, None]
            x = ops.concat((x, ops.zeros((x.shape[0], 1, x.shape[2]), x.dtype)), 1)  # (B, T + 1, D)
            x = x * (1 - at_length) + text.cls_emb.astype(x.dtype) * at_length
            unused = (slots > length).astype(ms.float32)[None, None, None] * MASKED
            mask = ops.minimum(text.key_mask(ids), unused)
        else:
            mask = (ops.arange(0, count, 1) >= length).astype(ms.float32)[None, None, None] * MASKED
        return text.add_to_each(x, text.positional_embedding[: x.shape[1]].astype(x.dtype)), mask

    def construct(self, ids: Tensor, length: Tensor, *cross: Tensor) -> tuple[Tensor, ...]:
        count = ids.shape[1]
        keys_values: tuple[Tensor, ...] = ()
        x, mask = self.embed(ids, length)
        for block in self.text.transformer.resblocks:
            query, key, value = block.attn.query_key_value(block.ln_1(x))
            x = block.add_branches(x, block.attn.project_out(block.attn.attend(query, key, value, mask)))
            keys_values += (key[:, :, :count], value[:, :, :count])
        x = x[:, :count] if self.text.embed_cls else self.text.ln_final(x)
        mask = self.decoder.causal_mask[:count, :count][None, None]
        index = 0
        for block, cross_block in zip(self.decoder.resblocks, self.decoder.cross_attn):
            query, key, value = block.attn.query_key_value(block.ln_1(x))
            x = block.add_branches(x, block.attn.project_out(block.attn.attend(query, key, value, mask)))
            keys_values += (key, value)
            x = cross_attend(cross_block, x, cross[index], cross[index + 1], cross[index + 2])
            index += 3
        return self.decoder.logits(ops.gather(x, length - 1, 1)), *keys_values


def cross_attend(block: nn.Cell, x: Tensor, query_weight: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """One cross-attention block for x (B, T, D) with its image's keys and values (B, H, K, d) given."""
    bias = block.attn.in_proj_bias[: x.shape[-1]].astype(x.dtype)
    query = split_heads(block.attn.swap, block.attn.linear(block.ln_1(x), query_weight, bias), block.attn.heads)
    return block.add_branches(x, block.attn.project_out(block.attn.attend(query, key, value)))


class TokenStep(nn.Cell):
    """One token for every row, with the cache; see `DecodeCells.token_step`.

    Args:
        write: a cell (cached (B, H, slots, d), new (R, H, d), position) -> the cached tensor with the new position.

    `construct` also returns the cached tensors so written.
    """

    def __init__(self, model: "CoCa", write: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.text = model.text
        self.decoder = model.text_decoder
        self.write, self.attend = write, kernels.decode_attention()

    def masks(self, ids: Tensor, lineage: Tensor) -> tuple[Tensor, Tensor]:
        """Additive masks over an image's slots (B, 1, beams, slots), unimodal and multimodal."""
        hidden = hidden_slots(lineage)  # (B, beams, beams, L)
        images, beams, _, length = hidden.shape
        shape = (images, 1, beams, beams * length)
        multimodal = hidden.reshape(shape)
        if not self.text.embed_cls:
            return multimodal, multimodal
        padding = self.text.key_mask(ids)[..., :length].reshape(images, beams, 1, length)
        return ops.minimum(hidden, ops.tile(padding, (1, 1, beams, 1))).reshape(shape), multimodal

    def self_attend(
        self, block: nn.Cell, x: Tensor, position: Tensor, keys: Tensor, values: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x (R, D), cached keys and values (B, H, slots, d) -> x after the block, and both with the new position."""
        attn, (rows, width) = block.attn, x.shape
        query, key, value = ops.Split(1, 3)(attn.project_packed(block.ln_1(x)))
        shape = (rows, attn.heads, width // attn.heads)
        keys, values = (
            self.write(keys, key.reshape(shape), position),
            self.write(values, value.reshape(shape), position),
        )
        attended = self.attend(split_rows(query, keys), keys, values, mask)
        return block.add_branches(x, attn.out_proj(merge_heads(attn.swap, attended).reshape(rows, width))), keys, values

    def cross_attend(self, block: nn.Cell, x: Tensor, query_weight: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """x (R, D), with R / B rows for each image, whose keys and values (B, H, K, d) they share."""
        attn, (rows, width) = block.attn, x.shape
        query = attn.linear(block.ln_1(x), query_weight, attn.in_proj_bias[:width].astype(x.dtype))
        attended = self.attend(split_rows(query, key), key, value)
        return block.add_branches(x, attn.out_proj(merge_heads(attn.swap, attended).reshape(rows, width)))

    def construct(
        self, ids: Tensor, position: Tensor, lineage: Tensor, cached: tuple[Tensor, ...], *cross: Tensor
    ) -> tuple[Tensor, ...]:
        text, decoder = self.text, self.decoder
        unimodal_mask, multimodal_mask = self.masks(ids, lineage)
        token = ops.gather(ids, position, 1)  # (R,)
        at_position = ops.gather(text.positional_embedding.astype(text.dtype), position, 0)  # (D,)
        x = text.add_to_each(text.embed(token), at_position)  # (R, D)
        written: tuple[Tensor, ...] = ()
        index = 0
        for block in text.transformer.resblocks:
            x, keys, values = self.self_attend(block, x, position, cached[index], cached[index + 1], unimodal_mask)
            written += (keys, values)
            index += 2
        if not text.embed_cls:
            x = text.ln_final(x)
        for i in range(len(decoder.resblocks)):
            block = decoder.resblocks[i]
            x, keys, values = self.self_attend(block, x, position, cached[index], cached[index + 1], multimodal_mask)
            written += (keys, values)
            index += 2
            x = self.cross_attend(decoder.cross_attn[i], x, cross[3 * i], cross[3 * i + 1], cross[3 * i + 2])
        return decoder.logits(x), *written


def split_rows(x: Tensor, keys: Tensor) -> Tensor:
    """Rows (R, D) -> as queries of their images' keys (B, H, K, d), (B, H, beams, d)."""
    images, heads, _, width = keys.shape
    beams = x.shape[0] // images
    if beams == 1:
        return x.reshape(images, heads, 1, width)
    return x.reshape(images, beams, heads, width).swapaxes(1, 2)
