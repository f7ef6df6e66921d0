"""Weights into a MindSpore model and out of one."""

from collections.abc import Sequence
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor

from mindone_coca.errors import InputError
from mindone_coca.model.base import ImageTextModel
from mindone_coca.model.families import family_named
from mindone_coca.weights.adapters import merged, read_adapters
from mindone_coca.weights.entry_names import refuse_parts
from mindone_coca.weights.formats.dtypes import DTYPES, WEIGHT_DTYPES, cast, count_nonfinite
from mindone_coca.weights.formats.entry import Entry, Weights
from mindone_coca.weights.names import recognise
from mindone_coca.weights.shapes import check_shapes
from mindone_coca.weights.source import open_weights
from mindone_coca.weights.tied import without_derived


def _dtype_name(dtype: ms.Type) -> str:
    return str(dtype).lower()


def to_tensor(array: np.ndarray, dtype: str) -> Tensor:
    """An array of a named type as a MindSpore tensor of that type that shares its memory."""
    if dtype == "bfloat16":
        array = array.view(ms.common.np_dtype.bfloat16)
    return Tensor.from_numpy(array)


def parameter_entries(model: ImageTextModel) -> dict[str, Entry]:
    """The parameters of a model as entries, under their MindSpore names."""

    def entry(parameter: Parameter) -> Entry:
        name = _dtype_name(parameter.dtype)
        return Entry(
            tuple(parameter.shape), name, lambda: np.ascontiguousarray(parameter.asnumpy()).view(DTYPES[name].storage)
        )

    return {name: entry(parameter) for name, parameter in _parameters(model).items()}


def _parameters(model: ImageTextModel) -> dict[str, Parameter]:
    """The parameters that are the family's; a model may have others, such as caches."""
    family = family_named(model.family)
    return {p.name: p for p in model.get_parameters() if family.to_original(p.name)}


def open_named(path: str | Path, lora: Sequence[str] = ()) -> Weights:
    """Open weights of any kind under our names, none of them read yet; the arguments are `load_weights`'s."""
    weights = open_weights(path)
    refuse_parts(weights, weights.path)
    family, ours = recognise(weights, str(weights.path))
    if not ours:
        plain = without_derived(weights.entries, family, weights.path)
        weights.entries = {family.to_mindspore(name) or name: entry for name, entry in plain.items()}
    if lora:
        folders = [read_adapters(text, family) for text in lora]
        weights.entries = merged(weights.entries, folders, lambda name: name, "float32")
    return weights


def load_weights(
    model: ImageTextModel, path: str | Path, check_finite: bool = False, lora: Sequence[str] = ()
) -> Weights:
    """Load weights into a model strictly, in place, casting each to the parameter's type.

    Where types agree the parameter uses the mapped file itself (copy-on-write), so that loading is nearly free
    and pages are read when first used; the file must stay unchanged meanwhile (replacing it is safe).

    Args:
        model: parameters that are no weights of its family (caches) are left alone.
        path: any kind that `open_weights` reads, in our names or the original's.
        lora: folders of adapters to merge into them, DIR or DIR=WEIGHT.
        check_finite: refuse NaN and infinite values; reads all data at once. The converter has checked its output.

    Returns:
        The opened file, for its notes and metadata.

    Raises:
        InputError: one line that lists missing, unexpected and mis-shaped entries, and changes nothing; or
            names the first parameter with NaN or infinite values.
    """
    weights = open_named(path, lora)
    parameters = _parameters(model)
    shapes = {name: tuple(p.shape) for name, p in parameters.items()}
    check_shapes(shapes, {name: entry.shape for name, entry in weights.items()}, weights.path)
    for name, entry in weights.items():
        if entry.dtype not in (*WEIGHT_DTYPES, "float64"):
            raise InputError(f"{weights.path}: {name} holds {entry.dtype}, not floating-point weights")
    for name, parameter in parameters.items():
        entry = weights[name]
        array = entry.read()
        if check_finite and (bad := count_nonfinite(array, entry.dtype)):
            raise InputError(f"{weights.path}: {name} holds {bad} values that are NaN or infinite")
        wanted = _dtype_name(parameter.dtype)
        parameter.set_data(to_tensor(cast(array, entry.dtype, wanted).reshape(shapes[name]), wanted))
    return weights
