"""The few sizes that batches are compiled for: each one more costs its compilation and keeps a workspace of its own.

On the CPU an image more costs about as much in a batch as alone, so images are encoded four at a time or one by one,
and a batch of captions is cut into parts of at most eight, whose rows already keep the processor busy. Elsewhere a
new graph costs more than idle rows, and the more rows the better.

A large model is trained on the CPU with labels of one length, the context's: with another one it would hold, as a graph
of ViT-L/14 does, 2 GiB more.
"""

from collections.abc import Iterator

import mindspore as ms

WHOLE_CONTEXT = 2**16  # tokens; longer than any


def _on_cpu() -> bool:
    return ms.get_context("device_target") == "CPU"


def usual(on_cpu: bool | None = None) -> int:
    """How many frames or captions the model takes at a time where nobody says it.

    Args:
        on_cpu: whether the model runs on CPUs; None: as this process does.
    """
    return 8 if (_on_cpu() if on_cpu is None else on_cpu) else 64


def encoded_at_once() -> tuple[int, ...]:
    """How many images or texts one call of an encoder may take, largest first."""
    return (4, 1) if _on_cpu() else (64, 8, 1)


def captioned_at_once() -> tuple[int, ...]:
    """For how many images a decoder may be compiled, smallest first."""
    return (1, 4, 8) if _on_cpu() else (1, 2, 4, 8, 16, 32, 64)


def may_shrink() -> bool:
    """Whether a batch most of whose images are finished goes on as a smaller one."""
    return _on_cpu()


def label_lengths(large: bool) -> list[int]:
    """The lengths that labels of captions are cut to in training where none are given; empty: many."""
    return [WHOLE_CONTEXT] if large and _on_cpu() else []


def padded(count: int) -> int:
    """The size that `count` images are captioned in; past the largest one the next power of two."""
    fitting = [size for size in captioned_at_once() if size >= count]
    return fitting[0] if fitting else 1 << (count - 1).bit_length()


def parts(count: int) -> Iterator[slice]:
    """Slices over `count` items whose lengths are among `encoded_at_once`, longest first."""
    start = 0
    while start < count:
        size = next(n for n in encoded_at_once() if n <= count - start)
        yield slice(start, start + size)
        start += size
