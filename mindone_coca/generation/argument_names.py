"""Keyword arguments by wrong names are refused in one line with the nearest right one."""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

from mindone_coca.errors import UnknownArgumentError
from mindone_coca.typed_mapping import nearest

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def check_argument_names(function: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raises UnknownArgumentError for the first given name that is not known."""
    known = list(known)
    for name in given:
        if name not in known:
            raise UnknownArgumentError(f"{function}: unknown argument {name!r}{nearest(name, known) or '; remove it'}")


def names_arguments(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Let wrong names of a function's arguments be refused by `check_argument_names`; its signature stays."""
    known = list(inspect.signature(function).parameters)

    @functools.wraps(function)
    def checked(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        check_argument_names(function.__name__, kwargs, known)
        return function(*args, **kwargs)

    return checked
