"""Reads the pickle inside a torch checkpoint without running anything it asks for.

A pickle is a program for a small stack machine. `pickle.loads` lets it call any Python function; this
machine knows the dozen instructions that `torch.save` writes for dicts, lists, numbers, text and tensors,
and builds descriptions of tensors only. Whatever else a file asks for is refused by name.
"""

import io
import pickletools
from dataclasses import dataclass
from typing import Any

from mindone_coca.errors import InputError
from mindone_coca.weights.formats.dtypes import FROM_TORCH

# A training checkpoint of L/14 with optimiser state takes about 100,000 instructions.
_MAX_INSTRUCTIONS = 1_000_000
_MAX_RANK = 8


@dataclass(frozen=True)
class StorageRef:
    """A storage: the record `data/<key>` of the archive, holding `size` elements."""

    dtype: str
    key: str
    size: int


@dataclass(frozen=True)
class TensorRef:
    """A tensor: a strided view into a storage; offset and strides count elements."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Global:
    """The name of a Python object; a name is all it ever is here."""

    name: str


class _Mark:
    pass


_MARK = _Mark()


def _sizes(value: Any) -> tuple[int, ...]:
    ok = isinstance(value, tuple) and len(value) <= _MAX_RANK
    if not ok or not all(type(n) is int and 0 <= n < 2**62 for n in value):
        raise ValueError("a tensor with impossible sizes")
    return value


def _ordered_dict(pairs: Any = ()) -> dict:
    result = {}
    for pair in pairs:
        key, value = pair
        result[_key(key)] = value
    return result


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_flags: Any) -> TensorRef:
    if not isinstance(storage, StorageRef) or type(offset) is not int or offset < 0:
        raise ValueError("a tensor without a storage")
    shape, strides = _sizes(shape), _sizes(strides)
    if len(shape) != len(strides):
        raise ValueError("a tensor with impossible sizes")
    return TensorRef(storage, offset, shape, strides)


def _rebuild_parameter(data: Any, *_flags: Any) -> TensorRef:
    if not isinstance(data, TensorRef):
        raise ValueError("a parameter without a tensor")
    return data


# The callables a state dict or a training checkpoint uses, each by a harmless stand-in.
_CALLS = {
    "collections OrderedDict": _ordered_dict,
    "torch._utils _rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils _rebuild_parameter": _rebuild_parameter,
    "torch Size": _sizes,
}


def _key(value: Any) -> Any:
    # Containers as keys are refused: hashing a nest of tuples can take time exponential in its depth.
    if not isinstance(value, str | int | float | bool | None):
        raise ValueError("a dict key that is no text or number")
    return value


def _storage(value: Any) -> StorageRef:
    kind, dtype, key, _location, size = value
    if kind != "storage" or not isinstance(key, str) or type(size) is not int or not 0 <= size < 2**62:
        raise ValueError("a malformed tensor storage")
    name = dtype.name.removeprefix("torch ") if isinstance(dtype, _Global) else str(dtype)
    if name not in FROM_TORCH:
        raise InputError(f"a tensor of type {name} is not supported")
    return StorageRef(FROM_TORCH[name].name, key, size)


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def pop_to_mark(self) -> list[Any]:
        items = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise ValueError("items set on something that is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_key(key)] = value

    def append(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise ValueError("items appended to something that is no list")
        self.stack[-1].extend(items)

    def call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, _Global) or function.name not in _CALLS or not isinstance(arguments, tuple):
            raise ValueError("a call of something that is no function")
        self.stack.append(_CALLS[function.name](*arguments))

    def look_up(self, name: str) -> None:
        if name not in _CALLS and name.removeprefix("torch ") not in FROM_TORCH:
            shown = name.replace(" ", ".")[:100]
            if shown.startswith("torch.") and shown.endswith("Storage"):
                raise InputError(f"it holds tensors of type {shown}, which is not supported")
            raise InputError(f"it refers to {shown!r}, which no tensor needs; it was not run")
        self.stack.append(_Global(name))

    def step(self, opcode: str, argument: Any) -> None:
        """Carry out one instruction, except STOP."""
        stack, push = self.stack, self.stack.append
        if opcode in ("BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"):
            push(argument)
        elif opcode in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif opcode == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif opcode in ("BINGET", "LONG_BINGET"):
            push(self.memo[argument])
        elif opcode == "MARK":
            push(_MARK)
        elif opcode in ("NONE", "NEWTRUE", "NEWFALSE"):
            push({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode])
        elif opcode == "EMPTY_DICT":
            push({})
        elif opcode == "EMPTY_LIST":
            push([])
        elif opcode == "EMPTY_TUPLE":
            push(())
        elif opcode in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(opcode[-1])
            if len(stack) < count:
                raise IndexError
            stack[-count:] = [tuple(stack[-count:])]
        elif opcode == "TUPLE":
            push(tuple(self.pop_to_mark()))
        elif opcode == "SETITEM":
            value, key = stack.pop(), stack.pop()
            self.set_items([key, value])
        elif opcode == "SETITEMS":
            self.set_items(self.pop_to_mark())
        elif opcode == "APPEND":
            item = stack.pop()
            self.append([item])
        elif opcode == "APPENDS":
            self.append(self.pop_to_mark())
        elif opcode == "GLOBAL":
            self.look_up(argument)
        elif opcode == "STACK_GLOBAL":
            name, module = stack.pop(), stack.pop()
            self.look_up(f"{module} {name}")
        elif opcode == "BINPERSID":
            push(_storage(stack.pop()))
        elif opcode == "REDUCE":
            self.call()
        elif opcode == "BUILD":
            # A state dict carries its module versions as an attribute; nothing here has attributes.
            stack.pop()
            if type(stack[-1]) is not dict:
                raise ValueError("attributes set on something that is no dict")
        elif opcode not in ("PROTO", "FRAME"):
            raise ValueError(f"instruction {opcode}, which torch.save does not write")


def read_pickle(data: bytes, origin: str) -> Any:
    """The object tree of a torch pickle: dicts, lists, tuples, numbers, text and `TensorRef`s.

    Raises:
        InputError: the pickle is damaged, or asks for anything else than tensors in plain containers.
            `origin` is the file named in the message.
    """
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(io.BytesIO(data))):
            if opcode.name == "STOP":
                (result,) = machine.stack
                return result
            if count > _MAX_INSTRUCTIONS:
                raise ValueError("more instructions than a checkpoint needs")
            machine.step(opcode.name, argument)
        raise ValueError("it does not end")
    except InputError as error:
        raise InputError(f"{origin}: refused: {error}") from None
    except (ValueError, TypeError, KeyError, IndexError, UnicodeError, OverflowError) as error:
        raise InputError(
            f"{origin}: refused: damaged or not a state dict: {str(error)[:150] or 'it breaks off'}"
        ) from error
