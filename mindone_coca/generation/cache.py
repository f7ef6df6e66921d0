"""The static key/value cache, the few lengths that it comes in, and which of its slots a row sees.

An image's rows share its slots: each beam writes its new key and value into slots of its own, and where beams branch,
nothing is moved. A table on the host, the lineage, says whose slot holds each position of a row.
"""

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from mindone_coca.kernels import MASKED

LENGTH_STEP = 32  # cache lengths are multiples of this, up to the context
UNUSED = -1  # in a lineage: no beam's slot holds this position


def cache_sizes(limit: int) -> list[int]:
    """The lengths that a cache may have, where `limit` positions can be run."""
    return [*range(LENGTH_STEP, limit, LENGTH_STEP), limit]


def prompt_sizes(limit: int) -> list[int]:
    """The lengths that prompts are padded to."""
    return sorted({*cache_sizes(limit), *(n for n in (1, 8, 16) if n < limit)})


def round_up(count: int, sizes: Sequence[int]) -> int:
    """The smallest of the ascending sizes that `count` fits into."""
    return next(size for size in sizes if size >= count)


class KeyValueCache(nn.Cell):
    """The keys and values by turns of all layers that attend to text, for images that have `beams` rows each.

    Args:
        heads: for each layer its heads H and their width d.
        length: positions.

    Attributes:
        tensors: each (images, H, beams * length, d), in place of which a step writes.
    """

    def __init__(self, heads: Sequence[tuple[int, int]], images: int, beams: int, length: int, dtype: ms.Type) -> None:
        super().__init__()
        self.images, self.beams, self.length = images, beams, length
        shapes = [(images, count, beams * length, width) for count, width in heads for _ in ("key", "value")]
        name = f"cache_{images}x{beams}x{length}"
        self.tensors = ParameterTuple(
            [
                Parameter(ops.zeros(shape, dtype), name=f"{name}.{i}", requires_grad=False)
                for i, shape in enumerate(shapes)
            ]
        )

    def take_over(self, images: np.ndarray, other: "KeyValueCache") -> None:
        """Take over these images, by their numbers there, from a cache of another size."""
        index = Tensor(images.astype(np.int32))
        for own, theirs in zip(self.tensors, other.tensors):
            own.set_data(ops.gather(theirs, index, 0))


def stored(keys_values: Tensor, slots: int) -> Tensor:
    """A prompt's keys or values (B, H, T, d) -> as a cache holds them, the first beam's (B, H, slots, d)."""
    batch, heads, count, width = keys_values.shape
    if count == slots:
        return keys_values
    return ops.concat((keys_values, ops.zeros((batch, heads, slots - count, width), keys_values.dtype)), 2)


@ops.constexpr
def first_slots(images: int, heads: int, beams: int, length: int) -> Tensor:
    """Where position 0 of each row and head stands, by image, head and slot: (images * beams * heads, 3)."""
    image, beam, head = np.meshgrid(np.arange(images), np.arange(beams), np.arange(heads), indexing="ij")
    return Tensor(np.stack((image, head, beam * length), -1).reshape(-1, 3).astype(np.int32))


class WriteInPlace(nn.Cell):
    """Write the new position's keys or values (R, H, d) of `beams` rows an image into a Parameter (B, H, slots, d)."""

    def __init__(self) -> None:
        super().__init__()
        self.update = ops.ScatterNdUpdate()

    def construct(self, cached: Parameter, new: Tensor, position: Tensor) -> Tensor:
        images, heads, slots, width = cached.shape
        beams = new.shape[0] // images
        first = first_slots(images, heads, beams, slots // beams)
        places = ops.concat((first[:, :2], first[:, 2:] + position), 1)
        return self.update(cached, places, new.reshape(-1, width))


def hidden_slots(lineage: Tensor) -> Tensor:
    """Lineage (B, beams, L) -> what to add to the attention scores of each row over its image's slots, (B, beams,
    beams, L): MASKED where a slot is not of the row's own past."""
    beams = lineage.shape[1]
    others = lineage[:, :, None] != ops.arange(0, beams, 1).reshape(1, 1, beams, 1)
    return ops.mul(others.astype(ms.float32), MASKED)
