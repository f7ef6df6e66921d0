"""Reads the pickle inside a torch checkpoint without running anything it asks for.

A pickle is a program for a small stack machine. `pickle.loads` lets it call any Python function; this machine
builds plain containers, descriptions of tensors and, for whatever else a file asks for, inert placeholders
(torch_objects.py). Whether a placeholder matters is for the caller to say, who knows which part is used.
"""

import io
import pickletools
from typing import Any

from mindone_coca.errors import InputError
from mindone_coca.weights.formats.torch_objects import GlobalName, Unknown, call, dict_key, storage

# A training checkpoint of L/14 with optimiser state takes about 100,000 instructions.
_MAX_INSTRUCTIONS = 1_000_000

# Instructions that push their argument as it is.
_VALUES = {
    *("INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_NOTHING_TO_DO = ("PROTO", "FRAME", "READONLY_BUFFER")


class _Mark:
    pass


_MARK = _Mark()


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.work = 0

    def spend(self, steps: int) -> None:
        """Count work, so that a small file cannot ask for hours of it."""
        self.work += steps
        if self.work > _MAX_INSTRUCTIONS:
            raise ValueError("more instructions than a checkpoint needs; save the state_dict() alone")

    def pop_to_mark(self) -> list[Any]:
        items = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Unknown):
            if target.items is None:
                target.items = {}
            target = target.items
        if type(target) is not dict or len(items) % 2:
            raise ValueError("items set on something that is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[dict_key(key)] = value

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is list:
            target.extend(items)
        elif not isinstance(target, Unknown):
            raise ValueError("items appended to something that is no list")

    def call(self, function: Any, arguments: Any, has_keywords: bool = False) -> None:
        if isinstance(arguments, tuple):
            self.spend(sum(len(argument) for argument in arguments[:1] if isinstance(argument, list | tuple)))
        self.stack.append(call(function, arguments, has_keywords))

    def build(self) -> None:
        """Attributes of the object on top. A state dict has some (module versions), which nothing needs."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Unknown):
            target.state = state
        elif type(target) is not dict:
            raise ValueError("attributes set on something that has none")

    def step(self, opcode: str, argument: Any) -> None:
        """Carry out one instruction, except STOP."""
        if opcode in _VALUES:
            self.stack.append(argument)
        elif opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode])
        elif opcode not in _NOTHING_TO_DO and not (
            self.containers(opcode) or self.memory(opcode, argument) or self.objects(opcode, argument)
        ):
            raise ValueError(f"instruction {opcode}, which no pickle has")

    def containers(self, opcode: str) -> bool:
        """Marks, and instructions that make or fill a container; False for any other."""
        stack, push = self.stack, self.stack.append
        if opcode == "MARK":
            push(_MARK)
        elif opcode == "EMPTY_DICT":
            push({})
        elif opcode == "EMPTY_LIST":
            push([])
        elif opcode == "EMPTY_SET":
            push(Unknown("a set"))
        elif opcode in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(opcode[-1])
            if len(stack) < count:
                raise IndexError
            stack[-count:] = [tuple(stack[-count:])]
        elif opcode == "TUPLE":
            push(tuple(self.pop_to_mark()))
        elif opcode == "LIST":
            push(self.pop_to_mark())
        elif opcode == "DICT":
            items = self.pop_to_mark()
            push({})
            self.set_items(items)
        elif opcode == "FROZENSET":
            self.pop_to_mark()
            push(Unknown("a frozenset"))
        elif opcode == "SETITEM":
            value, key = stack.pop(), stack.pop()
            self.set_items([key, value])
        elif opcode == "SETITEMS":
            self.set_items(self.pop_to_mark())
        elif opcode == "APPEND":
            item = stack.pop()
            self.append([item])
        elif opcode in ("APPENDS", "ADDITEMS"):
            self.append(self.pop_to_mark())
        else:
            return False
        return True

    def memory(self, opcode: str, argument: Any) -> bool:
        """Instructions that store, fetch, double or drop a value; False for any other."""
        stack = self.stack
        if opcode in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif opcode == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif opcode in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif opcode == "DUP":
            stack.append(stack[-1])
        elif opcode == "POP":
            stack.pop()
        elif opcode == "POP_MARK":
            self.pop_to_mark()
        else:
            return False
        return True

    def objects(self, opcode: str, argument: Any) -> bool:
        """Instructions that name, make or change an object, none of which is done; False for any other."""
        stack, push = self.stack, self.stack.append
        if opcode == "GLOBAL":
            push(GlobalName(argument))
        elif opcode == "STACK_GLOBAL":
            name, module = stack.pop(), stack.pop()
            if not isinstance(name, str) or not isinstance(module, str):
                raise ValueError("a name that is no text")
            push(GlobalName(f"{module} {name}"))
        elif opcode in ("REDUCE", "NEWOBJ"):
            arguments, function = stack.pop(), stack.pop()
            self.call(function, arguments)
        elif opcode == "NEWOBJ_EX":
            keywords, arguments, function = stack.pop(), stack.pop(), stack.pop()
            self.call(function, arguments, has_keywords=keywords != {})
        elif opcode == "OBJ":
            function, *arguments = self.pop_to_mark()
            self.call(function, tuple(arguments))
        elif opcode == "INST":
            self.call(GlobalName(argument), tuple(self.pop_to_mark()))
        elif opcode == "BUILD":
            self.build()
        elif opcode == "BINPERSID":
            push(storage(stack.pop()))
        elif opcode == "PERSID":
            push(Unknown("an object that is stored elsewhere"))
        elif opcode in ("EXT1", "EXT2", "EXT4"):
            push(Unknown(f"made with copyreg's extension {argument}"))
        elif opcode == "NEXT_BUFFER":
            push(Unknown("a buffer that is stored elsewhere"))
        else:
            return False
        return True


def read_pickle(data: bytes, origin: str) -> Any:
    """The object tree of a torch pickle: dicts, lists, tuples, numbers, text, `TensorRef`s and `Unknown`s.

    Raises:
        InputError: the pickle is damaged or takes more work than a checkpoint does. `origin` is the file named in
            the message.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(io.BytesIO(data)):
            if opcode.name == "STOP":
                (result,) = machine.stack
                return result
            machine.spend(1)
            machine.step(opcode.name, argument)
        raise ValueError("it does not end")
    except (ValueError, TypeError, KeyError, IndexError, UnicodeError, OverflowError) as error:
        raise InputError(
            f"{origin}: refused: damaged or not a state dict: {str(error)[:150] or 'it breaks off'}"
        ) from error
