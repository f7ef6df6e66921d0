"""Shapes of parameters against those that a config expects."""

from collections.abc import Mapping
from pathlib import Path

from mindone_coca.errors import InputError
from mindone_coca.model.family import Shape

_SHOWN = 3  # names listed of each kind of mistake


def _some(names: list[str]) -> str:
    more = ", ..." if len(names) > _SHOWN else ""
    return f"{len(names)} ({', '.join(name[:80] for name in names[:_SHOWN])}{more})"


def same_shape(name: str, found: Shape, expected: Shape) -> bool:
    """Whether shapes agree; for the logit scale and bias, () and (1,) are the same, as in open_clip."""
    if name in ("logit_scale", "logit_bias"):
        return {found, expected} <= {(), (1,)}
    return found == expected


def check_shapes(expected: Mapping[str, Shape], found: Mapping[str, Shape], path: Path) -> None:
    """Compare names and shapes strictly; both sides use the same naming.

    Raises:
        InputError: one line with how many entries are missing, unexpected or of another shape, and the first few.
    """
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    misshaped = [
        f"{name} {list(found[name])} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in found and not same_shape(name, found[name], shape)
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", misshaped))
    wrong = "; ".join(f"{kind}: {_some(names)}" for kind, names in kinds if names)
    if wrong:
        raise InputError(f"{path}: does not fit the model config: {wrong}; use the config these weights were made with")
