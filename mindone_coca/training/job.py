"""What a run trains: the model, its data, its step and its validation. The loop around it is the trainer's."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from mindspore import Parameter, Tensor
from PIL import Image

from mindone_coca.captioning.batches import BatchCaptioner
from mindone_coca.captioning.options import CaptionOptions
from mindone_coca.config import DTYPE_OF, PreprocessCfg
from mindone_coca.data.loader import Batch, TrainingData, open_data
from mindone_coca.distributed import Ranks
from mindone_coca.errors import InputError
from mindone_coca.factory import create_model
from mindone_coca.losses import PAD_ID
from mindone_coca.model.base import ImageTextModel
from mindone_coca.model.families import load_model_config
from mindone_coca.model.family import FamilyConfig
from mindone_coca.preprocess.augment import AugmentConfig, rand_augment
from mindone_coca.preprocess.tokenizer import Tokenizer
from mindone_coca.preprocess.transforms import EvalTransform, create_train_transforms, make_transform, to_pixels
from mindone_coca.training.adafactor import open_optimizer
from mindone_coca.training.cache import FeatureCache, weights_key
from mindone_coca.training.checkpoints import export
from mindone_coca.training.frozen import keep_frozen
from mindone_coca.training.lora import open_lora, state_of, weights_of
from mindone_coca.training.optim import Optimizer, freeze, freeze_matching
from mindone_coca.training.settings import TrainConfig
from mindone_coca.training.step import TrainStep, is_image_tower, trains_images
from mindone_coca.training.validation import evaluate, write_page
from mindone_coca.weights.formats.entry import Entry

Data = TypeVar("Data")
TrainingTransform = Callable[[Image.Image | np.ndarray, tuple[int, ...]], np.ndarray]

# captions on the validation page may be as short as the training captions
GREEDY = {"generation_type": "top_k", "top_k": 1, "min_seq_len": 1}


class Job(Protocol):
    """What the trainer asks of `CocaJob` and of `tasks.job.TaskJob`."""

    weights: list[Parameter]  # of the exported model
    state: list[Parameter]  # what a checkpoint holds
    optimiser: Optimizer
    data: Any  # with len(), samples, epoch(number, start_batch) and bad_samples, as TrainingData
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


def open_model(config: TrainConfig) -> tuple[FamilyConfig, ImageTextModel, Tokenizer]:
    """The model to train, with float32 parameters, its config, and the tokenizer, which has to fit."""
    model_config = load_model_config(config.model.config)
    model_config.cast_dtype = None  # parameters stay in float32
    model_config = model_config.without_weights()  # model.checkpoint says where training starts
    model = create_model(model_config, config.model.checkpoint)
    tokenizer = Tokenizer()
    if model_config.vocab_size != tokenizer.vocab_size:
        raise InputError(
            f"{config.model.config}: the vocabulary must be {tokenizer.vocab_size}, the tokenizer's, "
            f"not {model_config.vocab_size}"
        )
    if model.pads_text and model.pad_id != PAD_ID:
        raise InputError(f"{config.model.config}: pad_id must be {PAD_ID}, with which captions are padded")
    return model_config, model, tokenizer


def set_precision(model: ImageTextModel, config: TrainConfig) -> None:
    """Compute in train.precision, and recompute activations if train.recompute says so."""
    model.set_compute_dtype(DTYPE_OF[config.train.precision])
    if config.train.recompute:
        model.set_grad_checkpointing()


def held_out(val: Data | None) -> Data:
    """The validation data of a run. Raises InputError where it has none."""
    if val is None:
        raise InputError("data.val: there is none to validate on")
    return val


@dataclass(frozen=True)
class WithoutCrops:
    """A transform for training that draws nothing: `transform(image, seed)` is the evaluation's."""

    transform: Callable[[Image.Image | np.ndarray], np.ndarray]

    def __call__(self, image: Image.Image | np.ndarray, seed: tuple[int, ...]) -> np.ndarray:
        return self.transform(image)


@dataclass(frozen=True)
class Augmented:
    """A transform for training, `crop`, whose pixels are changed by operations that its seed draws, too."""

    crop: TrainingTransform
    plain: EvalTransform  # of the same model
    preprocess: PreprocessCfg
    config: AugmentConfig

    def __call__(self, image: Image.Image | np.ndarray, seed: tuple[int, ...]) -> np.ndarray:
        pixels = Image.fromarray(to_pixels(self.crop(image, seed), self.preprocess))
        return self.plain(rand_augment(pixels, self.config, np.random.default_rng((*seed, 1))))


def training_transform(
    random_crop: bool, model_config: FamilyConfig, augment: AugmentConfig | None = None
) -> TrainingTransform:
    """`transform(image, seed)` -> (3, S, S): open_clip's random crops, or the transform for inference; then, if it is
    asked for, RandAugment."""
    preprocess = model_config.preprocess
    plain = make_transform(model_config.image_hw, preprocess)
    crop: TrainingTransform = WithoutCrops(plain)
    if random_crop:
        crop = create_train_transforms(model_config.image_hw, preprocess.mean, preprocess.std)
    return crop if augment is None else Augmented(crop, plain, preprocess, augment)


