"""Training configs: what is read, what is refused and how."""

import warnings

import numpy as np
import pytest
import yaml
from PIL import Image

from mindone_coca.config import CONFIG_DIR
from mindone_coca.data.settings import DataConfig
from mindone_coca.distributed import Ranks
from mindone_coca.errors import InputError
from mindone_coca.model.families import load_model_config
from mindone_coca.preprocess.transforms import make_transform
from mindone_coca.tasks.settings import load_train_config
from mindone_coca.training.job import check_pairs, training_transform


def write(tmp_path, **sections):
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump({"model": {"config": "coca_digits"}, "data": {"train": "x.csv"}, **sections}))
    return path


def test_defaults_and_overrides(tmp_path):
    config = load_train_config(
        write(tmp_path, optim={"lr": 1e-4}),
        [
            "optim.lr=1e-5",
            "optim.betas=[0.9, 0.95]",
            "data.train=[a.csv, {path: b.csv, weight: 2}]",
            "train.freeze=['visual.*']",
        ],
    )
    assert config.optim.lr == 1e-5 and config.optim.betas == (0.9, 0.95)
    assert isinstance(config.data, DataConfig) and config.data.train[1]["weight"] == 2
    assert config.train.freeze == ["visual.*"]
    assert (config.loss.caption_weight, config.loss.contrastive_weight) == (2.0, 1.0)


def test_exponents_without_a_point(tmp_path):
    path = write(tmp_path)
    path.write_text(path.read_text() + "optim: {lr: 1e-5, betas: [9e-1, 0.98]}\n")
    assert load_train_config(path).optim.lr == 1e-5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.batchsize=3", "unknown key 'batchsize'; did you mean 'batch_size'"),
        ("optim.learning_rate=3", "unknown key 'learning_rate'; did you mean 'lr' (optim.lr)?"),
        ("train.bs=3", "did you mean 'batch_size' (train.batch_size)?"),
        ("optm.lr=3", "unknown key 'optm'; did you mean 'optim'"),
        ("optim.schedule=cosin", "did you mean 'cosine'"),
        ("optim.lr=fast", "optim: lr: must be float"),
        ("optim.lr=0", "optim.lr: must be above 0"),
        ("train.batch_size=0", "train.batch_size"),
        ("optim.warmup_steps=-1", "optim.warmup_steps"),
        ("train.ema_decay=1.5", "train.ema_decay"),
        ("optim.betas=[0.9, 1.0]", "optim.betas"),
        ("output.profile=[5, 2]", "output.profile"),
        ("loss={caption_weight: 0, contrastive_weight: 0}", "nothing to learn"),
        ("batch_size", "section.key=value"),
        ("model.config.lr=3", "config is not a section"),
        ("train.freeze=[", "not valid YAML"),
    ],
)
def test_refusals(tmp_path, override, message):
    with pytest.raises(InputError) as error:
        load_train_config(write(tmp_path), [override])
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["finetune_captioning", "finetune_contrastive", "pretrain", "train_digits"])
def test_recipes_are_valid(name):
    config = load_train_config(CONFIG_DIR / f"{name}.yaml")
    load_model_config(config.model.config)


def test_random_crops_can_be_left_out(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8))
    model = load_model_config("coca_digits")
    for task, by_default in (("coca", True), ("nlvr2", False)):
        for value, crops in ((None, by_default), (True, True), (False, False)):
            config = load_train_config(write(tmp_path, task=task, data={"train": "x.csv", "random_crop": value}))
            transform = training_transform(config.random_crop, model)
            assert np.array_equal(transform(image, (0, 1)), transform(image, (0, 2))) is not crops
            assert (
                np.array_equal(transform(image, (0, 1)), make_transform(model.image_hw, model.preprocess)(image))
                is not crops
            )


@pytest.mark.parametrize(
    ("train", "loss", "devices", "alone"),
    [
        ({"batch_size": 1}, {}, 1, True),
        ({"batch_size": 1}, {"contrastive_weight": 0}, 1, False),
        ({"batch_size": 1, "accumulate_steps": 2}, {}, 1, False),
        ({"batch_size": 1}, {}, 2, False),
        ({"batch_size": 2}, {}, 1, False),
    ],
)
def test_a_batch_of_one_pair_is_warned_of(tmp_path, train, loss, devices, alone):
    config = load_train_config(write(tmp_path, train=train, loss=loss))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_pairs(config, Ranks(0, devices))
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == alone and all("train.batch_size 1" in message for message in messages)
    assert all("loss.contrastive_weight=0" in message and "\n" not in message for message in messages)


def test_a_batch_of_one_pair_with_no_other_loss_is_refused(tmp_path):
    config = load_train_config(write(tmp_path, train={"batch_size": 1}, loss={"caption_weight": 0}))
    with pytest.raises(InputError, match=r"train\.batch_size 1"):
        check_pairs(config, Ranks())
