"""The caption loss beside a task's own: loss and gradients against open_clip's model and torch, live; a run."""

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from mindone_coca.distributed import Ranks
from mindone_coca.model.open_clip.family import OPEN_CLIP
from mindone_coca.preprocess.tokenizer import Tokenizer
from mindone_coca.tasks.captions import CaptionedTaskLoss
from mindone_coca.tasks.heads import Classifier
from mindone_coca.tasks.settings import TaskCfg
from mindone_coca.training.optim import freeze_matching
from mindone_coca.training.trainer import Trainer
from tests.models import CONFIGS, eager, from_reference, one_layer
from tests.reference import random_reference, torch
from tests.tasks.runs import open_run, values_of, write_data
from tests.tasks.test_heads import SMOOTHING, TorchHead, make_inputs, our_name, torch_features
from tests.training.runs import read_weights
from tests.training.test_step import assert_gradients_match

WEIGHT = 0.7


@pytest.mark.graphs
def test_loss_and_gradients():
    config, cfg = one_layer(CONFIGS["base"]), TaskCfg("vqa", list("abc"), heads=8)
    reference = random_reference(config, seed=2)
    model = from_reference(reference, config)
    ms.set_seed(3)
    classifier = Classifier(model, cfg)
    freeze_matching(classifier, model.unused_parameters(1.0, 0.0))
    images, text, labels = make_inputs(config, cfg, 6)
    captions = make_inputs(config, cfg, 6, seed=1)[1]

    reference = reference.double()
    projection, reference.text_decoder.text_projection = reference.text_decoder.text_projection, None
    head = TorchHead(classifier.head, cfg).double()
    pixels, questions, said = torch.from_numpy(images).double(), torch.from_numpy(text), torch.from_numpy(captions)
    answers = head(torch_features(reference, cfg, pixels, questions.long()), questions.long())
    own = torch.nn.functional.cross_entropy(
        answers, torch.from_numpy(labels).long(), label_smoothing=SMOOTHING, ignore_index=-1
    )
    tokens = torch_features(reference, cfg, pixels, said.long())[:, 0, :-1] @ projection
    caption = torch.nn.functional.cross_entropy(tokens.flatten(0, 1), said[:, 1:].flatten().long(), ignore_index=0)
    (own + WEIGHT * caption).backward()
    grads = {our_name(key): p.grad for key, p in head.named_parameters()}
    grads |= {OPEN_CLIP.to_mindspore(key): p.grad for key, p in reference.named_parameters()}
    grads["text_decoder.text_projection"] = projection.grad

    loss = CaptionedTaskLoss(classifier, SMOOTHING, WEIGHT, Ranks())
    parameters = classifier.trainable_params()
    both = np.stack([text, captions], 1)
    arrays = [ms.Tensor(x) for x in (images, both, labels)]
    one = ms.Tensor(1.0, ms.float32)
    with eager():
        values, ours = ms.value_and_grad(loss, None, ms.ParameterTuple(parameters), has_aux=True)(*arrays, one)
        halves = [
            loss(*(x[i : i + 3] for x in arrays), one, values[3], ms.Tensor(float((captions[:, 1:] != 0).sum())))
            for i in (0, 3)
        ]
    total, right, reported, count = (float(value.asnumpy()) for value in values)
    assert abs(total / (own + WEIGHT * caption).item() - 1) < 1e-5 and abs(reported / own.item() - 1) < 1e-5
    assert right == int((answers.argmax(1).numpy() == labels).sum()) and count == 5
    assert abs(sum(float(half[0].asnumpy()) for half in halves) / total - 1) < 1e-6  # of micro-batches
    reached = {key for key, grad in grads.items() if grad is not None and grad.abs().max() > 0}
    assert {p.name for p in parameters} == reached
    assert_gradients_match({p.name: g.asnumpy().astype(np.float64) for p, g in zip(parameters, ours)}, grads)


def captioned_run(folder: Path, **sections: dict) -> Trainer:
    write_data(folder)
    rows = {"caption_key": "sentence", "label_key": "label"}
    data = {part: {"path": str(folder / f"{part}_said.csv"), **rows} for part in ("train", "val")}
    return open_run(folder, "asked", "vqa", data=data, head={"caption_weight": 1.0}, **sections)


def test_training_reads_question_and_answer_as_one_text(tmp_path):
    job = captioned_run(tmp_path).job
    batch = next(job.data.epoch(0))
    for ids, sentence, answers in zip(batch.text, batch.sentences, batch.answers):
        question, caption = (Tokenizer().decode(one, skip_special_tokens=True).rstrip("! ") for one in ids)
        assert question == sentence and caption == f"{sentence} {answers[0]}"
    assert next(job.val.epoch(0)).text.shape == (4, 8)
    assert isinstance(job.step.loss, CaptionedTaskLoss)
    trained = {p.name for p in job.optimiser.parameters}
    assert "text_decoder.text_projection" in trained and {"logit_scale", "visual.proj"}.isdisjoint(trained)


@pytest.mark.slow
def test_a_run_trains_what_the_captions_reach(tmp_path):
    trainer = captioned_run(tmp_path, train={"max_steps": 2, "accumulate_steps": 2})
    before = values_of(trainer.job.classifier.get_parameters())
    trainer.run()
    after = read_weights(tmp_path / "asked" / "final.safetensors")
    moved = {name for name, value in after.items() if not np.array_equal(value, before[name])}
    assert {"text_decoder.text_projection", "head.classifier.weight"} <= moved
    assert {"logit_scale", "text.text_projection"}.isdisjoint(moved)
