"""Matrices that are not trained, kept in half precision: half the memory, cast where they are used."""

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor

from mindone_coca.config import Dtype
from mindone_coca.errors import InputError
from mindone_coca.factory import find_weights
from mindone_coca.model.base import ImageTextModel
from mindone_coca.training.settings import TrainConfig
from mindone_coca.weights.formats.dtypes import cast
from mindone_coca.weights.formats.entry import Entry
from mindone_coca.weights.load import open_named

TYPES: dict[Dtype, ms.Type] = {"float16": ms.float16, "bfloat16": ms.bfloat16}


def keep_frozen(model: ImageTextModel, config: TrainConfig) -> dict[str, Entry]:
    """Keep the frozen matrices of a model in `train.frozen_dtype`, those that model.checkpoint has.

    Norms, biases and numbers stay in float32, they are small.

    Returns:
        What they are in model.checkpoint, by name, float32, to be read where they are exported: the bits that are lost
        here are not lost there. Nothing where the type is float32.
    Raises:
        InputError: there are none, or one does not fit into the type.
    """
    dtype, checkpoint = config.train.frozen_dtype, config.model.checkpoint
    if dtype == "float32" or checkpoint is None:
        return {}
    weights = open_named(find_weights(checkpoint))
    chosen = [p for p in model.get_parameters() if not p.requires_grad and p.ndim > 1 and p.name in weights]
    if not chosen:
        raise InputError(f"train.frozen_dtype: {dtype}, but no matrix is frozen; set train.freeze or train.lora")
    largest = np.finfo(np.float16).max
    for parameter in chosen:
        if dtype == "float16" and np.abs(parameter.asnumpy()).max() > largest:
            raise InputError(
                f"{checkpoint}: {parameter.name} holds numbers above {largest:g}, too large for train.frozen_dtype "
                "float16; use bfloat16"
            )
        parameter.set_dtype(TYPES[dtype])
    names = {parameter.name for parameter in chosen}
    for parameter in model.get_parameters():
        if parameter.name not in names:  # as long as one of them is in the mapped file, all pages read stay in memory
            parameter.set_data(Tensor(parameter.asnumpy().copy()))
    model.tag((model.graph_tag, dtype))
    return {parameter.name: _as_float32(weights[parameter.name], parameter) for parameter in chosen}


def _as_float32(entry: Entry, parameter: Parameter) -> Entry:
    shape = tuple(parameter.shape)
    return Entry(shape, "float32", lambda: cast(entry.read(), entry.dtype, "float32").reshape(shape))
