"""Settings of tasks: the defaults of each, and what is refused."""

from typing import get_args

import pytest

from mindone_coca.errors import InputError
from mindone_coca.tasks.settings import TaskCfg, load_train_config
from mindone_coca.tasks.spec import TASKS, Task
from tests.training.test_settings import write


def test_defaults_follow_the_paper(tmp_path):
    found = {}
    for task in TASKS:
        config = load_train_config(write(tmp_path, task=task))
        found[task] = (config.head.is_frozen(task), config.random_crop, config.data.frame_type)
    assert found == {
        "classification": (True, True, "middle"),
        "vqa": (False, True, "middle"),
        "entailment": (False, True, "middle"),
        "nlvr2": (False, False, "middle"),
        "video_classification": (True, False, "multi_frames"),
    }
    middle = load_train_config(write(tmp_path, task="video_classification"), ["data.frame_type=middle"])
    assert middle.data.frame_type == "middle"


def test_the_table_has_each_task_once():
    assert tuple(TASKS) == get_args(Task)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["head.queries=2"], "head.queries: task coca has no head"),
        (["task=classify"], "did you mean 'classification'"),
        (["task=vqa", "head.query=2"], "unknown key 'query'; did you mean 'queries'"),
        (["task=vqa", "head.queries=0"], "head.queries: must be above 0"),
        (["task=vqa", "head.heads=-1"], "head.heads: must be above 0"),
        (["task=vqa", "head.label_smoothing=1"], "head.label_smoothing: must be from 0 to below 1"),
        (["task=vqa", "head.frozen=1"], "head: frozen: must be bool or null"),
        (["task=vqa", "loss.caption_weight=1"], "loss.caption_weight: task vqa has the cross-entropy"),
        (["task=vqa", "model.temporal_embedding=true"], "model.temporal_embedding: task vqa"),
        (["task=vqa", "data.fusion=pool"], "data.fusion: says nothing about task vqa"),
        (["task=vqa", "data.frame_type=multi_frames"], "data.frame_type: task vqa reads one frame"),
        (["task=entailment", "head.answers=10"], "head.answers: says something about task vqa only"),
        (["task=entailment", "head.caption_weight=1"], "head.caption_weight: says something about task vqa only"),
        (["task=vqa", "head.caption_weight=-1"], "head.caption_weight: must not be negative, got -1"),
        (["task=vqa", "head.frozen=true", "head.caption_weight=1"], "head.caption_weight: trains CoCa, which stays"),
        (["task=vqa", "head.views=3"], "head.views: says something about task video_classification only"),
        (["task=classification", "head.encoder_lr=1e-4"], "head.encoder_lr: task classification trains with"),
        (["task=classification", "train.freeze=['visual.*']"], "train.freeze: all of CoCa stays"),
        (["task=classification", "train.recompute=true"], "train.recompute: saves nothing"),
        (["task=vqa", "head.cache=x"], "head.cache: keeps the outputs of a frozen model"),
        (["task=classification", "head.cache=x"], "head.cache: random crops and augmented pictures are never the same"),
        (["task=video_classification", "head.cache=x", "data.random_crop=true"], "head.cache: random crops"),
        (["task=video_classification", "head.cache=x", "data.augment={}"], "head.cache: random crops and augmented"),
        (["task=video_classification", "head.views=2", "data.frame_type=middle"], "head.views: several clips"),
    ],
)
def test_refusals(tmp_path, overrides, message):
    with pytest.raises(InputError) as error:
        load_train_config(write(tmp_path), overrides)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"), [({"heads": 0}, "must be above 0"), ({"labels": ["one"]}, "at least 2 are needed")]
)
def test_impossible_heads(changes, message):
    with pytest.raises(InputError, match=message):
        TaskCfg(**{"task": "vqa", "labels": ["a", "b"], "heads": 2, **changes})
