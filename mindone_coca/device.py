"""Where and how MindSpore runs: device, graph or PyNative mode, jit level, memory limit."""

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import mindspore as ms

from mindone_coca.config import DeviceTarget, Dtype, JitLevel, Kernels, Mode, Precision
from mindone_coca.errors import InputError
from mindone_coca.launcher import own_device_id

# Products by what their matrix unit computes in. 910A: Atlas training; 310P: Atlas inference.
Product = Literal["CPU", "GPU", "A2", "A3", "910A", "310P", "another Ascend"]
FUSED_PRODUCTS: tuple[Product, ...] = ("A2", "A3")
BFLOAT16_PRODUCTS: tuple[Product, ...] = ("GPU", "A2", "A3")
# The parts of a chip's name that tell its product, the first that fits; 910B without a number is one of the first 910s.
CHIPS: tuple[tuple[str, Product], ...] = (("910B[1-9]", "A2"), ("910_93", "A3"), ("910", "910A"), ("310P", "310P"))

_configured = False
_kernels: Kernels = "auto"
_half_on_cpu = False
_memory: float | None = None  # GB, as set
FIRST_MEMORY = 2.0  # GB that are taken at a time, MindSpore's default


def configure(
    target: DeviceTarget = "auto",
    device_id: int | None = None,
    mode: Mode = "graph",
    jit_level: JitLevel | None = None,
    max_memory: str | None = None,
    kernels: Kernels = "auto",
    deterministic: bool = False,
) -> None:
    """Set up this process; call it before building a model. Without a call, a model sets graph mode, default device.

    Args:
        target: `auto` takes the device this MindSpore installation finds, else `CPU`, `GPU` or `Ascend`.
        device_id: which of several devices; None takes that of the launcher (DEVICE_ID), else lets MindSpore choose.
        jit_level: MindSpore's graph optimisation, `O0`, `O1` or `O2`; None keeps the device's default.
        max_memory: device memory limit such as `30GB`.
        deterministic: on Ascend take operators that give the same digits each time, and slower ones for it. Say it
            before processes join. On the CPU they do anyway.
        kernels: `auto` builds models of the fastest forms that the device has, `portable` of those that all have.
    Raises:
        InputError: a value that is not known, or a device that is not there.
    """
    global _configured, _kernels
    choices = {
        "device_target": (target, DeviceTarget),
        "mode": (mode, Mode),
        "jit_level": (jit_level or "O0", JitLevel),
        "kernels": (kernels, Kernels),
    }
    for name, (value, known) in choices.items():
        if value not in get_args(known):
            raise InputError(f"{name}: must be one of {', '.join(get_args(known))}, got {value!r}")
    if target == "auto" and device_id is not None:
        target = ms.get_context("device_target")
    if target != "auto":
        # asked first, because set_device also writes lines of its own where there is none
        if not getattr(ms.device_context, target.lower()).is_available():
            raise InputError(f"device_target {target}: not available here; choose another")
        if device_id is None and target != "CPU":
            device_id = own_device_id(os.environ)  # without a number set_device takes 0, whatever a launcher says
        try:
            ms.set_device(target, device_id)
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"device_target {target}: cannot be chosen: {reason}") from None
    ms.set_context(mode=ms.GRAPH_MODE if mode == "graph" else ms.PYNATIVE_MODE)
    if deterministic:
        ms.set_deterministic(True)
    if jit_level:
        ms.set_context(jit_level=jit_level)
    if max_memory:
        _limit_memory(max_memory)
    _configured, _kernels = True, kernels


def _limit_memory(text: str) -> None:
    """Limit the device's memory, which MindSpore lets a process say once."""
    global _memory
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*GB?", text.strip(), re.IGNORECASE)
    size = float(match[1]) if match else 0.0
    if not size:
        raise InputError(f"max_device_memory: write it like 30GB, got {text!r}")
    if size == _memory:
        return
    first = f"{min(size, FIRST_MEMORY):g}GB"
    try:
        ms.runtime.set_memory(init_size=first, increase_size=first, max_size=f"{size:g}GB")
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"max_device_memory {text}: cannot be set any more in this process: {reason}") from None
    _memory = size


def ensure_configured() -> None:
    """Set the default, graph mode, unless `configure` was called."""
    if not _configured:
        configure()


def chosen_kernels() -> Kernels:
    """What `configure` was told."""
    return _kernels


def product() -> Product:
    """The kind of device that this process runs on."""
    target = ms.get_context("device_target")
    return product_of(ms.hal.get_device_name()) if target == "Ascend" else target


def product_of(chip: str) -> Product:
    """The product of an Ascend chip's name, such as Ascend910B4."""
    return next((product for part, product in CHIPS if re.search(part, chip)), "another Ascend")


def training_precision() -> Precision:
    """What `train.precision: auto` stands for on this device."""
    halves: dict[Product, Precision] = {"A2": "bf16", "A3": "bf16", "910A": "fp16", "310P": "fp16"}
    return halves.get(product(), "fp32")


@contextmanager
def half_on_cpu() -> Iterator[None]:
    """Within, float16 is float16 on the CPU too: for graphs that another device will run, and for tests of it."""
    global _half_on_cpu
    before, _half_on_cpu = _half_on_cpu, True
    try:
        yield
    finally:
        _half_on_cpu = before


def compute_dtype(name: Dtype | None, training: bool = False) -> ms.Type:
    """`float32`, `float16` or `bfloat16` as a MindSpore type.

    On the CPU MindSpore multiplies float16 in software: ViT-L/14 takes twelve times as long, and three times the
    memory. So float16 is computed in float32 there, weights too, with a warning; training, whose rounding and loss
    scale one may want to try, is warned alone.

    Raises:
        InputError: the device has it not.
    """
    name = name or "float32"
    if name not in get_args(Dtype):
        raise InputError(f"dtype: must be one of {', '.join(get_args(Dtype))}, got {name!r}")
    if name == "bfloat16" and (found := product()) not in BFLOAT16_PRODUCTS:
        where = "the CPU" if found == "CPU" else f"Ascend {found}"
        raise InputError(
            f"dtype bfloat16: MindSpore multiplies no bfloat16 matrices on {where}; use float16 or float32"
        )
    if name == "float16" and product() == "CPU" and not _half_on_cpu:
        slow = "MindSpore multiplies float16 in software on the CPU, many times slower than float32 and in more memory"
        if training:
            warnings.warn(f"{slow}; train.precision fp32 is faster here", stacklevel=2)
        else:
            warnings.warn(f"{slow}; so float16 is computed in float32 here", stacklevel=2)
            return ms.float32
    return getattr(ms, name)
