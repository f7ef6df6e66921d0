"""Prompts as callers have them, the tokenizer's own output among them: with end tokens, padding, of unequal length.

A prompt ends before its first end token, whatever follows. One without an end token ends before the padding at its end.
So a row means the same whatever stands beside it in a batch. Padding before other tokens stays: id 0 is also CLIP's
piece "!" within a word, though never the last piece of a text. To keep a last 0 as a token, set an end token behind it
or choose another pad_token_id.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from mindone_coca.errors import InputError
from mindone_coca.token_ids import id_array


def read_prompts(
    text: Any, batch: int, start_id: int, end_ids: tuple[int, ...], pad_id: int
) -> tuple[list[np.ndarray], bool]:
    """The tokens to start from, (P,) for each of `batch` images, and whether they were given as one prompt for all.

    Args:
        text: ids (P,) or (B, P), or a list of B rows of any lengths; None is the start token alone.
    Raises:
        InputError: what is no prompt for each image, or an empty one.
    """
    if text is None:
        return [np.array([start_id])] * batch, False
    if isinstance(text, (list, tuple)):  # rows, perhaps of unequal length, or the ids of one prompt
        rows = [id_array("text", row) for row in text]
        flat = all(row.ndim == 0 for row in rows)
        rows = [np.array(rows)] if flat else rows
        got = "rows of shapes " + ", ".join(str(row.shape) for row in rows[:3]) + ", ..." * (len(rows) > 3)
    else:
        array = id_array("text", text)
        flat = array.ndim == 1
        rows = [array] if flat else [*np.atleast_1d(array)]
        got = f"{array.dtype} {array.shape}"
    if any(row.ndim != 1 for row in rows) or not (flat or len(rows) == batch):
        raise InputError(f"text: must be ids (P,) or ({batch}, P), got {got}")
    tokens = [_without_padding(row, number, start_id, end_ids, pad_id) for number, row in enumerate(rows)]
    return tokens * batch if flat else tokens, flat


def _without_padding(row: np.ndarray, number: int, start_id: int, end_ids: tuple[int, ...], pad_id: int) -> np.ndarray:
    if not len(row):
        raise InputError(f"text: the prompt in row {number} is empty; give at least the start token")
    if row[0] != start_id and (row == pad_id).all():
        raise InputError(f"text: row {number} is padding alone (id {pad_id}); give at least the start token")
    # in some vocabularies the start token is the end token or padding too, so the first token always stays
    ends = 1 + np.flatnonzero(np.isin(row[1:], end_ids))
    if len(ends):
        return row[: ends[0]].astype(np.int64)
    others = np.flatnonzero(row[1:] != pad_id)
    return row[: 2 + others[-1] if len(others) else 1].astype(np.int64)


def by_length(prompts: Sequence[np.ndarray], most: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The prompts of each length, shortest first, at most so many together: their rows' numbers (n,), ascending, and
    their tokens (n, P)."""
    lengths = np.array([len(prompt) for prompt in prompts])
    for length in np.unique(lengths):
        alike = np.flatnonzero(lengths == length)
        for start in range(0, len(alike), most):
            rows = alike[start : start + most]
            yield rows, np.stack([prompts[row] for row in rows])


def in_order(
    parts: Iterable[tuple[np.ndarray, tuple[np.ndarray, ...]]], each: int, pad_id: int
) -> tuple[np.ndarray, ...]:
    """Put captions of several prompt lengths back into the order of the images.

    Args:
        parts: for each length the images' numbers (n,), and for their `each` captions the ids (n * each, L) and further
            values (n * each,).
        pad_id: fills the rows of shorter parts.
    Returns:
        ids (B * each, longest L) and the further values (B * each,).
    """
    images, captions = zip(*parts)
    order = np.argsort(np.concatenate([(rows[:, None] * each + np.arange(each)).ravel() for rows in images]))
    ids, *values = zip(*captions)
    width = max(part.shape[1] for part in ids)
    padded = [np.pad(part, ((0, 0), (0, width - part.shape[1])), constant_values=pad_id) for part in ids]
    return tuple(np.concatenate(value)[order] for value in (padded, *values))
