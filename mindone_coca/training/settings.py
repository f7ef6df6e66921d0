"""Every key of a training config, its meaning and its default."""

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from mindone_coca.config import find_config, from_dict, nearest, read_mapping
from mindone_coca.errors import InputError


@dataclass
class ModelSection:
    config: str  # a model config: a path or a packaged name
    checkpoint: str | None = None  # weights to start from; without them training starts from scratch


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
    """Weights of the two terms; a term of weight 0 is not computed."""

    caption_weight: float = 2.0
    contrastive_weight: float = 1.0


@dataclass
class RunConfig:
    batch_size: int = 32  # pairs per device and micro-batch
    epochs: int = 1
    max_steps: int | None = None  # ends the run early; also the schedule's end
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
    data: Any  # mindone_coca.data.settings.DataConfig, built in load_train_config
    optim: OptimConfig = field(default_factory=OptimConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: RunConfig = field(default_factory=RunConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    device: DeviceConfig = field(default_factory=DeviceConfig)

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)
