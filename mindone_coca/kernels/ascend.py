"""The fused forms for Ascend's A2 and A3 products, which have them in float16 and bfloat16.

Written from the vendor's documents: nothing here has run on such a device. The tests put reference operators in the
place of these, which refuse what the documents forbid (tests/kernels/contracts.py). Gradients are the operators' own.
"""

import mindspore as ms
from mindspore import Tensor, mint, ops

from mindone_coca.kernels import plain
from mindone_coca.kernels.plain import EPSILON, MASKED

NOT_FUSED = ms.float32  # the operators take halves alone
HEAD_STEP, WIDEST_HEAD = 16, 512  # a head's width is a multiple of the one, and at most the other
MOST_IMAGES = 2048  # the largest batch of flash attention
PRECISE, PRECISE_WITH_EMPTY_ROWS = 0, 2  # of fused_infer_attention_score; the second is advised for masks of one's own


def can_fuse(query: Tensor) -> bool:
    """Whether the operators take queries (..., Q, d): a matter of type and shape, which a graph has from its start."""
    width = query.shape[-1]
    return (
        query.dtype != NOT_FUSED and width % HEAD_STEP == 0 and width <= WIDEST_HEAD and query.shape[0] <= MOST_IMAGES
    )


def hidden_keys(mask: Tensor, batch: int, queries: int) -> Tensor:
    """What is added to scores (B or 1, 1, Q or 1, K) -> what the operators read, (B, 1, Q, K), True where a key is
    hidden."""
    hidden = mask < MASKED / 2
    return ops.tile(hidden, (batch // mask.shape[0], 1, queries // mask.shape[2], 1))


def fused_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of several heads by one operator, with its gradient."""
    batch, heads, count, width = query.shape
    hidden = None if mask is None else hidden_keys(mask, batch, count)
    return ops.flash_attention_score(
        query, key, value, heads, attn_mask=hidden, scalar_value=width**-0.5, input_layout="BNSD"
    )


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """`kernels.attention` by one operator; by the plain form where that operator does not fit."""
    if not can_fuse(query):
        return plain.attention(query, key, value, mask)
    if query.ndim == 3:  # one head
        mask = None if mask is None else mask[:, None]
        return fused_attention(query[:, None], key[:, None], value[:, None], mask)[:, 0]
    return fused_attention(query, key, value, mask)


def decode_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """`kernels.decode_attention` by another operator, without a gradient; by the plain form where it does not fit."""
    if not can_fuse(query):
        return plain.attention(query, key, value, mask)
    batch, heads, count, width = query.shape
    hidden = None if mask is None else hidden_keys(mask, batch, count)
    precise = PRECISE if mask is None or count == 1 else PRECISE_WITH_EMPTY_ROWS
    return ops.fused_infer_attention_score(
        query,
        key,
        value,
        atten_mask=hidden,
        num_heads=heads,
        scale=width**-0.5,
        input_layout="BNSD",
        inner_precise=precise,
    )[0]


def layer_norm(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """`kernels.layer_norm` by aclnnLayerNorm."""
    return mint.nn.functional.layer_norm(x, (x.shape[-1],), gamma, beta, EPSILON)


def gelu(x: Tensor) -> Tensor:
    """The exact GELU by aclnnGelu."""
    return mint.nn.functional.gelu(x, approximate="none")
