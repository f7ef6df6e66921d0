"""What a run trains: the model, its data, its step and its validation. The loop around it is the trainer's."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from mindspore import Parameter, Tensor
from PIL import Image

from mindone_coca.captioning.captioner import make_transform
from mindone_coca.config import ModelConfig, load_model_config
from mindone_coca.data.loader import Batch, TrainingData, open_data
from mindone_coca.distributed import Ranks
from mindone_coca.errors import InputError
from mindone_coca.factory import create_model
from mindone_coca.losses import PAD_ID
from mindone_coca.model.coca_pytorch.config import ParallelConfig
from mindone_coca.model.coca_pytorch.model import ParallelCoCa
from mindone_coca.model.open_clip.model import CoCa
from mindone_coca.model.video import VideoEncoder
from mindone_coca.preprocess.tokenizer import Tokenizer
from mindone_coca.preprocess.transforms import create_train_transforms
from mindone_coca.tasks.settings import crops_randomly
from mindone_coca.training.checkpoints import export
from mindone_coca.training.optim import AdamW, freeze, freeze_unreached
from mindone_coca.training.settings import TrainConfig
from mindone_coca.training.step import TrainStep
from mindone_coca.training.validation import Evaluate, caption_tokens, evaluate, write_page
from mindone_coca.weights.formats.entry import Entry

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


class Job(Protocol):
    """What the trainer asks of `CocaJob` and of `tasks.job.TaskJob`."""

    weights: list[Parameter]  # of the exported model
    optimiser: AdamW
    data: Any  # with len(), epoch(number, start_batch) and bad_samples, as TrainingData
    val: Any  # data for `validate`, or None

    def run(self, batches: Sequence[Any], rate: float) -> tuple[Tensor, ...]:
        """Make one update from its micro-batches, without waiting for the device."""

    def report(self, result: tuple[Tensor, ...]) -> dict[str, float]:
        """What `run` returned as numbers, `loss` and `updated` among them."""

    def validate(self) -> dict[str, float]:
        """Values over the validation data, `loss` among them; every device calls it."""

    def write_page(self, target: Path, step: int, losses: dict[str, float]) -> None:
        """An HTML page of samples and what the model says to them, where there is one."""

    def export(self, folder: Path, name: str, weights: dict[str, Entry]) -> Path:
        """Write the model for inference; returns its config's path."""


def open_model(config: TrainConfig) -> tuple[ModelConfig | ParallelConfig, CoCa | ParallelCoCa, Tokenizer]:
    """The model to train, with float32 parameters, its config, and the tokenizer, which has to fit."""
    model_config = load_model_config(config.model.config)
    model_config.cast_dtype = None  # parameters stay in float32
    model = create_model(model_config, config.model.checkpoint)
    tokenizer = Tokenizer()
    if model_config.vocab_size != tokenizer.vocab_size:
        raise InputError(
            f"{config.model.config}: the vocabulary must be {tokenizer.vocab_size}, the tokenizer's, "
            f"not {model_config.vocab_size}"
        )
    if isinstance(model_config, ParallelConfig) and model_config.pad_id != PAD_ID:
        raise InputError(f"{config.model.config}: pad_id must be {PAD_ID}, with which captions are padded")
    return model_config, model, tokenizer


def set_precision(model: CoCa | ParallelCoCa, config: TrainConfig) -> None:
    """Compute in train.precision, and recompute activations if train.recompute says so."""
    model.set_compute_dtype(DTYPES[config.train.precision])
    if config.train.recompute:
        model.set_grad_checkpointing()


@dataclass(frozen=True)
class WithoutCrops:
    """A transform for training that draws nothing: `transform(image, seed)` is the evaluation's."""

    transform: Callable[[Image.Image | np.ndarray], np.ndarray]

    def __call__(self, image: Image.Image | np.ndarray, seed: tuple[int, ...]) -> np.ndarray:
        return self.transform(image)


