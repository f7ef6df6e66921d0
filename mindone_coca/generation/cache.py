"""The static key/value cache and the few lengths that it comes in."""

from mindspore import Tensor, ops

LENGTH_STEP = 32  # cache lengths are multiples of this, up to the context


def cache_sizes(limit: int) -> list[int]:
    """The lengths that a cache may have, where `limit` positions can be run."""
    return [*range(LENGTH_STEP, limit, LENGTH_STEP), limit]


def prompt_sizes(limit: int) -> list[int]:
    """The lengths that prompts are padded to."""
    return sorted({*cache_sizes(limit), *(n for n in (1, 8, 16) if n < limit)})


def round_up(count: int, sizes: list[int]) -> int:
    """The smallest of the ascending sizes that `count` fits into."""
    return next(size for size in sizes if size >= count)


def make_cache(keys_values: tuple[Tensor, ...], used: Tensor, cache_length: int) -> Tensor:
    """Keys and values of all layers, each (B, H, T, d) -> (2 layers, B, H, cache_length, d)."""
    stacked = ops.stack(keys_values, 0)
    stacked = stacked * used.astype(stacked.dtype)
    layers, batch, heads, count, head_dim = stacked.shape
    if count == cache_length:
        return stacked
    empty = ops.zeros((layers, batch, heads, cache_length - count, head_dim), stacked.dtype)
    return ops.concat((stacked, empty), 3)