def check_pairs(config: TrainConfig, ranks: Ranks) -> None:
    """Warn of batches of one pair, which has nothing to be told from: its contrastive loss and gradient are 0.

    Raises InputError where there is no other loss.
    """
    train, loss = config.train, config.loss
    if not loss.contrastive_weight or train.batch_size * train.accumulate_steps * ranks.size > 1:
        return
    message = (
        "train.batch_size 1 with train.accumulate_steps 1 on one device: the contrastive loss of a single pair is "
        "always 0; raise one of them"
    )
    if not loss.caption_weight:
        raise InputError(message)
    warnings.warn(f"{message}, or set loss.contrastive_weight=0 to train captions alone", stacklevel=2)


@dataclass(frozen=True)
class _Shown:
    """A sample of the validation page, its frames each (3, S, S)."""

    pixels: list[np.ndarray]


class CocaJob:
    """CoCa's own two losses on captioned images and videos (paper section 3.2).

    Raises InputError: config, data or weights that do not go together.
    """

    def __init__(self, config: TrainConfig, ranks: Ranks) -> None:
        self.config, self.ranks = config, ranks
        check_pairs(config, ranks)
        self.model_config, self.model, self.tokenizer = open_model(config)
        self._prepare_videos()
        set_precision(self.model, config)
        self.data = self._open_data(training=True)
        self.val = self._open_data(training=False) if config.data.val is not None else None
        freeze(self.model, config.train.freeze)
        # weight decay would move what the loss does not depend on, which torch leaves alone
        weights = (config.loss.caption_weight, config.loss.contrastive_weight)
        unused = self.model.unused_parameters(*weights)
        freeze_matching(self.model, unused)
        self.lora = open_lora(self.model, self.model, config, ranks, unused)
        self.originals = keep_frozen(self.model, config)
        self.optimiser = open_optimizer(self.model, config, ranks)
        self.weights = weights_of(self.model)
        self.state = state_of(self.weights, self.optimiser, self.lora, self.originals)
        self.step = TrainStep(
            self.model,
            config.loss,
            self.optimiser,
            ranks,
            config.train.accumulate_steps,
            config.data.fusion,
            config.data.label_lengths,
            self.lora.draws.take if self.lora else lambda part: None,
            self._open_cache() if config.data.cache else None,
        )

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

    def _open_cache(self) -> FeatureCache:
        config = self.config
        if trains_images(self.optimiser):
            trained = next(p.name for p in self.optimiser.parameters if is_image_tower(p.name))
            raise InputError(
                f"data.cache: keeps the outputs of a frozen image tower, but {trained} is trained; freeze visual.* or "
                "remove it"
            )
        settings = f"image tower {self.model_config.to_dict()} {config.train.precision} {config.data.fusion}"
        parameters = [p for p in self.weights if is_image_tower(p.name)]
        return FeatureCache(Path(config.data.cache or ""), weights_key(parameters, settings))

    def _open_data(self, training: bool) -> TrainingData:
        transform: Callable[..., np.ndarray] = make_transform(self.model_config.image_hw, self.model_config.preprocess)
        if training:
            transform = training_transform(self.config.random_crop, self.model_config, self.config.data.augment)
        return open_data(
            self.config.data,
            self.tokenizer,
            transform,
            batch_size=self.config.train.batch_size,
            context_length=self.model_config.training_length,
            seed=self.config.train.seed,
            training=training,
            rank=self.ranks.rank,
            world_size=self.ranks.size,
        )

    def run(self, batches: Sequence[Batch], rate: float) -> tuple[Tensor, ...]:
        result = self.step.run([(batch.images, batch.text) for batch in batches], rate)
        if self.lora:
            self.lora.draws.end()
        return result

    def report(self, result: tuple[Tensor, ...]) -> dict[str, float]:
        return self.step.report(result)

    def validate(self) -> dict[str, float]:
        return evaluate(self.step, held_out(self.val), self.config.loss)

    def write_page(self, target: Path, step: int, losses: dict[str, float]) -> None:
        """Images with their captions, where the decoder is trained."""
        if not self.config.loss.caption_weight:
            return
        with closing(held_out(self.val).epoch(0)) as batches:
            batch = next(batches)
        data = self.config.data
        options = CaptionOptions(
            num_frames=data.num_frames,
            fusion=data.fusion if data.frame_type == "multi_frames" else "mean",
            generation={**GREEDY, "seq_len": min(30, self.model.context_length)},
        )
        shown = [_Shown(list(images) if images.ndim == 4 else [images]) for images in batch.images]
        found = BatchCaptioner(self.model, self.tokenizer, options)(shown[: self.config.output.val_images])
        captions = [caption.text for _, caption in found]
        write_page(target, step, losses, batch, captions, self.model_config.preprocess)

    def export(self, folder: Path, name: str, weights: dict[str, Entry]) -> Path:
        weights = {**weights, **self.originals}
        if self.lora:
            weights = self.lora.export(folder / f"{name}_lora", self.model_config, weights)
        return export(folder, name, self.model_config, weights)
