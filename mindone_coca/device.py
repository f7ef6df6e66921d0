"""Where and how MindSpore runs: device, graph or PyNative mode, jit level, memory limit."""

import re

import mindspore as ms

from mindone_coca.config import DTYPES
from mindone_coca.errors import InputError

TARGETS = ("auto", "CPU", "GPU", "Ascend")
MODES = ("graph", "pynative")
JIT_LEVELS = ("O0", "O1", "O2")
_configured = False


def configure(
    target: str = "auto",
    device_id: int | None = None,
    mode: str = "graph",
    jit_level: str | None = None,
    max_memory: str | None = None,
) -> None:
    """Set up this process; call it before building a model. Without a call, a model sets graph mode, default device.

    Args:
        target: `auto` takes the device this MindSpore installation finds, else `CPU`, `GPU` or `Ascend`.
        device_id: which of several devices; None lets MindSpore (or msrun) choose.
        jit_level: MindSpore's graph optimisation, `O0`, `O1` or `O2`; None keeps the device's default.
        max_memory: device memory limit such as `30GB`.
    Raises:
        InputError: a value that is not known, or a device that is not there.
    """
    global _configured
    for name, value, known in (("device_target", target, TARGETS), ("mode", mode, MODES)):
        if value not in known:
            raise InputError(f"{name}: must be one of {', '.join(known)}, got {value!r}")
    if jit_level not in (None, *JIT_LEVELS):
        raise InputError(f"jit_level: must be one of {', '.join(JIT_LEVELS)}, got {jit_level!r}")
    if target == "auto" and device_id is not None:
        target = ms.get_context("device_target")
    if target != "auto":
        try:
            ms.set_device(target, device_id)
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"device_target {target}: not available here; choose another ({reason})") from None
    ms.set_context(mode=ms.GRAPH_MODE if mode == "graph" else ms.PYNATIVE_MODE)
    if jit_level:
        ms.set_context(jit_level=jit_level)
    if max_memory:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*GB?", max_memory.strip(), re.IGNORECASE)
        if not match:
            raise InputError(f"max_device_memory: write it like 30GB, got {max_memory!r}")
        ms.set_context(max_device_memory=f"{match[1]}GB")
    _configured = True


def ensure_configured() -> None:
    """Set the default, graph mode, unless `configure` was called."""
    if not _configured:
        configure()


def compute_dtype(name: str | None) -> ms.Type:
    """`float32`, `float16` or `bfloat16` as a MindSpore type. Raises InputError where the device has it not."""
    name = name or "float32"
    if name not in DTYPES:
        raise InputError(f"dtype: must be one of {', '.join(DTYPES)}, got {name!r}")
    if name == "bfloat16" and ms.get_context("device_target") == "CPU":
        raise InputError("dtype bfloat16: MindSpore multiplies no bfloat16 matrices on the CPU; use float16 or float32")
    return getattr(ms, name)
