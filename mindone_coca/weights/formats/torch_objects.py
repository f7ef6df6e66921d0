"""What stands for the objects of a torch pickle: descriptions of tensors, and inert placeholders for all else.

Nothing here imports or calls what a file names. A function that torch calls to rebuild a tensor has a stand-in
of a few lines which notes where the tensor lies; every other class or function leaves an `Unknown` behind.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from mindone_coca.weights.formats.dtypes import DTYPES, FROM_TORCH

_MAX_RANK = 8
_MAX_ARGUMENTS = 16  # of any function that has a stand-in
_MAX_SIZE = 2**62
_UNTYPED = "UntypedStorage"
_LARGE = 2**60  # integers beyond this can be chosen to collide in a dict


@dataclass(frozen=True)
class StorageRef:
    """A storage: the record `data/<key>` of the archive, holding `size` elements.

    `dtype` is one of `DTYPES`, or torch's name of a storage that is not supported.
    """

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
class GlobalName:
    """The name of a Python object, "module name"; a name is all it ever is here."""

    name: str

    @property
    def shown(self) -> str:
        module, _, name = self.name.partition(" ")
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        return repr(f"{module}.{name}"[:100])


@dataclass(eq=False, slots=True)
class Unknown:
    """Stands for an object that was not made.

    Attributes:
        what: how a message calls it, with an article.
        is_tensor: it holds an array's numbers, so that leaving it out would lose weights.
        state: the attributes that the pickle sets on it.
        items: what the pickle puts into it, where it is some kind of dict.
    """

    what: str
    is_tensor: bool = False
    state: Any = None
    items: dict | None = None

    @property
    def is_module(self) -> bool:
        """Whether it is a whole torch.nn.Module."""
        return isinstance(self.state, dict) and "_parameters" in self.state and "_modules" in self.state


def dict_key(value: Any) -> Any:
    """A key that is safe to hash: hashing a nest of tuples can take time exponential in its depth."""
    if isinstance(value, str | float | bytes | bool | None) or (type(value) is int and abs(value) < _LARGE):
        return value
    return Unknown("a dict key that is no text or number")


def storage(value: Any) -> StorageRef | Unknown:
    """What a persistent id stands for; torch uses them for storages alone."""
    if not isinstance(value, tuple) or len(value) != 5:
        return Unknown("an object that is stored elsewhere")
    kind, dtype, key, _location, size = value
    if kind != "storage" or not isinstance(key, str) or type(size) is not int or not 0 <= size < _MAX_SIZE:
        return Unknown("a malformed tensor storage")
    name = dtype.name.split(" ")[-1][:60] if isinstance(dtype, GlobalName) else "unknown"
    return StorageRef(FROM_TORCH[name].name if name in FROM_TORCH else name, key, size)


def _ordered_dict(pairs: Any = ()) -> dict | Unknown:
    result = {}
    for pair in pairs if isinstance(pairs, list | tuple) else [None]:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            return Unknown("a malformed OrderedDict")
        result[dict_key(pair[0])] = pair[1]
    return result


def _are_sizes(value: Any) -> bool:
    ok = isinstance(value, tuple) and len(value) <= _MAX_RANK
    return ok and all(type(n) is int and 0 <= n < _MAX_SIZE for n in value)


def _size(value: Any = ()) -> tuple[int, ...] | Unknown:
    value = tuple(value) if isinstance(value, list) and len(value) <= _MAX_RANK else value
    return value if _are_sizes(value) else Unknown("a torch.Size with impossible sizes")


def _is_empty(flag: Any) -> bool:
    """Whether a tensor's flag is a plain yes or no, or a dict that turns nothing on."""
    if isinstance(flag, dict):
        return len(flag) <= _MAX_ARGUMENTS and all(value is False for value in flag.values())
    return isinstance(flag, bool | None)


def _tensor(data: Any, offset: Any, shape: Any, strides: Any, *flags: Any) -> TensorRef | Unknown:
    if not isinstance(data, StorageRef) or type(offset) is not int or offset < 0:
        return Unknown("a tensor without a storage", is_tensor=True)
    if data.dtype not in DTYPES:
        return Unknown(f"a tensor of type {data.dtype.removesuffix('Storage')!r}", is_tensor=True)
    if not _are_sizes(shape) or not _are_sizes(strides) or len(shape) != len(strides):
        return Unknown("a tensor with impossible sizes", is_tensor=True)
    # Gradient flag, hooks (none are ever saved) and perhaps metadata: {"conj": True} or {"neg": True}.
    if any(not _is_empty(flag) for flag in flags):
        return Unknown("a tensor with more to it than numbers (hooks, or a negation still to be done)", is_tensor=True)
    return TensorRef(data, offset, shape, strides)


