"""The form of an operation that is fastest on a device, chosen here and nowhere else.

Each function gives what does one operation. It is called when a model is built; the layers then call what it gave in
their graphs, and know no device. `device.configure(kernels="portable")` chooses the plain forms everywhere.

The forms are functions that all layers share, not cells of each: MindSpore reads the source of each cell anew, which is
most of a graph's compilation.
"""

from collections.abc import Callable
from types import ModuleType

from mindspore import Tensor, nn

from mindone_coca import device
from mindone_coca.kernels import ascend, cpu, plain
from mindone_coca.kernels.plain import MASKED as MASKED

Kernel = Callable[..., Tensor]


def _on_cpu() -> bool:
    return device.chosen_kernels() == "auto" and device.product() == "CPU"


def _fused() -> bool:
    return device.chosen_kernels() == "auto" and device.product() in device.FUSED_PRODUCTS


def _forms() -> ModuleType:
    """Where the forms are that no fused one takes the place of."""
    return cpu if _on_cpu() else plain


def _forms_with_fused() -> ModuleType:
    return ascend if _fused() else _forms()


def linear() -> Kernel:
    """(x (..., C), weight (D, C), bias (D,) or None) -> x W^T + b (..., D), all of one type."""
    return _forms().linear


def add_to_each() -> Kernel:
    """(x (..., *S), y of shape S) -> x + y: a bias or positions, the same for each of a batch."""
    return _forms().add_to_each


def multiply() -> Kernel:
    """(x, y) -> x * y of x's shape, for y of the same rank whose axes are x's or 1."""
    return _forms().multiply


def layer_norm() -> Kernel:
    """(x (..., D), gamma (D,), beta (D,)) -> x normalised over its last axis, all float32."""
    return _forms_with_fused().layer_norm


def gelu() -> Kernel:
    """The exact GELU."""
    return _forms_with_fused().gelu


def attention() -> Kernel:
    """(query (..., Q, d), key and value (..., K, d), mask) -> scaled dot-product attention (..., Q, d).

    The mask, or None, is added to the float32 scores (..., Q, K), and has their rank, each axis theirs or 1.
    """
    return _forms_with_fused().attention


def decode_attention() -> Kernel:
    """As `attention`, over (B, H, Q, d) and (B, H, K, d), where a step of decoding has few queries and no gradient."""
    return ascend.decode_attention if _fused() else attention()


def swap_middle() -> Kernel:
    """x (A, B, C, d) -> (A, C, B, d)."""
    return _forms().swap_middle


def take_rows() -> Kernel:
    """(table (V, D), ids (...)) -> rows (..., D)."""
    return _forms().take_rows


def top_k(k: int) -> nn.Cell:
    """A cell x (R, V) -> the k best of each row, best first, and their columns, int32, both (R, k)."""
    return _forms().TopK(k)
