"""Small helpers for tensors."""

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops


def as_tensor(x: Tensor | np.ndarray | list, dtype: ms.Type | None = None) -> Tensor:
    """An array or list as a tensor, and as one of `dtype` if that is given."""
    x = x if isinstance(x, Tensor) else Tensor(np.ascontiguousarray(x))
    return x if dtype is None or x.dtype == dtype else x.astype(dtype)


def normalize(x: Tensor) -> Tensor:
    """Unit length over the last axis, in float32, as torch.nn.functional.normalize."""
    x = x.astype(ms.float32)
    return x / ops.maximum(ops.sqrt((x * x).sum(-1, keepdims=True)), 1e-12)
