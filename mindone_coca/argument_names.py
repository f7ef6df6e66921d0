"""Arguments by wrong names, or numbers and names of a wrong type, are refused in one line."""

import functools
import inspect
import numbers
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

from mindone_coca.errors import InputError, UnknownArgumentError
from mindone_coca.typed_mapping import nearest, show

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

# what is taken for a type; a bool is a whole number too
_KINDS: dict[type, type] = {
    int: numbers.Integral,
    float: numbers.Real,
    bool: numbers.Integral,
    str: str,
    types.NoneType: types.NoneType,
}


def check_argument_names(
    function: str, given: Iterable[str], known: Iterable[str], elsewhere: Mapping[str, str] | None = None
) -> None:
    """Raises UnknownArgumentError for the first given name that is not known.

    Args:
        elsewhere: what to do with names that belong to another function.
    """
    known, elsewhere = list(known), elsewhere or {}
    for name in given:
        if name not in known:
            hint = f"; {elsewhere[name]}" if name in elsewhere else nearest(name, known) or "; remove it"
            raise UnknownArgumentError(f"{function}: unknown argument {name!r}{hint}")


def check_argument_types(given: Mapping[str, Any], annotations: Mapping[str, Any]) -> None:
    """Raises InputError for the first value that is no number or no text where its annotation names nothing else.

    Arrays and tensors of one number pass for it.
    """
    for name, value in given.items():
        hint = annotations[name]
        hints = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        if not all(part in _KINDS for part in hints) or getattr(value, "ndim", None) == 0:
            continue
        if not isinstance(value, tuple(_KINDS[part] for part in hints)):
            expected = " or ".join("None" if part is types.NoneType else part.__name__ for part in hints)
            raise InputError(f"{name}: must be {expected}, got {show(value)}")


def names_arguments(
    function: Callable[Parameters, Result], elsewhere: Mapping[str, str] | None = None
) -> Callable[Parameters, Result]:
    """Let wrong names and types of a function's arguments be refused by the checks above; its signature stays.

    In the message a constructor and a call have their class's name, a method its own.
    """
    signature = inspect.signature(function)
    annotations = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    known = [name for name in annotations if name != "self"]
    *owner, name = function.__qualname__.split(".")
    shown = owner[-1] if name in ("__init__", "__call__") else name

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Result:
        check_argument_names(shown, kwargs, known, elsewhere)
        check_argument_types(dict(zip(annotations, args)) | kwargs, annotations)
        return function(*args, **kwargs)

    return checked
