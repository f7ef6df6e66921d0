"""The decoder of open_clip's CoCa as the cells that the decode engine runs; see `generation.engine.DecodeCells`.

A caption needs no class token, so none is computed here.
"""

from typing import TYPE_CHECKING

import mindspore as ms
from mindspore import Tensor, nn, ops

from mindone_coca.generation.cache import make_cache
from mindone_coca.model.layers import MASKED, attend, merge_heads

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
            query_weight = block.attn.in_proj_weight[: block.attn.width].astype(image_embs.dtype)
            output += (query_weight, key, value)
        return output


class PromptPass(nn.Cell):
    """Run all tokens of a prompt at once; also the uncached form, where the cache is invalid.

    `construct` takes ids (B, T) of which the first `length` count, and returns the logits after the last of them
    (B, V), and, if cache_length is not 0, the unimodal and multimodal cache, each (2 layers, B, H, cache_length, d).
    """

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
        return x + text.positional_embedding[: x.shape[1]].astype(x.dtype), mask

    def construct(self, ids: Tensor, length: Tensor, cache_length: int, *cross: Tensor) -> tuple[Tensor, ...]:
        count = ids.shape[1]
        unimodal: tuple[Tensor, ...] = ()
        multimodal: tuple[Tensor, ...] = ()
        x, mask = self.embed(ids, length)
        for block in self.text.transformer.resblocks:
            query, key, value = block.attn.query_key_value(block.ln_1(x))
            x = block.add_branches(x, block.attn.project_out(attend(query, key, value, mask)))
            unimodal += (key, value)
        x = x[:, :count] if self.text.embed_cls else self.text.ln_final(x)
        mask = self.decoder.causal_mask[:count, :count][None, None]
        index = 0
        for block, cross_block in zip(self.decoder.resblocks, self.decoder.cross_attn):
            query, key, value = block.attn.query_key_value(block.ln_1(x))
            x = block.add_branches(x, block.attn.project_out(attend(query, key, value, mask)))
            multimodal += (key, value)
            x = cross_attend(cross_block, x, cross[index], cross[index + 1], cross[index + 2])
            index += 3
        logits = self.decoder.logits(ops.gather(x, length - 1, 1))  # (B, V)
        if cache_length == 0:
            return (logits,)
        used = (ops.arange(0, count, 1) < length)[:, None]  # (T, 1): unused slots stay zero, a step adds to them
        return logits, make_cache(unimodal, used, cache_length), make_cache(multimodal, used, cache_length)


def cross_attend(block: nn.Cell, x: Tensor, query_weight: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """One cross-attention block for x (B, T, D) with its image's keys and values (B, H, K, d) given."""
    batch, length, width = x.shape
    heads = block.attn.heads
    bias = block.attn.in_proj_bias[:width].astype(x.dtype)
    query = ops.dense(block.ln_1(x), query_weight, bias).reshape(batch, length, heads, width // heads).swapaxes(1, 2)
    return block.add_branches(x, block.attn.project_out(attend(query, key, value)))


class TokenStep(nn.Cell):
    """One token for every row, with the cache.

    `construct` takes the ids so far (R, L), of which the one at `position` is new, each row's parent (R,) among the
    cache's rows, and both caches; it returns the next token's logits (R, V) and the caches with rows reordered and the
    new position written.
    """

    def __init__(self, model: "CoCa") -> None:
        super().__init__(auto_prefix=False)
        self.text = model.text
        self.decoder = model.text_decoder

    def masks(self, ids: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """Additive masks over the cache's slots and the new token: unimodal (R, 1, 1, L + 1), multimodal (1, ...)."""
        length = ids.shape[1]
        future = (ops.arange(0, length, 1) >= position).astype(ms.float32)[None] * MASKED  # (1, L)
        multimodal = ops.concat((future, ops.zeros((1, 1), ms.float32)), 1)
        if not self.text.embed_cls:
            return multimodal[:, None, None], multimodal[:, None, None]
        hidden = self.text.key_mask(ids)[:, 0, 0, :length]  # (R, L): key j goes by token j - 1, all of them known
        own = ops.gather(hidden, position, 1)[:, None]  # (R, 1)
        unimodal = ops.concat((ops.minimum(hidden, future), own), 1)
        return unimodal[:, None, None], multimodal[:, None, None]

    def self_attend(
        self, block: nn.Cell, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x (R, D), cached keys and values (R, H, L, d) -> x after the block, its new key and value (R, H, 1, d)."""
        rows, width = x.shape
        attn = block.attn
        shape = (rows, attn.heads, 1, width // attn.heads)
        packed = ops.dense(block.ln_1(x), attn.in_proj_weight.astype(x.dtype), attn.in_proj_bias.astype(x.dtype))
        query, key, value = ops.split(packed, width, 1)
        key, value = key.reshape(shape), value.reshape(shape)
        attended = attend(query.reshape(shape), ops.concat((keys, key), 2), ops.concat((values, value), 2), mask)
        return block.add_branches(x, attn.out_proj(attended.reshape(rows, width))), key, value

    def cross_attend(self, block: nn.Cell, x: Tensor, query_weight: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """x (R, D), with R / B rows for each image, whose keys and values (B, H, K, d) they share."""
        rows, width = x.shape
        attn, images = block.attn, key.shape[0]
        beams, head_dim = rows // images, width // attn.heads
        query = ops.dense(block.ln_1(x), query_weight, attn.in_proj_bias[:width].astype(x.dtype))
        if beams == 1:
            attended = attend(query.reshape(images, attn.heads, 1, head_dim), key, value).reshape(rows, width)
        else:
            query = query.reshape(images, beams, attn.heads, head_dim).swapaxes(1, 2)  # (B, H, beams, d)
            attended = merge_heads(attend(query, key, value)).reshape(rows, width)
        return block.add_branches(x, attn.out_proj(attended))

    def construct(
        self, ids: Tensor, position: Tensor, parents: Tensor, unimodal: Tensor, multimodal: Tensor, *cross: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        unimodal, multimodal = ops.gather(unimodal, parents, 1), ops.gather(multimodal, parents, 1)
        unimodal_mask, multimodal_mask = self.masks(ids, position)
        text = self.text
        token = ops.gather(ids, position, 1)  # (R,)
        x = text.embed(token) + ops.gather(text.positional_embedding, position, 0).astype(text.dtype)  # (R, D)
        new_unimodal: tuple[Tensor, ...] = ()
        new_multimodal: tuple[Tensor, ...] = ()
        cached = ops.unstack(unimodal, 0)
        for i in range(len(text.transformer.resblocks)):
            x, key, value = self.self_attend(
                text.transformer.resblocks[i], x, cached[2 * i], cached[2 * i + 1], unimodal_mask
            )
            new_unimodal += (key, value)
        if not text.embed_cls:
            x = text.ln_final(x)
        cached = ops.unstack(multimodal, 0)
        for i in range(len(self.decoder.resblocks)):
            x, key, value = self.self_attend(
                self.decoder.resblocks[i], x, cached[2 * i], cached[2 * i + 1], multimodal_mask
            )
            new_multimodal += (key, value)
            x = self.cross_attend(self.decoder.cross_attn[i], x, cross[3 * i], cross[3 * i + 1], cross[3 * i + 2])
        slot = (ops.arange(0, ids.shape[1], 1) == position)[:, None].astype(x.dtype)  # (L, 1)
        unimodal = unimodal + slot * ops.stack(new_unimodal, 0)
        multimodal = multimodal + slot * ops.stack(new_multimodal, 0)
        return self.decoder.logits(x), unimodal, multimodal
