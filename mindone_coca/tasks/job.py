"""A task as a run of train.py: CoCa with a head, trained on a task's rows."""

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from mindspore import Tensor, nn

from mindone_coca.data.loader import Batch
from mindone_coca.distributed import Ranks, Sum
from mindone_coca.errors import InputError
from mindone_coca.preprocess.transforms import make_transform
from mindone_coca.tasks.captions import CaptionedTaskLoss
from mindone_coca.tasks.data import TaskBatch, TaskData, open_task_data
from mindone_coca.tasks.heads import Classifier, no_text
from mindone_coca.tasks.predict import Predictor, predict_all
from mindone_coca.tasks.settings import TaskCfg, TaskTrainConfig
from mindone_coca.tasks.step import MicroBatch, TaskLoss, TaskStep
from mindone_coca.training.adafactor import open_optimizer
from mindone_coca.training.cache import FeatureCache, weights_key
from mindone_coca.training.checkpoints import export
from mindone_coca.training.frozen import keep_frozen
from mindone_coca.training.job import CocaJob, Job, held_out, open_model, set_precision, training_transform
from mindone_coca.training.lora import open_lora, state_of, weights_of
from mindone_coca.training.optim import freeze, freeze_matching
from mindone_coca.training.settings import TrainConfig
from mindone_coca.training.step import keep_graphs
from mindone_coca.training.validation import write_page
from mindone_coca.weights.formats.entry import Entry


