"""Every key of a training config, its meaning and its default."""

import dataclasses
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import yaml

from mindone_coca.config import DeviceTarget, Dtype, JitLevel, Kernels, Mode, Precision, find_config
from mindone_coca.data.settings import DataConfig
from mindone_coca.errors import InputError
from mindone_coca.model.families import is_model_config
from mindone_coca.places import here
from mindone_coca.typed_mapping import read_mapping, value_differs


@dataclass
class ModelSection:
    config: str  # a model config: a path or a packaged name
    checkpoint: str | None = None  # weights to start from; None: from scratch, whatever weights the model config names
    temporal_embedding: bool = False  # with data.fusion pool: learn the order of data.num_frames frames, from 0 on


@dataclass
class OptimConfig:
    """The optimizer and its schedule; open_clip's defaults where it has one."""

    # adamw keeps two numbers for each that is trained; adafactor (arXiv 1804.04235) for a matrix of n x m only n + m,
    # and has no betas and no eps.
    name: Literal["adamw", "adafactor"] = "adamw"
    # The learning rate after warmup. adafactor's is relative to the root mean square of each tensor: 1e-3 or so.
    lr: float = 5e-4
    betas: tuple[float, float] = (0.9, 0.98)  # adamw: decay of the moving averages of gradients and their squares
    eps: float = 1e-6  # adamw: added to the root of the latter
    weight_decay: float = 0.2  # off for norms, biases, gains and the temperature
    warmup_steps: int = 0  # updates over which the learning rate rises from 0
    schedule: Literal["cosine", "constant"] = "cosine"  # of the learning rate, after warmup
    end_lr: float = 0.0  # where the cosine ends
    layer_decay: float = 1.0  # factor of the learning rate per block, counted from the end of each tower


VARYING_PICTURES = (
    "random crops and augmented pictures are never the same twice; set data.random_crop: false and leave data.augment "
    "out, or remove it"
)


@dataclass
class LossConfig:
    """Weights of the terms; a term of weight 0 is not computed."""

    caption_weight: float = 2.0  # of the cross-entropy of captions
    contrastive_weight: float = 1.0  # of the contrast of images and texts
    # Weight of the mean log(Z)^2 of the caption's softmax (PaLM's z-loss; 1e-4 there), which the reported loss leaves
    # out. It draws logits to log-probabilities: open_clip's beam search adds up the former.
    z_loss_weight: float = 0.0


@dataclass
class LoraConfig:
    """Low-rank adapters on frozen weights (arXiv 2106.09685), as the peft library has them."""

    rank: int = 8  # r, the width of an adapter's middle
    alpha: float = 16.0  # what an adapter adds is multiplied by alpha / rank
    dropout: float = 0.0  # share of an adapter's inputs that training drops; none in attention, as in peft
    # Patterns of layers, such as "text_decoder.*.attn" or "*.mlp.c_fc": an attention layer, with its output
    # projection, or another linear layer. None: those in the blocks of all towers, but not those of poolers and heads.
    targets: list[str] | None = None
    use_rslora: bool = False  # multiply by alpha / sqrt(rank) instead


@dataclass
class RunConfig:
    batch_size: int = 32  # pairs per device and micro-batch
    epochs: int | None = None  # 1, or as many as max_steps needs
    max_steps: int | None = None  # updates; the run and its schedule end at the earlier of both
    accumulate_steps: int = 1  # micro-batches per update
    # of activations; parameters stay in float32. auto: bf16 on Ascend's A2 and A3, fp16 on its 910A, else fp32; a run
    # that goes on keeps what it had
    precision: Precision | Literal["auto"] = "fp32"
    grad_clip_norm: float | None = None  # the largest norm of all gradients together; None: no limit
    ema_decay: float | None = None  # keep a moving average of the weights; it is what is validated and exported
    recompute: bool = False  # compute activations again in the backward pass: less memory, more time
    freeze: list[str] = field(default_factory=list)  # patterns of parameter names, such as "visual.*"
    # How the matrices that are not trained are kept in memory; they are cast where they are used. They are read from
    # model.checkpoint, and what a run exports has them as they are there.
    frozen_dtype: Dtype = "float32"
    # Train adapters; the weights of the layers that have one are frozen. So is all else of the model, unless
    # train.freeze is given: then what its patterns leave open is trained beside them.
    lora: LoraConfig | None = None
    seed: int = 0  # of fresh weights, the order of samples and all that is drawn


@dataclass
class OutputConfig:
    dir: str = "outputs/train"  # the run's folder
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
    target: DeviceTarget = "auto"  # auto: MindSpore's own choice
    id: int | None = None  # of several devices; under msrun each process has its own
    mode: Mode = "graph"  # graph compiles first, pynative runs one operation after another
    jit_level: JitLevel | None = None  # of the compiler; None: MindSpore's own choice
    max_memory: str | None = None  # such as 30GB
    deterministic: bool = False  # the same digits each time also on Ascend, more slowly
    kernels: Kernels = "auto"  # the fastest forms of operations that the device has; portable: those that all have


