"""Blocks that are recomputed in the backward pass: their operators are in the graph twice, and no gradient changes."""

import mindspore as ms
import pytest
from mindspore import ParameterTuple, Tensor

from mindone_coca.distributed import Ranks
from mindone_coca.factory import create_model
from mindone_coca.losses import caption_labels
from mindone_coca.training.graphs import Loss
from mindone_coca.training.settings import LossConfig
from tests import parallel_models
from tests.models import CONFIGS, eager, one_layer, relative_difference
from tests.training.reference_training import make_batch
from tests.training.test_nothing_in_vain import Gradients

pytestmark = pytest.mark.graphs

SMALL = one_layer(CONFIGS["base"])
PARALLEL = parallel_models.SMALL


@pytest.mark.parametrize("config", [SMALL, PARALLEL], ids=["open_clip", "coca_pytorch"])
def test_recomputation_changes_no_gradient(config):
    ms.set_seed(1)
    model = create_model(config)
    if config is SMALL:
        images, text = make_batch(config, 4)
    else:
        inputs = parallel_models.make_inputs(config)
        images, text = inputs.images, inputs.text
    arrays = (Tensor(images), Tensor(text), Tensor(caption_labels(text)), Tensor(1.0, ms.float32))
    parameters = ParameterTuple(model.trainable_params())
    loss = LossConfig(1.0, 0.0)
    with eager():  # by another way than a graph, and sooner
        _, wanted = Gradients(Loss(model, loss, Ranks()), parameters, has_aux=True)(*arrays)
    wanted = [grad.asnumpy() for grad in wanted]
    model.set_grad_checkpointing()
    graph = Gradients(Loss(model, loss, Ranks()), parameters, has_aux=True)
    attentions, in_blocks = 5, 4  # one is a pooler's
    assert graph.operators(*arrays)["Softmax"] >= attentions + in_blocks
    _, found = graph(*arrays)
    for parameter, ours, theirs in zip(parameters, found, wanted):
        if abs(theirs).max() > 1e-7:  # a key's bias has no gradient but rounding
            assert relative_difference(ours, theirs) < 1e-5, parameter.name