def training_transform(
    config: TrainConfig, model_config: ModelConfig | ParallelConfig
) -> Callable[[Image.Image | np.ndarray, tuple[int, ...]], np.ndarray]:
    """`transform(image, seed)` -> (3, S, S): open_clip's random crops, or the transform for inference."""
    if not crops_randomly(config.task, config.data):
        return WithoutCrops(make_transform(model_config))
    preprocess = model_config.preprocess
    return create_train_transforms(model_config.image_hw, preprocess.mean, preprocess.std)


class CocaJob:
    """CoCa's own two losses on captioned images and videos (paper section 3.2).

    Raises InputError: config, data or weights that do not go together.
    """

    def __init__(self, config: TrainConfig, ranks: Ranks) -> None:
        self.config, self.ranks = config, ranks
        self.model_config, self.model, self.tokenizer = open_model(config)
        self._prepare_videos()
        set_precision(self.model, config)
        self.data = self._open_data(training=True)
        self.val = self._open_data(training=False) if config.data.val is not None else None
        freeze(self.model, config.train.freeze)
        freeze_unreached(self.model, config.loss.caption_weight, config.loss.contrastive_weight)
        self.optimiser = AdamW(
            self.model, config.optim, ranks, config.train.grad_clip_norm, config.train.ema_decay,
            loss_scaling=config.train.precision == "fp16",
        )  # fmt: skip
        self.weights = list(self.model.get_parameters())
        self.step = TrainStep(
            self.model, config.loss, self.optimiser, ranks, config.train.accumulate_steps, config.data.fusion
        )
        self.evaluation = Evaluate(self.step.loss)
        self.encoder = VideoEncoder(self.model, config.data.fusion)

    def _prepare_videos(self) -> None:
        """Check the fusion of frames, and add temporal embeddings where the weights have none yet."""
        data = self.config.data
        pools = data.frame_type == "multi_frames" and data.fusion == "pool"
        if data.fusion == "pool" and not self.model.pools_frames:
            raise InputError("data.fusion: pool needs a model with attentional_pool; use mean")
        if self.config.model.temporal_embedding and not pools:
            raise InputError(
                "model.temporal_embedding: needs data.frame_type multi_frames and data.fusion pool; a mean cannot see "
                "the order of frames"
            )
        if self.config.model.temporal_embedding and not self.model_config.temporal_frames:
            self.model.add_temporal_embedding(data.num_frames)
            self.model_config.temporal_frames = data.num_frames

    def _open_data(self, training: bool) -> TrainingData:
        transform = make_transform(self.model_config)
        if training:
            transform = training_transform(self.config, self.model_config)
        return open_data(
            self.config.data, self.tokenizer, transform, batch_size=self.config.train.batch_size,
            context_length=self.model_config.training_length, seed=self.config.train.seed, training=training,
            rank=self.ranks.rank, world_size=self.ranks.size,
        )  # fmt: skip

    def run(self, batches: Sequence[Batch], rate: float) -> tuple[Tensor, ...]:
        return self.step.run([(batch.images, batch.text) for batch in batches], rate)

    def report(self, result: tuple[Tensor, ...]) -> dict[str, float]:
        return self.step.report(result)

    def validate(self) -> dict[str, float]:
        return evaluate(self.evaluation, self.val, self.config.loss)

    def write_page(self, target: Path, step: int, losses: dict[str, float]) -> None:
        """Images with their captions, where the decoder is trained."""
        if not self.config.loss.caption_weight:
            return
        with closing(self.val.epoch(0)) as batches:
            batch = next(batches)
        images = batch.images[: self.config.output.val_images]
        _, tokens = self.encoder(Tensor(images))
        captions = caption_tokens(self.model, tokens, self.tokenizer)
        write_page(target, step, losses, batch, captions, self.model_config.preprocess)

    def export(self, folder: Path, name: str, weights: dict[str, Entry]) -> Path:
        return export(folder, name, self.model_config, weights)
