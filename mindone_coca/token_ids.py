"""Token ids that callers give: what is no id of the model's vocabulary is refused before a kernel meets it."""

from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor

from mindone_coca.errors import InputError
from mindone_coca.tensors import as_tensor


def id_array(name: str, ids: Any) -> np.ndarray:
    """Ids as an array of integers of any shape; what is empty may have another type.

    Args:
        name: of the argument, for messages.
    Raises:
        InputError: text, rows of unequal length, numbers that are no integers.
    """
    try:
        array = ids.asnumpy() if isinstance(ids, Tensor) else np.asarray(ids)
    except ValueError:
        raise InputError(f"{name}: rows of unequal length; pad them, as Tokenizer()(texts, length) does") from None
    if array.dtype.kind in "US" or (array.dtype == object and any(isinstance(one, str | bytes) for one in array.flat)):
        raise InputError(f"{name}: must be ids, got text; tokenize it first: Tokenizer()(texts, context_length)")
    if array.size and array.dtype.kind not in "iu":
        raise InputError(f"{name}: must be ids as integers, got {array.dtype} {array.shape}")
    return array


def check_vocabulary(name: str, ids: np.ndarray, vocab_size: int) -> None:
    """Refuse ids (B, T) beyond the vocabulary. Raises InputError naming the first of them, and its row."""
    outside = np.argwhere((ids < 0) | (ids >= vocab_size))
    if len(outside):
        row, column = outside[0]
        raise InputError(
            f"{name}: id {ids[row, column]} in row {row} is not in [0, {vocab_size}), the model's vocabulary; use the "
            "tokenizer that the model was trained with"
        )


def id_tensor(name: str, ids: Any, vocab_size: int) -> Tensor:
    """Ids (B, T) of a vocabulary as an int32 tensor.

    They are judged on the host, before the cast that would turn 2 ** 32 into 0. For a tensor that means to wait for it:
    public methods do so, training's graphs read ids that the tokenizer made.
    """
    array = id_array(name, ids)
    if array.ndim != 2 or array.size == 0:
        raise InputError(f"{name}: must be ids of shape (B, T), got {array.shape}")
    check_vocabulary(name, array, vocab_size)
    return as_tensor(ids if isinstance(ids, Tensor) else array, ms.int32)
