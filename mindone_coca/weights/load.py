"""Weights into a MindSpore model and out of one."""

from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn

from mindone_coca.errors import InputError
from mindone_coca.model.coca_pytorch.names import without_derived
from mindone_coca.weights.entry_names import refuse_parts
from mindone_coca.weights.formats.dtypes import DTYPES, WEIGHT_DTYPES, cast, count_nonfinite
from mindone_coca.weights.formats.entry import Entry, Weights
from mindone_coca.weights.names import naming, to_mindspore, to_open_clip
from mindone_coca.weights.shapes import check_shapes
from mindone_coca.weights.source import open_weights


def _dtype_name(dtype: ms.Type) -> str:
    return str(dtype).lower()


def to_tensor(array: np.ndarray, dtype: str) -> Tensor:
    """An array of a named type as a MindSpore tensor of that type that shares its memory."""
    if dtype == "bfloat16":
        array = array.view(ms.common.np_dtype.bfloat16)
    return Tensor.from_numpy(array)


def parameter_entries(model: nn.Cell) -> dict[str, Entry]:
    """The CoCa parameters of a model (or of a cell around one) as entries, under their MindSpore names."""

    def entry(parameter: Parameter) -> Entry:
        name = _dtype_name(parameter.dtype)
        return Entry(
            tuple(parameter.shape), name, lambda: np.ascontiguousarray(parameter.asnumpy()).view(DTYPES[name].storage)
        )

    return {p.name: entry(p) for p in model.get_parameters() if to_open_clip(p.name)}


def load_weights(model: nn.Cell, path: str | Path, check_finite: bool = False) -> Weights:
    """Load weights into a model strictly, in place, casting each to the parameter's type.

    Where types agree the parameter uses the mapped file itself (copy-on-write), so that loading is nearly free
    and pages are read when first used; the file must stay unchanged meanwhile (replacing it is safe).

    Args:
        model: a CoCa cell; parameters that are no CoCa weights (caches) are left alone.
        path: any kind that `open_weights` reads, in MindSpore's, open_clip's or coca-pytorch's names.
        check_finite: refuse NaN and infinite values; reads all data at once. The converter has checked its output.

    Returns:
        The opened file, for its notes and metadata.

    Raises:
        InputError: one line that lists missing, unexpected and mis-shaped entries, and changes nothing; or
            names the first parameter with NaN or infinite values.
    """
    weights = open_weights(path)
    refuse_parts(weights, weights.path)
    if naming(weights, str(weights.path)) != "mindspore":
        plain = without_derived(weights.entries, weights.path)
        weights.entries = {to_mindspore(name) or name: entry for name, entry in plain.items()}
    parameters = {p.name: p for p in model.get_parameters() if to_open_clip(p.name)}
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