class TaskJob:
    """Train a head, and with `head.frozen: false` CoCa too, on the rows of a task (paper section 3.3, appendices).

    With a frozen model CoCa's outputs are computed in a graph of their own, whether they are kept on disk or not.

    Raises InputError: config, data or weights that do not go together.
    """

    def __init__(self, config: TaskTrainConfig, ranks: Ranks) -> None:
        self.config, self.ranks, head = config, ranks, config.head
        self.model_config, model, self.tokenizer = open_model(config)
        set_precision(model, config)
        self.data = self._open_data(None)
        if len(self.data.labels) < 2:
            raise InputError(f"data.train: all rows have the label {self.data.labels[0]!r}; a task needs two classes")
        self.val = self._open_data(self.data.labels) if config.data.val is not None else None
        self.cfg = TaskCfg(
            config.task,
            self.data.labels,
            head.heads or model.pooler_heads,
            head.queries,
            config.data.num_frames if config.data.frame_type == "multi_frames" else 1,
        )
        self.classifier = Classifier(model, self.cfg)
        self.frozen = head.is_frozen(config.task)
        if self.frozen:
            freeze(model, ["*"])
        freeze(model, config.train.freeze)
        # the caption loss reaches all that the head reads
        unread = model.unused_parameters(1.0, 0.0) if head.caption_weight else self.classifier.unread()
        freeze_matching(model, unread)
        self.lora = open_lora(self.classifier, model, config, ranks, unread)
        self.originals = keep_frozen(model, config)
        rate = 1.0 if head.encoder_lr is None else head.encoder_lr / config.optim.lr
        self.optimiser = open_optimizer(self.classifier, config, ranks, rate)
        self.weights = weights_of(self.classifier)
        self.state = state_of(self.weights, self.optimiser, self.lora, self.originals)
        loss: nn.Cell = TaskLoss(self.classifier.head if self.frozen else self.classifier, head.label_smoothing, ranks)
        if head.caption_weight:
            loss = CaptionedTaskLoss(self.classifier, head.label_smoothing, head.caption_weight, ranks)
        self.step = TaskStep(
            loss,
            self.optimiser,
            ranks,
            config.train.accumulate_steps,
            self.lora.draws.take if self.lora else lambda part: None,
        )
        settings = (head.label_smoothing, head.caption_weight, self.frozen)
        keep_graphs(self.step.cells, model, self.optimiser, ranks, self.cfg, *settings)
        self.predictor = Predictor(self.classifier, head.views, self._open_cache(head.cache) if head.cache else None)
        self.sum = Sum(ranks)

    def _open_data(self, labels: Sequence[str] | None) -> TaskData:
        """The training data, or with their labels the validation data."""
        transform: Callable[..., np.ndarray] = make_transform(self.model_config.image_hw, self.model_config.preprocess)
        if labels is None:
            transform = training_transform(self.config.random_crop, self.model_config, self.config.data.augment)
        return open_task_data(
            self.config.data,
            self.config.task,
            self.tokenizer,
            transform,
            labels=labels,
            batch_size=self.config.train.batch_size,
            context_length=self.model_config.context_length,
            seed=self.config.train.seed,
            training=labels is None,
            rank=self.ranks.rank,
            world_size=self.ranks.size,
            max_labels=self.config.head.answers,
            views=1 if labels is None else self.config.head.views,
            captions=labels is None and self.config.head.caption_weight > 0,
        )

    def _open_cache(self, folder: str) -> FeatureCache:
        settings = f"{self.model_config.to_dict()} {self.config.train.precision} {self.cfg.spec.reads_text}"
        return FeatureCache(Path(folder), weights_key(self.classifier.model.get_parameters(), settings))

    def _inputs(self, batch: TaskBatch) -> MicroBatch:
        text = no_text(len(batch.labels)) if batch.text is None else batch.text
        return self.predictor.encode(batch.images, text) if self.frozen else batch.images, text, batch.labels

    def run(self, batches: Sequence[TaskBatch], rate: float) -> tuple[Tensor, ...]:
        result = self.step.run([self._inputs(batch) for batch in batches], rate)
        if self.lora:
            self.lora.draws.end()
        return result

    def report(self, result: tuple[Tensor, ...]) -> dict[str, float]:
        return self.step.report(result)

    def validate(self) -> dict[str, float]:
        """Loss, smoothed as in training, and accuracy over all of the validation data. A label that is none of the
        classes counts as wrong, and not in the loss."""
        smoothing = self.config.head.label_smoothing
        totals = np.zeros(4)
        with closing(predict_all(self.predictor, held_out(self.val), self.config.train.batch_size)) as predictions:
            for batch, probabilities in predictions:
                totals += batch_totals(probabilities, batch.labels, smoothing)
        loss, known, right, count = self.sum(Tensor(totals.astype(np.float32))).asnumpy().tolist()
        return {"loss": loss / max(known, 1), "accuracy": right / max(count, 1)}

    def write_page(self, target: Path, step: int, losses: dict[str, float]) -> None:
        """The first validation samples with their most probable classes; a sample's images are shown side by side."""
        shown = self.config.output.val_images
        with closing(predict_all(self.predictor, held_out(self.val), self.config.train.batch_size)) as predictions:
            batch, probabilities = next(predictions)
        answers = [self.cfg.labels[number] for number in probabilities[:shown].argmax(1)]
        references = [" ".join([sentence, names[0]]).strip() for sentence, names in zip(batch.sentences, batch.answers)]
        images = np.concatenate(batch.images[:shown].swapaxes(0, 1), -1)  # (B, 3, S, n S)
        page = Batch(images, no_text(len(images)), batch.names, references)
        write_page(target, step, losses, page, answers, self.model_config.preprocess)

    def export(self, folder: Path, name: str, weights: dict[str, Entry]) -> Path:
        weights = {**weights, **self.originals}
        if self.lora:
            weights = self.lora.export(folder / f"{name}_lora", self.model_config, weights)
        return export(folder, name, self.model_config, weights, dataclasses.asdict(self.cfg))


def open_job(config: TrainConfig, ranks: Ranks) -> Job:
    """What a config trains: CoCa itself, or a head for a task."""
    return TaskJob(config, ranks) if isinstance(config, TaskTrainConfig) else CocaJob(config, ranks)


def batch_totals(probabilities: np.ndarray, labels: np.ndarray, smoothing: float) -> np.ndarray:
    """Of probabilities (B, C) and labels (B,): sum of losses, labels that are classes, right answers, samples."""
    known = labels >= 0
    logs = np.log(np.maximum(probabilities[known], 1e-30))
    losses = -(1 - smoothing) * logs[np.arange(len(logs)), labels[known]] - smoothing * logs.mean(1)
    right = probabilities.argmax(1) == labels
    return np.array([losses.sum(), known.sum(), right.sum(), len(labels)], float)
