"""Keyword arguments by wrong names are refused in one line with the nearest right one."""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

from mindone_coca.errors import UnknownArgumentError
from mindone_coca.typed_mapping import nearest

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


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


def names_arguments(
    function: Callable[Parameters, Result], elsewhere: Mapping[str, str] | None = None
) -> Callable[Parameters, Result]:
    """Let wrong names of a function's arguments be refused by `check_argument_names`; its signature stays.

    In the message a constructor and a call have their class's name, a method its own.
    """
    known = [name for name in inspect.signature(function).parameters if name != "self"]
    *owner, name = function.__qualname__.split(".")
    shown = owner[-1] if name in ("__init__", "__call__") else name

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Result:
        check_argument_names(shown, kwargs, known, elsewhere)
        return function(*args, **kwargs)

    return checked
