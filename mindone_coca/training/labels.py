"""Labels of captions in few lengths, on which all devices agree."""

from collections.abc import Sequence

import numpy as np

from mindone_coca.distributed import Ranks
from mindone_coca.errors import InputError
from mindone_coca.losses import caption_labels, longest_caption


class CaptionLabels:
    """Ids of captions (B, T) -> labels (B, L - 1), as `losses.caption_labels`, with one L on all devices.

    Each L is a graph to compile. Devices that compiled another one than the rest would let these wait for it.

    Args:
        lengths: the values that L may have besides T; none: those of `caption_labels`.

    Raises InputError for lengths that are none.
    """

    def __init__(self, ranks: Ranks, lengths: Sequence[int] = ()) -> None:
        if any(length < 2 for length in lengths):
            raise InputError(f"data.label_lengths: must be from 2 on, start and end token included, got {[*lengths]}")
        self.ranks, self.lengths = ranks, tuple(sorted(set(lengths)))

    def __call__(self, text: np.ndarray) -> np.ndarray:
        """Every device has to ask, each for its own captions."""
        longest = longest_caption(text)
        if len(self.of(text.shape[1])) != 1:
            longest = self.ranks.highest(longest)
        return caption_labels(text, longest, self.lengths)

    def of(self, context: int) -> list[int]:
        """The given values of L for captions padded to T, the shortest first; none where none were given."""
        return sorted({min(length, context) for length in (*self.lengths, context)}) if self.lengths else []