def _npu_tensor(
    data: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, _device_format: Any
) -> TensorRef | Unknown:
    """Ascend's torch adds the layout that the device had; what is stored has the usual one."""
    return _tensor(data, offset, shape, strides, grad, hooks)


def _tensor_v3(
    data: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, *flags: Any
) -> TensorRef | Unknown:
    """The form for a storage that does not know its type: the tensor tells it, and the storage counts bytes."""
    name = dtype.name.removeprefix("torch ")[:60] if isinstance(dtype, GlobalName) else "unknown"
    if name not in DTYPES:
        return Unknown(f"a tensor of type {name!r}", is_tensor=True)
    if isinstance(data, StorageRef) and data.dtype == _UNTYPED:
        itemsize = DTYPES[name].storage.itemsize
        if data.size % itemsize:
            return Unknown("a tensor with impossible sizes", is_tensor=True)
        data = replace(data, dtype=name, size=data.size // itemsize)
    return _tensor(data, offset, shape, strides, grad, hooks, *flags)


def _parameter(data: Any = None, grad: Any = True, hooks: Any = None, _state: Any = None) -> TensorRef | Unknown:
    if not _is_empty(grad) or not _is_empty(hooks):
        return Unknown("a parameter with hooks", is_tensor=True)
    if isinstance(data, TensorRef) or (isinstance(data, Unknown) and data.is_tensor):
        return data
    return Unknown("a parameter without a tensor", is_tensor=True)


def _tensor_of_class(function: Any, of_class: Any, arguments: Any, _state: Any = None) -> TensorRef | Unknown:
    """A tensor with attributes, or of a subclass of torch.Tensor whose numbers are those of its storage."""
    rebuild = _TENSORS.get(function.name) if isinstance(function, GlobalName) else None
    if rebuild is None or not isinstance(arguments, tuple):
        shown = of_class.shown if isinstance(of_class, GlobalName) else "an unknown class"
        return Unknown(f"a tensor of class {shown}", is_tensor=True)
    return _applied(rebuild, arguments)


# The functions that rebuild a tensor, each by its harmless stand-in.
_TENSORS: dict[str, Callable[..., Any]] = {
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_tensor_v3": _tensor_v3,
    "torch._utils _rebuild_parameter": _parameter,
    "torch._utils _rebuild_parameter_with_state": _parameter,
    "torch.nn.parameter Parameter": _parameter,
    "torch.nn.parameter Buffer": _parameter,
    "torch_npu.utils.storage _rebuild_npu_tensor": _npu_tensor,
}
_CALLS: dict[str, Callable[..., Any]] = {
    **_TENSORS,
    "torch._tensor _rebuild_from_type_v2": _tensor_of_class,
    "torch Size": _size,
    "collections OrderedDict": _ordered_dict,
}
# Tensors that are told by name and not read.
_OTHER_TENSORS = {
    "_rebuild_qtensor": "a quantized tensor",
    "_rebuild_sparse_tensor": "a sparse tensor",
    "_rebuild_sparse_csr_tensor": "a sparse tensor",
    "_rebuild_nested_tensor": "a nested tensor",
    "_rebuild_meta_tensor_no_storage": "a tensor of the meta device, which has no numbers",
    "_rebuild_device_tensor_from_numpy": "a tensor stored as a NumPy array",
    "_rebuild_device_tensor_from_cpu_tensor": "a tensor of another device",
}
# Functions whose first argument is the class of what they make.
_MAKERS = ("_reconstructor", "__newobj__", "__newobj_ex__", "_reconstruct", "_rebuild_wrapper_subclass")


def _applied(stand_in: Callable[..., Any], arguments: tuple) -> Any:
    if len(arguments) > _MAX_ARGUMENTS:
        return Unknown("a call with too many arguments", is_tensor=True)
    try:
        return stand_in(*arguments)
    except TypeError:  # too few arguments
        return Unknown("a call with too few arguments", is_tensor=True)


def call(function: Any, arguments: Any, has_keywords: bool = False) -> Any:
    """The result of a call, which is never made: a stand-in's result, or an `Unknown`."""
    if not isinstance(function, GlobalName):
        return Unknown("the result of an unknown call")
    if function.name in _CALLS and isinstance(arguments, tuple) and not has_keywords:
        return _applied(_CALLS[function.name], arguments)
    name = function.name.split(" ")[-1]
    if function.name.startswith("torch._utils ") and name in _OTHER_TENSORS:
        return Unknown(_OTHER_TENSORS[name], is_tensor=True)
    made = function
    if name in _MAKERS and isinstance(arguments, tuple) and arguments and isinstance(arguments[0], GlobalName):
        made = arguments[0]
    is_tensor = made.name == "numpy ndarray" or name == "_rebuild_wrapper_subclass"
    return Unknown(f"made with {made.shown}", is_tensor=is_tensor)
