"""Reference operators in the place of Ascend's, which refuse what the documents forbid."""

import importlib
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import mindspore as ms
import pytest
from mindspore import Tensor, ops

from mindone_coca import device
from mindone_coca.kernels import ascend
from tests.kernels.contracts import CONTRACTS

HIDDEN = -1e9


def attend(query: Tensor, key: Tensor, value: Tensor, hidden: Tensor | None, scale: float) -> Tensor:
    """Softmax attention over (B, N, S, D); `hidden` True or 1 where a key is not seen."""
    scores = ops.matmul(query, key.swapaxes(2, 3)).astype(ms.float32) * scale
    if hidden is not None:
        scores = scores + hidden.astype(ms.float32) * HIDDEN
    return ops.matmul(ops.softmax(scores, -1).astype(value.dtype), value)


def flash(call: SimpleNamespace) -> Tensor:
    return attend(call.query, call.key, call.value, call.attn_mask, call.scalar_value)


def infer(call: SimpleNamespace) -> tuple[Tensor, Tensor]:
    """The attention, and a softmax's logarithm that nobody asked for."""
    return attend(call.query, call.key, call.value, call.atten_mask, call.scale), ops.zeros((1,), ms.float32)


def layer_norm(call: SimpleNamespace) -> Tensor:
    operator = ops.LayerNorm(begin_norm_axis=-1, begin_params_axis=-1, epsilon=call.eps)
    return operator(call.input, call.weight, call.bias)[0]


def gelu(call: SimpleNamespace) -> Tensor:
    assert call.approximate == "none"
    x = call.input
    return x * (0.5 * ops.erf(x * 0.5**0.5) + 0.5)


REFERENCES: dict[str, Callable[[SimpleNamespace], Any]] = {
    "flash_attention_score": flash,
    "fused_infer_attention_score": infer,
    "layer_norm": layer_norm,
    "gelu": gelu,
}


def fake_ascend(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """Models built from now on have the forms of an A2, whose operators are references that compute in float32; in
    PyNative mode, where a stub may look at a call. Returns how often each was called."""
    calls: Counter = Counter()
    device.configure(mode="pynative")
    monkeypatch.setattr(device, "product", lambda: "A2")
    monkeypatch.setattr(ascend, "NOT_FUSED", ms.float64)
    for path, contract in CONTRACTS.items():
        home, _, name = path.rpartition(".")

        def stub(*arguments: Any, name: str = name, contract: Any = contract, **keywords: Any) -> Any:
            calls[name] += 1
            return REFERENCES[name](contract.check(arguments, keywords, (ms.float32,)))

        monkeypatch.setattr(importlib.import_module(home), name, stub)
    return calls


# For graph mode, where a stub can only compute.
def graph_flash(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    head_num: int,
    attn_mask: Tensor | None = None,
    scalar_value: float = 1.0,
    input_layout: str = "BSH",
) -> Tensor:
    return attend(query, key, value, attn_mask, scalar_value)
