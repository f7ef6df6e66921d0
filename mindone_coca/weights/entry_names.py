"""The names of a file's tensors as the model has them: without what wrappers put before and into them."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from shlex import quote
from typing import TypeVar

from mindone_coca.errors import InputError
from mindone_coca.model.families import FAMILIES
from mindone_coca.weights.names import HEAD

T = TypeVar("T")

# torch's DistributedDataParallel and AveragedModel put one before all names; torch.compile, FSDP and activation
# checkpointing put theirs into names, too.
_OUTER = "module"
_INNER = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
# Buffers that older open_clip versions saved, the counter of torch's AveragedModel.
_BUFFERS = ("attn_mask", "text.attn_mask", "text_decoder.attn_mask", "n_averaged")
# What MindSpore optimisers and training loops keep beside the parameters.
_TRAINING_STATE = (
    *("moments.", "moment1.", "moment2.", "adam_m.", "adam_v.", "accum.", "beta1_power", "beta2_power"),
    *("learning_rate", "global_step", "epoch_num", "step_num", "current_iterator_step", "last_overflow_iterator_step"),
    *("loss_scale", "scale_sense", "random_op"),
)
_MAX_PREFIX = 8  # words

_TOWERS = {"visual": "image tower", "text": "text tower", "text_decoder": "multimodal decoder"}
_SCALARS = ("logit_scale", "logit_bias")
# As PEFT, loralib, kohya's scripts and LyCORIS call the factors of an adapter.
_ADAPTER = re.compile(
    r"(^|\.)(lora_(A|B|embedding_A|embedding_B|up|down|mid|magnitude_vector)|hada_w[12]_[ab]|lokr_w[12](_[ab])?)(\.|$)"
)


def _unwrapped(name: str) -> str:
    words = name.split(".")
    words = [word for word in words[:-1] if word not in _INNER] + words[-1:]
    while len(words) > 1 and words[0] == _OUTER:
        del words[0]
    return ".".join(words)


def _is_extra(name: str) -> bool:
    return name in _BUFFERS or name.startswith(_TRAINING_STATE)


def _is_parameter(name: str) -> bool:
    return _is_extra(name) or any(family.to_mindspore(name) or family.to_original(name) for family in FAMILIES)


def _is_known(name: str) -> bool:
    """Whether a model, or the head of a task, has this name; a model's name after `head.` has a prefix too many."""
    return _is_parameter(name) or (name.startswith(HEAD) and not _is_parameter(name.removeprefix(HEAD)))


def _without_words(name: str, count: int) -> str:
    return name.split(".", count)[count]


def common_prefix(names: Iterable[str]) -> str:
    """The words that all names begin with and no model has there, as `network.` around the cell that was trained.

    The name of a tower is no such word where it makes the names known ones: a file with one tower keeps its names.
    """
    names = list(names)
    shared = 0
    words = [name.split(".", _MAX_PREFIX + 1)[:-1] for name in names]
    while words and shared < _MAX_PREFIX and len({tuple(own[: shared + 1]) for own in words}) == 1:
        if len(words[0]) <= shared:
            break
        shared += 1
    known = [sum(_is_known(_without_words(name, count)) for name in names) for count in range(shared + 1)]
    count = known.index(max(known))  # the fewest words, where several do equally well
    return "".join(f"{word}." for word in words[0][:count]) if count else ""


def plain_names(entries: Mapping[str, T], path: Path) -> tuple[dict[str, T], list[str]]:
    """Strip wrappers' prefixes and leave out known extra entries (mask buffers, optimiser state).

    Returns:
        The entries by their plain names, and notes on what was done.

    Raises:
        InputError: two entries get the same name.
    """
    unwrapped = [(_unwrapped(name), value) for name, value in entries.items()]
    prefix = common_prefix(name for name, _ in unwrapped if not _is_extra(name))
    notes = [f"took {prefix!r} off the names of all entries"] if prefix else []
    result: dict[str, T] = {}
    left_out = 0
    for name, value in unwrapped:
        plain = _unwrapped(name.removeprefix(prefix))
        if _is_extra(plain):
            left_out += 1
        elif plain in result:
            raise InputError(f"{path}: {plain!r} is there twice, with and without a wrapper's prefix")
        else:
            result[plain] = value
    if left_out:
        notes.append(f"{left_out} known extra entries left out (buffers, training state)")
    return result, notes


def converter_command(path: Path, options: str) -> str:
    """The converter's command line for a file, to be copied from a message."""
    return f"tools/model_conversion/coca_convert.py --source {quote(str(path))} {options}"


def _models_within(names: list[str]) -> Counter[str]:
    """What the names of whole models in a file begin with, and how many names each has; "" for plain names."""
    found: Counter[str] = Counter()
    for name in names:
        words = name.split(".", _MAX_PREFIX + 1)
        known = (count for count in range(min(len(words), _MAX_PREFIX)) if _is_parameter(".".join(words[count:])))
        if (count := next(known, None)) is not None:
            found[".".join(words[:count])] += 1
    return found


def _refuse_mixture(names: list[str], path: Path) -> None:
    found = _models_within(names)
    (prefix, count), *others = found.most_common() or [("", 0)]
    if prefix and count > found[""] and count < len(names):
        more = "".join(f" or {other!r} ({size})" for other, size in others[:2] if other and size * 2 > count)
        outside = next(name for name in names if not name.startswith(f"{prefix}."))
        raise InputError(
            f"{path}: not all names begin alike: those of a model with {prefix!r} ({count} of {len(names)} entries)"
            f"{more}, others not (such as {outside[:100]!r}); convert the right ones: "
            f"{converter_command(path, f'--key {quote(prefix)}')}"
        )


def refuse_parts(names: Iterable[str], path: Path) -> None:
    """Name what is only a part of a model for what it is.

    Raises:
        InputError: the names are those of an adapter, of one tower alone, or of several things at once.
    """
    names = list(names)
    factors = [name for name in names if _ADAPTER.search(name)]
    if factors:
        raise InputError(
            f"{path}: holds a LoRA adapter ({len(factors)} of {len(names)} entries, first {factors[0][:100]!r}), not "
            "whole weights; merge it into its model first, with PEFT: PeftModel.from_pretrained(model, FOLDER)"
            ".merge_and_unload(), and save that model's state_dict()"
        )
    towers = {name.split(".")[0] for name in names} - set(_SCALARS)
    if len(towers) == 1 and (tower := towers.pop()) in _TOWERS:
        raise InputError(
            f"{path}: holds only the {_TOWERS[tower]} ({len(names)} entries, {tower}.*), and a CoCa model has "
            f"{', '.join(_TOWERS)}; give the checkpoint of the whole model"
        )
    _refuse_mixture(names, path)
