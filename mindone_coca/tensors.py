"""Small helpers for tensors."""

from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

from mindone_coca.errors import InputError

# operators themselves: in graphs sooner compiled than Tensor's methods, which are written in Python
cast, total, total_kept = ops.Cast(), ops.ReduceSum(), ops.ReduceSum(keep_dims=True)

_product = ops.MatMul()


def as_tensor(x: Tensor | np.ndarray | list, dtype: ms.Type | None = None) -> Tensor:
    """An array or list as a tensor, and as one of `dtype` if that is given."""
    x = x if isinstance(x, Tensor) else Tensor(np.ascontiguousarray(x))
    return x if dtype is None or x.dtype == dtype else x.astype(dtype)


def image_tensor(images: Any, image_hw: tuple[int, int]) -> Tensor:
    """Images (B, 3, H, W) as a tensor. Raises InputError for what is none, such as pictures that nobody transformed."""
    size = image_hw[0] if image_hw[0] == image_hw[1] else image_hw
    expected = f"shape (B, 3, {', '.join(map(str, image_hw))})"
    hint = f"create_transforms({size})(picture)[None] makes them of a picture"
    if not isinstance(images, Tensor):
        try:
            images = np.asarray(images)
        except (TypeError, ValueError):
            raise InputError(f"images: must have {expected}, got rows of unequal shapes; {hint}") from None
    dtype = str(images.dtype).lower()
    if "float" not in dtype:
        raise InputError(f"images: must be floats of {expected}, got {dtype} {tuple(images.shape)}; {hint}")
    if images.ndim != 4 or tuple(images.shape[1:]) != (3, *image_hw):
        raise InputError(f"images: must have {expected}, got {tuple(images.shape)}; {hint}")
    if images.shape[0] == 0:
        raise InputError("images: give at least one")
    return as_tensor(images)


def normalize(x: Tensor) -> Tensor:
    """Unit length over the last axis, in float32, as torch.nn.functional.normalize."""
    x = cast(x, ms.float32)
    return x / ops.maximum(ops.sqrt(total_kept(x * x, -1)), 1e-12)


def cast_for(weight: Tensor, x: Tensor) -> Tensor:
    """A weight in the type of the activations that it meets. One that is kept in half precision is cast when x is there
    and, where x is computed again for the backward pass, again: the cast of all weights would take more memory than
    is saved."""
    if weight.dtype == x.dtype or weight.dtype == ms.float32:
        return cast(weight, x.dtype)
    return cast(ops.depend(weight, x), x.dtype)


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """(..., 2 D) -> its first and its second half, each (..., D)."""
    return ops.Split(-1, 2)(x)


def times_matrix(x: Tensor, matrix: Tensor) -> Tensor:
    """x (..., C) by a matrix (C, D) -> (..., D). Over flattened rows: ops.matmul would copy the matrix for each item of
    a batch."""
    rows = _product(x.reshape(-1, x.shape[-1]), matrix)
    return rows.reshape(*x.shape[:-1], rows.shape[-1])


@ops.constexpr
def interpolation(count: int, trained: int) -> Tensor:
    """(count, trained): the linear interpolation of `trained` values at `count` places from first to last."""
    places = np.linspace(0, trained - 1, count) if count > 1 else np.array([(trained - 1) / 2])
    return Tensor(np.maximum(0, 1 - np.abs(places[:, None] - np.arange(trained))).astype(np.float32))
