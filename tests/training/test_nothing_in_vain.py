"""Nothing is computed that is not trained: operators of compiled graphs counted, gradients beside full training's."""

from collections import Counter
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import ParameterTuple, Tensor, nn
from mindspore.train.anf_ir_pb2 import ModelProto

from mindone_coca import graph_cache
from mindone_coca.distributed import Ranks
from mindone_coca.losses import caption_labels
from mindone_coca.model.adapters import Adapter, insert
from mindone_coca.model.attention import MultiheadAttention
from mindone_coca.model.blocks import Transformer
from mindone_coca.model.layers import Linear
from mindone_coca.model.open_clip.model import CoCa
from mindone_coca.training.graphs import Encode, Loss
from mindone_coca.training.optim import AdamW, freeze
from mindone_coca.training.settings import LossConfig, OptimConfig
from mindone_coca.training.step import TrainStep
from tests.models import CONFIGS, eager, from_reference, one_layer, relative_difference
from tests.reference import random_reference
from tests.training.reference_training import make_batch

pytestmark = pytest.mark.graphs
SMALL = one_layer(CONFIGS["base"])


class Gradients(nn.Cell):
    """A loss with its gradients, as a graph whose operators can be counted."""

    def __init__(self, loss: nn.Cell, parameters: ParameterTuple, has_aux: bool = False) -> None:
        super().__init__(auto_prefix=False)
        self.gradients = ms.value_and_grad(loss, None, parameters, has_aux=has_aux)

    def construct(self, *inputs: Tensor) -> tuple[Any, ...]:
        return self.gradients(*inputs)

    def operators(self, *inputs: Tensor) -> Counter:
        """What the compiled graph is made of, by name."""
        return Counter(node.op_type for node in self.nodes(*inputs))

    def nodes(self, *inputs: Tensor) -> Any:
        self.compile(*inputs)
        graph = ModelProto()
        graph.ParseFromString(self.get_func_graph_proto())
        return graph.graph.node