@dataclass
class TrainConfig:
    """The settings of a run that trains CoCa by its own two losses; `tasks.settings` has those of other tasks."""

    model: ModelSection
    data: DataConfig
    task: str = "coca"  # those of `tasks.settings` train a head
    optim: OptimConfig = field(default_factory=OptimConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: RunConfig = field(default_factory=RunConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    device: DeviceConfig = field(default_factory=DeviceConfig)

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)

    @property
    def random_crop(self) -> bool:
        """Whether the run trains on random crops."""
        return self.data.random_crop is not False

    @property
    def pictures_vary(self) -> bool:
        """Whether a picture is another one in each epoch."""
        return self.random_crop or self.data.augment is not None


def read_train_settings(path: str | os.PathLike, overrides: Sequence[str] = ()) -> tuple[dict, str]:
    """Read a training config as plain data, not checked yet.

    Args:
        path: a YAML or JSON file, or a packaged config by name.
        overrides: `section.key=value`, the value in YAML; they win over the file.
    Returns:
        the data, and the file's name for messages.
    Raises:
        InputError: a file that cannot be read, or an override that is none.
    """
    path = find_config(path)
    data = read_mapping(path)
    if is_model_config(data):
        raise InputError(
            f"{path}: is a model's config, not one for train.py; give one of these, such as configs/train_digits.yaml, "
            "that names it as model.config"
        )
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
    for section in ("optim", "loss", "train", "head"):
        if isinstance(data.get(section), dict):
            data[section] = {key: as_number(value) for key, value in data[section].items()}
    return data, str(path)


def as_number(value: object) -> object:
    """1e-5 as a number: YAML 1.1 wants 1.0e-5 and takes it for text."""
    if isinstance(value, list):
        return [as_number(item) for item in value]
    if isinstance(value, dict):
        return {key: as_number(item) for key, item in value.items()}
    return float(value) if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value) else value


def check_train_config(config: TrainConfig, where: str) -> None:
    """Refuse values outside their range by name."""
    optim, loss, train, output = config.optim, config.loss, config.train, config.output
    positive = {
        "optim": (optim, ("lr", "eps", "layer_decay")),
        "train": (train, ("batch_size", "epochs", "max_steps", "accumulate_steps", "grad_clip_norm")),
        "output": (output, ("log_every", "save_every", "keep_last", "val_every")),
    }
    not_negative = {
        "optim": (optim, ("weight_decay", "warmup_steps", "end_lr")),
        "loss": (loss, ("caption_weight", "contrastive_weight", "z_loss_weight")),
        "output": (output, ("val_images",)),
    }
    for sections, rule in ((positive, "be above 0"), (not_negative, "not be negative")):
        for section, (values, names) in sections.items():
            for name in names:
                value = getattr(values, name)
                if value is not None and (value < 0 or (value == 0 and sections is positive)):
                    raise InputError(f"{where}: {section}.{name}: must {rule}, got {value}")
    if not loss.caption_weight and not loss.contrastive_weight:
        raise InputError(f"{where}: loss: caption_weight and contrastive_weight are both 0; there is nothing to learn")
    if not all(0 <= beta < 1 for beta in optim.betas):
        raise InputError(f"{where}: optim.betas: must be from 0 to below 1, got {list(optim.betas)}")
    if train.ema_decay is not None and not 0 < train.ema_decay < 1:
        raise InputError(f"{where}: train.ema_decay: must be between 0 and 1, got {train.ema_decay}")
    if optim.name == "adafactor":
        for spec in dataclasses.fields(optim):
            if spec.name in ("betas", "eps") and value_differs(optim, spec):
                raise InputError(f"{where}: optim.{spec.name}: is adamw's, adafactor has none; remove it")
    if train.lora is not None:
        check_lora(config, where)
    if config.task == "coca" and config.data.cache is not None:
        here(config.data.cache, f"{where}: data.cache", "give a folder here")
        if config.pictures_vary:
            raise InputError(f"{where}: data.cache: {VARYING_PICTURES}")
    if train.frozen_dtype != "float32" and config.model.checkpoint is None:
        raise InputError(
            f"{where}: train.frozen_dtype: {train.frozen_dtype} keeps trained weights so; name them with "
            "model.checkpoint"
        )
    here(output.dir, f"{where}: output.dir", "give a folder here, and copy it there when the run has ended")
    if output.profile and not 1 <= output.profile[0] <= output.profile[1]:
        raise InputError(f"{where}: output.profile: must be [first, last] step from 1 on, got {list(output.profile)}")


def check_lora(config: TrainConfig, where: str) -> None:
    """Refuse values of `train.lora` outside their range by name."""
    lora = config.train.lora
    assert lora is not None
    for name, value in (("rank", lora.rank), ("alpha", lora.alpha)):
        if value <= 0:
            raise InputError(f"{where}: train.lora.{name}: must be above 0, got {value}")
    if not 0 <= lora.dropout < 1:
        raise InputError(f"{where}: train.lora.dropout: must be from 0 to below 1, got {lora.dropout}")
    if lora.targets == []:
        raise InputError(f"{where}: train.lora.targets: empty, it adapts nothing; leave it out for the usual layers")
    if config.model.checkpoint is None:
        raise InputError(f"{where}: train.lora: adapts trained weights; name them with model.checkpoint")
