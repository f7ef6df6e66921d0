"""The form of an operation that is fastest on a device, chosen here and nowhere else.

Each function gives the cell that does one operation. It is called when a model is built; the cell then stands in the
model's graphs, which know no device. `device.configure(kernels="portable")` chooses the plain forms everywhere.
"""

from mindspore import nn

from mindone_coca import device
from mindone_coca.kernels import ascend, cpu, plain
from mindone_coca.kernels.plain import MASKED as MASKED


def _on_cpu() -> bool:
    return device.chosen_kernels() == "auto" and device.product() == "CPU"


def _fused() -> bool:
    return device.chosen_kernels() == "auto" and device.product() in device.FUSED_PRODUCTS


def linear() -> nn.Cell:
    """A cell (x (..., C), weight (D, C), bias (D,) or None) -> x W^T + b (..., D), all of one type."""
    return cpu.LinearOnCPU() if _on_cpu() else plain.PlainLinear()


def add_to_each() -> nn.Cell:
    """A cell (x (..., *S), y of shape S) -> x + y: a bias or positions, the same for each of a batch."""
    return cpu.AddToEachOnCPU() if _on_cpu() else plain.PlainAddToEach()


def multiply() -> nn.Cell:
    """A cell (x, y) -> x * y of x's shape, for y of the same rank whose axes are x's or 1."""
    return cpu.MultiplyOnCPU() if _on_cpu() else plain.PlainMultiply()


def layer_norm() -> nn.Cell:
    """A cell (x (..., D), gamma (D,), beta (D,)) -> x normalised over its last axis, all float32."""
    if _fused():
        return ascend.FusedLayerNorm()
    return cpu.LayerNormOnCPU() if _on_cpu() else plain.PlainLayerNorm()


def gelu() -> nn.Cell:
    """The exact GELU."""
    if _fused():
        return ascend.FusedGELU()
    return cpu.GELU() if _on_cpu() else nn.GELU(approximate=False)


def attention() -> nn.Cell:
    """A cell (query (..., Q, d), key and value (..., K, d), mask) -> scaled dot-product attention (..., Q, d).

    The mask, or None, is added to the float32 scores (..., Q, K), and has their rank, each axis theirs or 1.
    """
    if _fused():
        return ascend.FlashAttention()
    return cpu.AttentionOnCPU() if _on_cpu() else plain.PlainAttention()


def decode_attention() -> nn.Cell:
    """As `attention`, over (B, H, Q, d) and (B, H, K, d), where a step of decoding has few queries and no gradient."""
    return ascend.DecodeAttention() if _fused() else attention()


def swap_middle() -> nn.Cell:
    """A cell x (A, B, C, d) -> (A, C, B, d)."""
    return cpu.SwapMiddleOnCPU() if _on_cpu() else plain.PlainSwapMiddle()


def take_rows() -> nn.Cell:
    """A cell (table (V, D), ids (...)) -> rows (..., D)."""
    return cpu.TakeRowsOnCPU() if _on_cpu() else plain.PlainTakeRows()


def top_k(k: int) -> nn.Cell:
    """A cell x (R, V) -> the k best of each row, best first, and their columns, int32, both (R, k)."""
    return cpu.TopKOnCPU(k) if _on_cpu() else plain.PlainTopK(k)