class Total(nn.Cell):
    """The sum of a stack's outputs, weighted."""

    def __init__(self, stack: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.stack = stack

    def construct(self, x: Tensor, weights: Tensor) -> Tensor:
        return (self.stack(x) * weights).sum()


ROWS = 2, 40, 16  # of x, so many that a product is one operator


def products_of(stack: Transformer) -> int:
    x = Tensor(np.zeros(ROWS, np.float32))
    return Gradients(Total(stack), ParameterTuple(stack.trainable_params())).operators(x, x)["MatMul"]


def test_no_product_below_the_lowest_trained_layer():
    """A block has four products with weights, and four times two more in its backward pass."""
    stack = Transformer(16, 3, 2)
    for parameter in stack.get_parameters():
        parameter.requires_grad = parameter.name.startswith("resblocks.2.")
    assert products_of(stack) == 3 * 4 + 2 * 4


def test_adapters_need_no_gradient_of_the_weights_that_they_adapt():
    stack = Transformer(16, 2, 2)
    for parameter in stack.get_parameters():
        parameter.requires_grad = False
    adapters = 0
    for _, cell in list(stack.cells_and_names()):
        if isinstance(cell, MultiheadAttention | Linear):
            weight = "in_proj_weight" if isinstance(cell, MultiheadAttention) else "weight"
            insert(cell, weight, Adapter(getattr(cell, weight), 2, 1.0))
            adapters += 1
    assert adapters == 8
    # forward one and two, backward one and four; nobody asks for the gradient at the first block's input
    assert products_of(stack) == 8 * (1 + 2) + 8 * (1 + 4) - 2


def test_weights_in_half_precision_are_cast_again_where_activations_are_computed_again():
    """Else the casts of all layers would be kept from the forward pass to the backward pass."""
    stack = Transformer(16, 1, 2)
    for parameter in stack.get_parameters():
        parameter.requires_grad = ".ln_1." in parameter.name
        if parameter.ndim > 1:
            parameter.set_dtype(ms.float16)
    stack.resblocks[0].recompute()
    x = Tensor(np.zeros(ROWS, np.float32))
    nodes = Gradients(Total(stack), ParameterTuple(stack.trainable_params())).nodes(x, x)
    kinds = {node.name: node.op_type for node in nodes}
    read = [kinds.get(node.input[0].name, "a parameter") for node in nodes if node.op_type == "Cast"]
    # of equal operators on the weights themselves the second would go
    assert Counter(read) == {"Load": 4, "Depend": 4}, read


@pytest.fixture(scope="module")
def model() -> CoCa:
    return from_reference(random_reference(SMALL, seed=1), SMALL)


CAPTIONS = LossConfig(caption_weight=1.0, contrastive_weight=0.0)


def test_training_the_decoder_runs_the_rest_forward_only(model):
    """Its gradients are those of full training, and the image tower is not even in the graph."""
    images, text = make_batch(SMALL, 6)
    rest = Tensor(text), Tensor(caption_labels(text)), Tensor(1.0, ms.float32)
    names = [p.name for p in model.trainable_params() if p.name.startswith("text_decoder.")]
    chosen = ParameterTuple([p for p in model.trainable_params() if p.name in names])
    everything = ParameterTuple(model.trainable_params())
    with eager():  # by another way than a graph, and sooner
        _, grads = Gradients(Loss(model, CAPTIONS, Ranks()), everything, has_aux=True)(Tensor(images), *rest)
    wanted = {p.name: grad.asnumpy() for p, grad in zip(everything, grads) if p.name in names}
    encoded = Encode(model, "mean")(Tensor(images))
    part = Gradients(Loss(model, CAPTIONS, Ranks(), encoded=True), chosen, has_aux=True)
    _, grads = part(encoded, *rest)
    found = {p.name: grad for p, grad in zip(chosen, grads)}
    counts = part.operators(encoded, *rest)
    # the text tower's 4; the decoder's 4 and, as queries are apart from keys and values, 5, and in the backward pass
    # twice as many; the logits' product and its two gradients
    assert counts["MatMul"] == 4 + (4 + 5) * 3 + 3, counts
    assert counts["LayerNormGrad"] == 2 + 3 + 1, counts
    for name in names:
        assert relative_difference(found[name], wanted[name]) < 1e-6, name


def test_a_frozen_image_tower_is_run_once_by_itself(model, monkeypatch):
    """Also where features and gradients are made in two passes; a trained one is in the graphs."""
    assert TrainStep(model, LossConfig(), AdamW(model, OptimConfig(), Ranks()), Ranks(), 2).encode is None
    open_before = [p for p in model.get_parameters() if p.requires_grad]
    freeze(model, ["visual.*"])
    step = TrainStep(model, LossConfig(), AdamW(model, OptimConfig(), Ranks()), Ranks(), 2)
    for parameter in open_before:
        parameter.requires_grad = True
    called = []

    def record(cell: nn.Cell, *inputs: Tensor) -> Any:
        called.append((type(cell).__name__, inputs[0].shape))
        shapes: dict[str, list[tuple[int, ...]]] = {
            "Encode": [(2, 32 + 8 * 32)],
            "Features": [(2, 32), (2, 32), ()],
            "Accumulate": [(), ()],
            "Apply": [()] * 3,
        }
        contrast: list[tuple[int, ...]] = [(), (), (4, 32), (4, 32), ()]
        made = [Tensor(np.ones(shape, np.float32)) for shape in shapes.get(type(cell).__name__, contrast)]
        return made[0] if len(made) == 1 else tuple(made)

    monkeypatch.setattr(graph_cache, "call", record)
    step.run([make_batch(SMALL, 2, seed=seed) for seed in (0, 1)], 1e-3)
    assert Counter(name for name, _ in called) == Counter(Encode=2, Features=2, Contrast=1, Accumulate=2, Apply=1)
    assert all(shape == (2, 32 + 8 * 32) for name, shape in called if name in ("Features", "Accumulate"))
    assert step.encode.graph_tag  # its graph is kept like the others
