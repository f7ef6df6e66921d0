"""The `task` and `head:` of a training config, and the `task_cfg` section of a trained task model's config."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mindone_coca.data.settings import DataConfig
from mindone_coca.errors import InputError
from mindone_coca.storage import is_url
from mindone_coca.tasks.spec import TASKS, Task, TaskSpec
from mindone_coca.training.settings import VARYING_PICTURES, TrainConfig, check_train_config, read_train_settings
from mindone_coca.typed_mapping import from_dict, value_differs


@dataclass
class HeadConfig:
    """The part that a task adds to CoCa: an attentional pooler and a linear classifier (paper, appendices A and B).

    `optim.lr` is their learning rate, the paper's "pooler LR".
    """

    queries: int = 1  # of the pooler; the paper's tasks have one
    heads: int | None = None  # of the pooler's attention; None: as many as the model's own pooler has
    label_smoothing: float = 0.0  # share of the target spread over all classes
    # Train pooler and classifier only. None: yes for classification and video_classification, no for tasks with text,
    # which the paper finetunes.
    frozen: bool | None = None
    encoder_lr: float | None = None  # the learning rate of CoCa's own weights where they are trained; None: optim.lr
    answers: int = 3129  # of vqa: this many of the commonest training answers are the classes
    # Of vqa: weight of the cross-entropy of question and answer as one caption, which is trained beside the answer's
    # (paper, appendix); the reported loss leaves it out.
    caption_weight: float = 0.0
    # A folder for the frozen model's outputs, so that each sample is encoded once; it may be deleted at any time.
    cache: str | None = None
    views: int = 1  # of video_classification: clips per video in validation, whose probabilities are averaged

    def is_frozen(self, task: str) -> bool:
        return TASKS[task].frozen if self.frozen is None else self.frozen


@dataclass
class TaskCfg:
    """What a trained task model's config says of its head."""

    task: Task
    labels: list[str]  # names of the classes, in the order of the classifier's rows
    heads: int
    queries: int = 1
    num_frames: int = 1  # of a video, each with its temporal embedding

    def __post_init__(self) -> None:
        if self.heads < 1 or self.queries < 1 or self.num_frames < 1:
            raise InputError(
                f"task_cfg: heads {self.heads}, queries {self.queries}, num_frames {self.num_frames}: "
                "all must be above 0"
            )
        if len(self.labels) < 2:
            raise InputError(
                f"task_cfg: labels: {len(self.labels)} classes cannot be told apart; at least 2 are needed"
            )

    @property
    def spec(self) -> TaskSpec:
        return TASKS[self.task]

    @property
    def images(self) -> int:
        """Images of one sample."""
        return self.num_frames if self.spec.video else len(self.spec.pictures) or 1


@dataclass
class TaskTrainConfig(TrainConfig):
    """The settings of a run that trains a head for a task."""

    task: Task = "classification"
    head: HeadConfig = field(default_factory=HeadConfig)

    @property
    def random_crop(self) -> bool:
        """Whether the run trains on random crops."""
        return TASKS[self.task].random_crop if self.data.random_crop is None else self.data.random_crop


def load_train_config(path: str | os.PathLike, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read and check a training config: CoCa's own, or with `task` another's a TaskTrainConfig.

    Args:
        path: a YAML or JSON file, or a packaged config by name.
        overrides: `section.key=value`, the value in YAML; they win over the file.
    Raises:
        InputError: an unknown key, a wrong type or value, naming it and the mend.
    """
    data, where = read_train_settings(path, overrides)
    task = data.get("task", "coca")
    if task == "coca":
        head = from_dict(HeadConfig, data.pop("head", {}), f"{where}: head")
        if changed := _changed(head):
            raise InputError(
                f"{where}: head.{changed[0]}: task coca has no head; remove it, or set task to one of "
                f"{', '.join(TASKS)}"
            )
        config = from_dict(TrainConfig, data, where)
        check_train_config(config, where)
        return config
    if task in TASKS and TASKS[task].video and isinstance(data.get("data"), dict):
        data["data"].setdefault("frame_type", "multi_frames")
    config = from_dict(TaskTrainConfig, data, where)
    check_train_config(config, where)
    check_task(config, where)
    return config


def _changed(section: HeadConfig) -> list[str]:
    """Settings away from their defaults."""
    return [spec.name for spec in dataclasses.fields(section) if value_differs(section, spec)]


def check_task(config: TaskTrainConfig, where: str) -> None:
    """Refuse settings that the task does not have, or that contradict each other, by name."""
    task, head, data, spec = config.task, config.head, config.data, TASKS[config.task]

    def refuse(key: str, reason: str) -> None:
        raise InputError(f"{where}: {key}: {reason}")

    for loss in dataclasses.fields(config.loss):
        if value_differs(config.loss, loss):
            refuse(f"loss.{loss.name}", f"task {task} has the cross-entropy as its only loss; remove it")
    if config.model.temporal_embedding:
        refuse("model.temporal_embedding", f"task {task} does not use it; video_classification has its own; remove it")
    if data.cache is not None:
        refuse("data.cache", f"keeps what task coca reads; task {task} has head.cache for that; move it there")
    if data.fusion != DataConfig.fusion:
        refuse("data.fusion", f"says nothing about task {task}, whose pooler reads all images; remove it")
    if not spec.video and data.frame_type == "multi_frames":
        refuse(
            "data.frame_type", f"task {task} reads one frame; use middle or random, or set task to video_classification"
        )
    changed = _changed(head)
    for name, needed in (("answers", "vqa"), ("caption_weight", "vqa"), ("views", "video_classification")):
        if name in changed and task != needed:
            refuse(f"head.{name}", f"says something about task {needed} only, not {task}; remove it")
    if head.views > 1 and data.frame_type != "multi_frames":
        refuse("head.views", "several clips need data.frame_type: multi_frames")
    for name in ("queries", "heads", "answers", "views", "encoder_lr"):
        value = getattr(head, name)
        if value is not None and value <= 0:
            refuse(f"head.{name}", f"must be above 0, got {value}")
    if head.caption_weight < 0:
        refuse("head.caption_weight", f"must not be negative, got {head.caption_weight}")
    if not 0 <= head.label_smoothing < 1:
        refuse("head.label_smoothing", f"must be from 0 to below 1, got {head.label_smoothing}")
    _check_frozen(config, refuse)


def _check_frozen(config: TaskTrainConfig, refuse: Callable[[str, str], None]) -> None:
    """What a model whose own weights stay as they are cannot have, and what only such a model can."""
    task, head = config.task, config.head
    frozen = head.is_frozen(task)
    if frozen and head.caption_weight:
        refuse("head.caption_weight", "trains CoCa, which stays as it is with head.frozen: true; remove one of them")
    if frozen and head.encoder_lr is not None:
        refuse("head.encoder_lr", f"task {task} trains with head.frozen: true here; remove it or set frozen: false")
    if frozen and config.train.lora:
        refuse("train.lora", "all of CoCa stays as it is with head.frozen: true; remove it or set frozen: false")
    if frozen and config.train.freeze:
        refuse("train.freeze", "all of CoCa stays as it is with head.frozen: true; remove it or set frozen: false")
    if frozen and config.train.recompute:
        refuse("train.recompute", "saves nothing with head.frozen: true, which has no backward pass through CoCa")
    if head.cache is not None:
        if is_url(head.cache):
            refuse("head.cache", "outputs are kept on this machine only; give a folder here")
        if not frozen:
            refuse("head.cache", "keeps the outputs of a frozen model; set head.frozen: true or remove it")
        if config.pictures_vary:
            refuse("head.cache", VARYING_PICTURES)
