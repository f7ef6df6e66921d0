"""Heads on the second family: what they read, and that exactly this is trained."""

import mindspore as ms
import numpy as np
import pytest

from mindone_coca.distributed import Ranks
from mindone_coca.tasks.heads import Classifier
from mindone_coca.tasks.predict import Predictor
from mindone_coca.tasks.settings import TaskCfg
from mindone_coca.tasks.step import TaskLoss
from mindone_coca.training.optim import freeze_matching
from tests.models import relative_difference
from tests.parallel_models import SMALL, from_reference, random_reference


@pytest.mark.graphs
@pytest.mark.parametrize("task", ["classification", pytest.param("nlvr2", marks=pytest.mark.slow)])
def test_what_is_read_is_trained(task):
    model = from_reference(random_reference(SMALL), SMALL)
    classifier = Classifier(model, TaskCfg(task, list("abc"), heads=model.pooler_heads))
    unread = {p.name for p in classifier.trainable_params()}
    freeze_matching(classifier, classifier.unread())
    parameters = classifier.trainable_params()
    unread -= {p.name for p in parameters}
    rng = np.random.default_rng(0)
    height, width = model.config.image_hw
    images = rng.standard_normal((3, classifier.cfg.images, 3, height, width)).astype(np.float32)
    text = np.array([[5, 6, 7, 80, 0, 0], [9, 4, 3, 2, 1, 80], [3, 80, 0, 0, 0, 0]], np.int32)
    predictor = Predictor(classifier)
    before = predictor(images, text)

    arguments = (ms.Tensor(images), ms.Tensor(text), ms.Tensor(np.array([0, 2, 1], np.int32)), ms.Tensor(np.float32(1)))
    gradients = ms.value_and_grad(TaskLoss(classifier, 0.0, Ranks()), None, ms.ParameterTuple(parameters), has_aux=True)
    for parameter, grad in zip(parameters, gradients(*arguments)[1]):
        assert np.abs(grad.asnumpy()).max() > 0, parameter.name
    assert {"temperature", "visual.img_to_latents.weight"} <= unread
    for parameter in model.get_parameters():
        if parameter.name in unread:
            parameter.set_data(parameter + 1.0)
    np.testing.assert_array_equal(predictor(images, text), before)
    if task == "nlvr2":  # the decoder's outputs are those that its logits are computed from
        features = predictor.encode(images, text).asnumpy()[:, 1]
        logits = model(text, images[:, 1]).asnumpy()
        assert relative_difference(features @ model.text.token_emb.weight.asnumpy().T, logits) < 1e-5
