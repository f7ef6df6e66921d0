"""coca-pytorch's family through the shared training step, train.py and inference.py."""

import subprocess
import sys

import mindspore as ms
import numpy as np
import pytest
import yaml

from mindone_coca.distributed import Ranks
from mindone_coca.errors import InputError
from mindone_coca.factory import create_model
from mindone_coca.losses import caption_labels
from mindone_coca.model.coca_pytorch.family import COCA_PYTORCH
from mindone_coca.model.families import load_model_config
from mindone_coca.tasks.settings import load_train_config
from mindone_coca.training.graphs import Loss
from mindone_coca.training.optim import AdamW, freeze_matching
from mindone_coca.training.progress import read_metrics
from mindone_coca.training.settings import LossConfig, OptimConfig
from mindone_coca.training.step import TrainStep
from mindone_coca.weights.load import parameter_entries
from mindone_coca.weights.save import save_weights
from tests.models import relative_difference
from tests.parallel_models import SMALL, from_reference, make_inputs, random_reference
from tests.reference import torch
from tests.training.runs import ROOT, environment, read_weights, train, train_here, write_config

TOLERANCE = 1e-4


def reference_gradients(inputs) -> tuple[float, dict[str, np.ndarray]]:
    """The original's own loss over the whole batch, and its gradients."""
    reference = random_reference(SMALL)
    loss = reference(torch.from_numpy(inputs.text), torch.from_numpy(inputs.images), return_loss=True)
    loss.backward()
    named = reference.named_parameters()
    grads = {COCA_PYTORCH.to_mindspore(name) or name: p.grad.numpy() for name, p in named if p.grad is not None}
    return loss.item(), grads


def our_gradients(model, inputs) -> tuple[float, dict[str, np.ndarray]]:
    """The same by the training step's loss."""
    parameters = model.trainable_params()
    function = ms.value_and_grad(
        Loss(model, LossConfig(1.0, 1.0), Ranks()), None, ms.ParameterTuple(parameters), has_aux=True
    )
    text = inputs.text.astype(np.int32)
    arrays = (ms.Tensor(inputs.images), ms.Tensor(text), ms.Tensor(caption_labels(text)), ms.Tensor(1.0, ms.float32))
    (_, contrastive, caption, _), grads = function(*arrays)
    loss = float(contrastive.asnumpy() + caption.asnumpy())
    return loss, {p.name: g.asnumpy() for p, g in zip(parameters, grads)}


