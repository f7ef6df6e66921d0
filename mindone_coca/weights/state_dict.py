"""Which of a checkpoint's tensors are the model's: the state dict in a training checkpoint, wrappers' prefixes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from mindone_coca.errors import InputError
from mindone_coca.weights.formats.pickle_reader import TensorRef

T = TypeVar("T")

_STATE_KEYS = ("state_dict", "model_state_dict", "model", "module")
_EMA_KEYS = ("state_dict_ema", "ema_state_dict", "model_ema", "ema")
# torch's DistributedDataParallel and AveragedModel, torch.compile, which may be nested in any order.
_WRAPPERS = ("module.", "_orig_mod.")
# Buffers that older open_clip versions saved, the counter of torch's AveragedModel.
_BUFFERS = ("attn_mask", "text.attn_mask", "text_decoder.attn_mask", "n_averaged")
# What MindSpore optimisers and training loops keep beside the parameters.
_TRAINING_STATE = (
    *("moments.", "moment1.", "moment2.", "adam_m.", "adam_v.", "accum.", "beta1_power", "beta2_power"),
    *("learning_rate", "global_step", "epoch_num", "step_num", "current_iterator_step", "last_overflow_iterator_step"),
    *("loss_scale", "scale_sense", "random_op"),
)


def _is_state(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(item, TensorRef) for item in value.values())


def _under(tree: dict, keys: tuple[str, ...]) -> tuple[str, dict] | None:
    """The first of `keys` that holds a state dict, directly or one of `_STATE_KEYS` deeper."""
    for key in keys:
        value = tree.get(key)
        if _is_state(value):
            return key, value
        if isinstance(value, dict):
            for inner in _STATE_KEYS:
                if _is_state(value.get(inner)):
                    return f"{key}.{inner}", value[inner]
    return None


def pick_state_dict(tree: Any, path: Path, ema: bool) -> tuple[dict[str, TensorRef], list[str]]:
    """Find the model's tensors in the object tree of a torch checkpoint.

    Bare, under `state_dict` (or `model_state_dict`, `model`, `module`), or with `ema` the averaged weights
    under `state_dict_ema` (or `ema_state_dict`, `model_ema`, `ema`). Without `ema` the plain weights are taken.

    Returns:
        The tensors by name, and notes on what was chosen or left out.

    Raises:
        InputError: no state dict, or not the kind asked for.
    """
    if not isinstance(tree, dict):
        raise InputError(f"{path}: holds a {type(tree).__name__}, not a state dict")
    averaged, plain = _under(tree, _EMA_KEYS), _under(tree, _STATE_KEYS)
    if ema:
        if averaged is None:
            raise InputError(f"{path}: has no averaged (EMA) weights; convert without --ema")
        key, state = averaged
    elif plain is not None:
        key, state = plain
    elif averaged is not None and not _is_state(tree):
        raise InputError(f"{path}: has averaged (EMA) weights only; pass --ema to take them")
    elif _is_state(tree):
        key, state = "", tree
    else:
        found = ", ".join(str(name)[:40] for name in list(tree)[:5]) or "nothing"
        raise InputError(f"{path}: no state dict found in it, only {found}")
    notes = [f"took {key}" + ("" if ema or averaged is None else f", not the averaged weights under {averaged[0]}")]
    tensors = {name: value for name, value in state.items() if isinstance(value, TensorRef)}
    if not all(isinstance(name, str) for name in tensors):
        raise InputError(f"{path}: a tensor's name is no text")
    return tensors, notes if key else []


def _unwrapped(name: str) -> str:
    stripped = name
    while stripped.startswith(_WRAPPERS):
        stripped = stripped.split(".", 1)[1]
    return stripped.replace("._orig_mod.", ".")  # a compiled submodule


def plain_names(entries: Mapping[str, T], path: Path) -> tuple[dict[str, T], list[str]]:
    """Strip wrappers' prefixes and leave out known extra entries (mask buffers, optimiser state).

    Raises:
        InputError: two entries get the same name.
    """
    result: dict[str, T] = {}
    left_out = 0
    for name, value in entries.items():
        plain = _unwrapped(name)
        if plain in _BUFFERS or plain.startswith(_TRAINING_STATE):
            left_out += 1
        elif plain in result:
            raise InputError(f"{path}: {plain!r} is there twice, with and without a wrapper's prefix")
        else:
            result[plain] = value
    return result, [f"{left_out} known extra entries left out (buffers, training state)"] if left_out else []
