"""Every key of a training config, its meaning and its default."""

import dataclasses
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import yaml

from mindone_coca.config import find_config
from mindone_coca.data.settings import DataConfig, Task
from mindone_coca.errors import InputError
from mindone_coca.tasks.settings import HeadConfig, check_task
from mindone_coca.typed_mapping import from_dict, read_mapping


@dataclass
class ModelSection:
    config: str  # a model config: a path or a packaged name
    checkpoint: str | None = None  # weights to start from; without them training starts from scratch
    temporal_embedding: bool = False  # with data.fusion pool: learn the order of data.num_frames frames, from 0 on


@dataclass
class OptimConfig:
    """AdamW and its schedule; open_clip's defaults where it has one."""

    lr: float = 5e-4
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    weight_decay: float = 0.2  # off for norms, biases, gains and the temperature
    warmup_steps: int = 0
    schedule: Literal["cosine", "constant"] = "cosine"
    end_lr: float = 0.0  # where the cosine ends
    layer_decay: float = 1.0  # factor of the learning rate per block, counted from the end of each tower


@dataclass
class LossConfig:
    """Weights of the terms; a term of weight 0 is not computed."""

    caption_weight: float = 2.0
    contrastive_weight: float = 1.0
    # Weight of the mean log(Z)^2 of the caption's softmax (PaLM's z-loss; 1e-4 there), which the reported loss leaves
    # out. It draws logits to log-probabilities: open_clip's beam search adds up the former.
    z_loss_weight: float = 0.0


@dataclass
class RunConfig:
    batch_size: int = 32  # pairs per device and micro-batch
    epochs: int | None = None  # 1, or as many as max_steps needs
    max_steps: int | None = None  # updates; the run and its schedule end at the earlier of both
    accumulate_steps: int = 1  # micro-batches per update
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"  # of activations; parameters stay in float32
    grad_clip_norm: float | None = None
    ema_decay: float | None = None  # keep a moving average of the weights; it is what is validated and exported
    recompute: bool = False  # compute activations again in the backward pass: less memory, more time
    freeze: list[str] = field(default_factory=list)  # patterns of parameter names, such as "visual.*"
    seed: int = 0


@dataclass
class OutputConfig:
    dir: str = "outputs/train"
    log_every: int = 10  # steps
    save_every: int = 1000  # steps between checkpoints; one more is written at the end
    keep_last: int = 2  # checkpoints
    keep_best: bool = True  # export the weights with the lowest validation loss
    val_every: int | None = None  # steps; None: at the end of each epoch
    val_images: int = 16  # captioned on the validation page
    resume: Literal["auto", "never"] = "auto"  # continue from the newest checkpoint in `dir`
    profile: tuple[int, int] | None = None  # first and last step to record with MindSpore's profiler


@dataclass
class DeviceConfig:
    target: Literal["auto", "CPU", "GPU", "Ascend"] = "auto"
    id: int | None = None
    mode: Literal["graph", "pynative"] = "graph"
    jit_level: Literal["O0", "O1", "O2"] | None = None
    max_memory: str | None = None  # such as 30GB


@dataclass
class TrainConfig:
    model: ModelSection
    data: DataConfig
    task: Literal["coca", Task] = "coca"  # what is trained: CoCa's own losses, or a head for a task
    head: HeadConfig = field(default_factory=HeadConfig)  # of a task
    optim: OptimConfig = field(default_factory=OptimConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: RunConfig = field(default_factory=RunConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    device: DeviceConfig = field(default_factory=DeviceConfig)

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)


def load_train_config(path: str | os.PathLike, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read and check a training config.

    Args:
        path: a YAML or JSON file, or a packaged config by name.
        overrides: `section.key=value`, the value in YAML; they win over the file.
    Raises:
        InputError: an unknown key, a wrong type or value, naming it and the mend.
    """
    path = find_config(path)
    data = read_mapping(path)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise InputError(f"{override}: write an override as section.key=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise InputError(f"{override}: the value is not valid YAML") from None
        *sections, last = key.strip().split(".")
        inner = data
        for section in sections:
            inner = inner.setdefault(section, {})
            if not isinstance(inner, dict):
                raise InputError(f"{override}: {section} is not a section")
        inner[last] = value
    if data.get("task") == "video_classification" and isinstance(data.get("data"), dict):
        data["data"].setdefault("frame_type", "multi_frames")
    for section in ("optim", "loss", "train", "head"):
        if isinstance(data.get(section), dict):
            data[section] = {key: as_number(value) for key, value in data[section].items()}
    config = from_dict(TrainConfig, data, str(path))
    check_train_config(config, str(path))
    return config


def as_number(value: object) -> object:
    """1e-5 as a number: YAML 1.1 wants 1.0e-5 and takes it for text."""
    if isinstance(value, list):
        return [as_number(item) for item in value]
    return float(value) if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value) else value


def check_train_config(config: TrainConfig, where: str) -> None:
    """Refuse values outside their range by name."""
    optim, loss, train, output = config.optim, config.loss, config.train, config.output
    positive = {
        "optim.lr": optim.lr, "optim.eps": optim.eps, "optim.layer_decay": optim.layer_decay,
        "train.batch_size": train.batch_size, "train.epochs": train.epochs, "train.max_steps": train.max_steps,
        "train.accumulate_steps": train.accumulate_steps, "train.grad_clip_norm": train.grad_clip_norm,
        "output.log_every": output.log_every, "output.save_every": output.save_every,
        "output.keep_last": output.keep_last, "output.val_every": output.val_every,
    }  # fmt: skip
    for name, value in positive.items():
        if value is not None and value <= 0:
            raise InputError(f"{where}: {name}: must be above 0, got {value}")
    not_negative = {
        "optim.weight_decay": optim.weight_decay, "optim.warmup_steps": optim.warmup_steps,
        "optim.end_lr": optim.end_lr, "loss.caption_weight": loss.caption_weight,
        "loss.contrastive_weight": loss.contrastive_weight, "loss.z_loss_weight": loss.z_loss_weight,
        "output.val_images": output.val_images,
    }  # fmt: skip
    for name, value in not_negative.items():
        if value < 0:
            raise InputError(f"{where}: {name}: must not be negative, got {value}")
    if not loss.caption_weight and not loss.contrastive_weight:
        raise InputError(f"{where}: loss: caption_weight and contrastive_weight are both 0; there is nothing to learn")
    if not all(0 <= beta < 1 for beta in optim.betas):
        raise InputError(f"{where}: optim.betas: must be from 0 to below 1, got {list(optim.betas)}")
    if train.ema_decay is not None and not 0 < train.ema_decay < 1:
        raise InputError(f"{where}: train.ema_decay: must be between 0 and 1, got {train.ema_decay}")
    check_task(config, where)
    if output.profile and not 1 <= output.profile[0] <= output.profile[1]:
        raise InputError(f"{where}: output.profile: must be [first, last] step from 1 on, got {list(output.profile)}")