def assert_close(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    assert ours.keys() == theirs.keys()
    norm = np.sqrt(sum(float((g.astype(np.float64) ** 2).sum()) for g in theirs.values()))
    worst = {n: np.abs(ours[n] - g).max() / max(np.abs(g).max(), 1e-6 * norm) for n, g in theirs.items()}
    assert max(worst.values()) < TOLERANCE, max(worst.items(), key=lambda item: item[1])


@pytest.mark.graphs
def test_the_shared_step_has_the_original_s_gradient():
    inputs = make_inputs(SMALL, batch=4)
    want, gradients = reference_gradients(inputs)
    loss, ours = our_gradients(from_reference(random_reference(SMALL), SMALL), inputs)
    assert abs(loss / want - 1) < 1e-5
    assert_close(ours, gradients)


@pytest.mark.slow
def test_recomputing_changes_no_gradient():
    inputs = make_inputs(SMALL, batch=4)
    _, gradients = reference_gradients(inputs)
    model = from_reference(random_reference(SMALL), SMALL)
    model.set_grad_checkpointing()
    assert_close(our_gradients(model, inputs)[1], gradients)


@pytest.mark.slow
def test_micro_batches_make_the_large_batch():
    inputs = make_inputs(SMALL, batch=4)
    want, gradients = reference_gradients(inputs)
    model = from_reference(random_reference(SMALL), SMALL)
    step = TrainStep(model, LossConfig(1.0, 1.0), AdamW(model, OptimConfig(), Ranks()), Ranks(), accumulate_steps=2)
    ours = {}

    def record(lr, caption):  # in place of the update
        ours.update({p.name.removeprefix("accumulated."): p.asnumpy() for p in step.accumulate.sums})
        return caption, caption, caption

    step.apply = record
    text = inputs.text.astype(np.int32)
    report = step([(inputs.images[i : i + 2], text[i : i + 2]) for i in (0, 2)], 1e-3)
    assert abs(report["loss"] / want - 1) < 1e-5
    assert_close(ours, gradients)


@pytest.mark.parametrize(
    ("weights", "still"),
    [
        (
            (1.0, 0.0),
            ("temperature", "visual.img_to_latents.weight", "text.text_cls_token", "text.text_cls_norm.gamma"),
        ),
        ((0.0, 1.0), ("text_decoder.norm.gamma", "text_decoder.multimodal_layers.0.cross_attn.ff_in.weight")),
    ],
)
def test_what_the_loss_does_not_reach_is_left_alone(weights, still):
    model = create_model(SMALL)
    before = {p.name for p in model.trainable_params()}
    freeze_matching(model, model.unused_parameters(*weights))
    frozen = before - {p.name for p in model.trainable_params()}
    assert frozen >= set(still) and "text.token_emb.weight" not in frozen


def test_layer_decay_counts_from_the_end_of_each_tower():
    model = create_model({**SMALL, "unimodal_depth": 2, "img_encoder": {**SMALL["img_encoder"], "depth": 3}})
    encoder = "visual.img_encoder.vit"
    expected = {
        f"{encoder}.to_patch_embedding.2.weight": 0.125,
        f"{encoder}.transformer.layers.0.1.net.1.weight": 0.25,
        f"{encoder}.transformer.layers.2.0.to_qkv.weight": 1,
        "visual.img_queries": 1,
        "text.token_emb.weight": 1,
        "text.text_cls_token": 0.25,
        "text.unimodal_layers.0.attn_out.weight": 0.5,
        "temperature": 1,
        "text_decoder.multimodal_layers.0.cross_attn.to_q.weight": 1,
    }
    assert {name: 0.5 ** model.blocks_after(name) for name in expected} == expected


@pytest.mark.graphs
def test_train_and_caption(tmp_path):
    """A few steps on digits from a config that names the family, then inference.py on the exported weights."""
    (tmp_path / "family.yaml").write_text(yaml.safe_dump({**SMALL, "num_tokens": 49408, "context_length": 8}))
    config = write_config(
        tmp_path,
        model={"config": str(tmp_path / "family.yaml")},
        optim={"lr": 1e-2, "warmup_steps": 2},
        train={"batch_size": 8, "max_steps": 24},
    )
    train_here(config)
    losses = [row["loss"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    assert len(losses) == 24 and np.mean(losses[-4:]) < 0.7 * losses[0]
    exported = load_model_config(tmp_path / "run" / "final.yaml")
    assert exported.family == "parallel_coca" and exported.checkpoint == "final.safetensors"
    image = next((tmp_path / "digits").rglob("*.png"))
    command = [sys.executable, ROOT / "inference.py", "-c", tmp_path / "run" / "final.yaml", "--video_path", image]
    options = ["--seq_len", "8", "--num_beams", "2"]
    done = subprocess.run([*command, *options], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1


def test_what_cannot_be_trained_is_refused(tmp_path):
    from mindone_coca.training.trainer import Trainer

    config = write_config(tmp_path, model={"config": str(tmp_path / "family.yaml")})
    for changes, options, message in (
        ({"pad_id": 3}, [], "pad_id must be 0"),
        ({"num_tokens": 64000}, [], "vocabulary must be 49408"),
        (
            {},
            ["model.temporal_embedding=true", "data.frame_type=multi_frames", "data.fusion=pool"],
            "no embeddings of frames",
        ),
    ):
        (tmp_path / "family.yaml").write_text(
            yaml.safe_dump({**SMALL, "num_tokens": 49408, "context_length": 8, **changes})
        )
        with pytest.raises(InputError, match=message):
            Trainer(load_train_config(config, options))


@pytest.mark.slow
def test_two_processes_give_one_process_s_weights(tmp_path):
    family = {**SMALL, "num_tokens": 49408, "context_length": 8}
    (tmp_path / "family.yaml").write_text(yaml.safe_dump(family))
    start = from_reference(random_reference(family), family)
    save_weights(tmp_path / "start.safetensors", parameter_entries(start))
    model = {"config": str(tmp_path / "family.yaml"), "checkpoint": str(tmp_path / "start.safetensors")}
    config = write_config(tmp_path, model=model, optim={"lr": 1e-4})
    train(config, f"output.dir={tmp_path / 'one'}", "train.batch_size=8")
    train(config, f"output.dir={tmp_path / 'two'}", "train.batch_size=2", "train.accumulate_steps=2", workers=2)
    one, two = (read_weights(tmp_path / name / "final.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    worst = {name: relative_difference(two[name], one[name]) for name in one}
    assert max(worst.values()) < 1e-5, max(worst.items(), key=lambda item: item[1])
