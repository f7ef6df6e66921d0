"""The training run, read from top to bottom: open, resume, loop, validate, save, export."""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path

import mindspore as ms
import numpy as np
import yaml
from mindspore import Tensor

from mindone_coca import device
from mindone_coca.config import ModelConfig, load_model_config
from mindone_coca.data.loader import Batch, TrainingData, open_data
from mindone_coca.data.tokenizer import Tokenizer
from mindone_coca.data.transforms import create_train_transforms, create_transforms
from mindone_coca.errors import InputError
from mindone_coca.factory import create_model
from mindone_coca.files import atomic_path
from mindone_coca.training.checkpoints import Checkpoints, Position, entries_of, export
from mindone_coca.training.curves import draw_curves
from mindone_coca.training.optim import AdamW, freeze, freeze_unreached, learning_rate
from mindone_coca.training.parallel import start_ranks
from mindone_coca.training.progress import Metrics, Progress
from mindone_coca.training.settings import TrainConfig
from mindone_coca.training.step import TrainStep
from mindone_coca.training.validation import Evaluate, caption_images, evaluate, write_page

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


class Trainer:
    """One run of a training config; `run()` does it all, from the newest checkpoint on.

    Raises InputError: config, data or weights that do not go together.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config, self.folder = config, Path(config.output.dir)
        settings = config.device
        device.configure(settings.target, settings.id, settings.mode, settings.jit_level, settings.max_memory)
        self.ranks = start_ranks()
        ms.set_seed(config.train.seed)  # draws fresh weights; the same on every device
        np.random.seed(config.train.seed)
        self.model_config = load_model_config(config.model.config)
        self.model_config.cast_dtype = None  # parameters stay in float32
        self.model = create_model(self.model_config, config.model.checkpoint)
        self.model.set_compute_dtype(DTYPES[config.train.precision])
        if config.train.recompute:
            self.model.set_grad_checkpointing()
        self.tokenizer = Tokenizer()
        if self.model_config.text_cfg.vocab_size != self.tokenizer.vocab_size:
            raise InputError(
                f"{config.model.config}: text_cfg.vocab_size must be {self.tokenizer.vocab_size}, the tokenizer's, "
                f"not {self.model_config.text_cfg.vocab_size}"
            )
        self.data = self._open_data(training=True)
        self.val = self._open_data(training=False) if config.data.val is not None else None
        self.steps_per_epoch = len(self.data) // config.train.accumulate_steps
        if not self.steps_per_epoch:
            raise InputError(
                f"train.accumulate_steps: {config.train.accumulate_steps} micro-batches are more than the "
                f"{len(self.data)} of an epoch; lower it or train.batch_size"
            )
        self.total_steps = self._total_steps()
        freeze(self.model, config.train.freeze)
        freeze_unreached(self.model, config.loss.caption_weight, config.loss.contrastive_weight)
        self.optimiser = AdamW(
            self.model, config.optim, self.ranks, config.train.grad_clip_norm, config.train.ema_decay,
            loss_scaling=config.train.precision == "fp16",
        )  # fmt: skip
        self.weights = list(self.model.get_parameters())
        self.step = TrainStep(self.model, config.loss, self.optimiser, self.ranks, config.train.accumulate_steps)
        self.evaluation = Evaluate(self.step.loss)
        self.checkpoints = Checkpoints(
            self.folder / "checkpoints", [*self.weights, *self.optimiser.state()], config.output.keep_last
        )
        self.position = Position(seed=config.train.seed)

    def _open_data(self, training: bool) -> TrainingData:
        preprocess, size = self.model_config.preprocess, self.model_config.vision_cfg.image_hw
        if training:
            transform = create_train_transforms(size, preprocess.mean, preprocess.std)
        else:
            transform = create_transforms(
                size, preprocess.mean, preprocess.std, preprocess.interpolation, preprocess.resize_mode,
                preprocess.fill_color,
            )  # fmt: skip
        length = min(self.model_config.text_cfg.context_length, self.model_config.multimodal_cfg.context_length + 1)
        return open_data(
            self.config.data, self.tokenizer, transform, batch_size=self.config.train.batch_size,
            context_length=length, seed=self.config.train.seed, training=training, rank=self.ranks.rank,
            world_size=self.ranks.size,
        )  # fmt: skip

    def _total_steps(self) -> int:
        epochs, limit = self.config.train.epochs, self.config.train.max_steps
        if epochs is None:
            return limit or self.steps_per_epoch
        return min(epochs * self.steps_per_epoch, limit or epochs * self.steps_per_epoch)

    def run(self) -> Position:
        """Train to the end; returns where the run stands then."""
        output = self.config.output
        self._resume()
        metrics = Metrics(self.folder, self.position.step) if self.ranks.is_main else None
        progress = Progress(self.position.step, self.total_steps) if self.ranks.is_main else None
        if self.ranks.is_main:
            with atomic_path(self.folder / "config.yaml") as partial:
                partial.write_text(yaml.safe_dump(self.config.to_dict(), sort_keys=False), encoding="utf-8")
        val_every = output.val_every or self.steps_per_epoch
        timed_from, timed_step = time.monotonic(), self.position.step
        while self.position.step < self.total_steps:
            with closing(self._batches()) as batches:
                for micro_batches in batches:
                    step = self.position.step
                    rate = learning_rate(self.config.optim, step, self.total_steps)
                    with self._profiled(step):
                        result = self.step.run([(batch.images, batch.text) for batch in micro_batches], rate)
                    self._advance()
                    step += 1
                    last = step == self.total_steps
                    if progress:
                        progress.update()
                    if step % output.log_every == 0 or last:
                        report = self.step.report(result)
                        if report["updated"] and not np.isfinite(report["loss"]):
                            raise InputError(
                                f"the loss is {report['loss']} at step {step}: lower optim.lr, set train.grad_clip_norm "
                                "or look for bad data"
                            )
                        if metrics:
                            seconds, timed_from = time.monotonic() - timed_from, time.monotonic()
                            report |= {"lr": rate, "samples_per_s": (step - timed_step) * self.batch_samples / seconds}
                            metrics.write(step, "train", report)
                            progress.show(step, report)
                        timed_step = step
                    if self.val is not None and (step % val_every == 0 or last):
                        self._validate(metrics, progress)
                        timed_from, timed_step = time.monotonic(), step
                    if step % output.save_every == 0 or last:
                        self._save()
                        timed_from, timed_step = time.monotonic(), step
                    if last:
                        break
        if self.ranks.is_main:
            path = export(self.folder, "final", self.model_config, self._exported())
            metrics.close()
            progress.close()
            if (self.folder / "metrics.jsonl").exists():
                draw_curves(self.folder)
            bad = len(self.data.bad_samples)
            progress.say(f"done: {path}" + (f"; {bad} samples could not be read" if bad else ""))
        return self.position

    @property
    def batch_samples(self) -> int:
        """Pairs in one update, over all devices."""
        return self.config.train.batch_size * self.config.train.accumulate_steps * self.ranks.size

    def _batches(self) -> Iterator[list[Batch]]:
        """The micro-batches of each update left in this epoch."""
        parts = self.config.train.accumulate_steps
        start = self.position.samples // (self.config.train.batch_size * self.ranks.size)
        with closing(self.data.epoch(self.position.epoch, start)) as batches:
            while len(micro_batches := list(islice(batches, parts))) == parts:
                yield micro_batches
        # an epoch that was resumed with another batch size may end early
        self.position.epoch, self.position.samples = self.position.epoch + 1, 0

    def _advance(self) -> None:
        self.position.step += 1
        self.position.samples += self.batch_samples

    def _resume(self) -> None:
        paths = self.checkpoints.paths()
        if self.ranks.is_main:
            self.checkpoints.remove_partial()
        if self.config.output.resume == "never" and paths:
            raise InputError(
                f"{self.checkpoints.folder}: holds the checkpoints of another run; choose another output.dir, or "
                "continue it with output.resume=auto"
            )
        if paths:
            self.position = self.checkpoints.load(paths[-1])
            if self.position.seed != self.config.train.seed:
                raise InputError(
                    f"{paths[-1]}: was trained with train.seed {self.position.seed}; set it, or choose another output.dir"
                )
        if self.ranks.size > 1:
            steps = self.ranks.gather(self.position.step)
            if len(set(steps)) > 1:
                raise InputError(
                    f"{self.checkpoints.folder}: the processes see different checkpoints (steps {steps}); put "
                    "output.dir on a file system that all machines share"
                )

    def _save(self) -> None:
        if self.ranks.is_main:
            self.checkpoints.save(self.position)

    def _exported(self) -> dict:
        """The weights to use: the moving averages where they are kept."""
        return {**entries_of(self.weights), **entries_of(self.optimiser.ema, "ema.")}

    def _validate(self, metrics: Metrics | None, progress: Progress | None) -> None:
        with self._averaged():
            losses = evaluate(self.evaluation, self.val, self.config.loss)
            if not self.ranks.is_main:
                return
            step = self.position.step
            metrics.write(step, "val", losses)
            progress.say(f"validation at step {step}: " + ", ".join(f"{k} {v:.4f}" for k, v in losses.items()))
            if self.config.output.val_images and self.config.loss.caption_weight:
                with closing(self.val.epoch(0)) as batches:
                    batch = next(batches)
                shown = batch.images[: self.config.output.val_images]
                captions = caption_images(self.model, shown, self.tokenizer)
                target = self.folder / "validation" / f"step_{step:08d}.html"
                write_page(target, step, losses, batch, captions, self.model_config.preprocess)
            best = self.position.best
            if best is None or losses["loss"] < best:
                self.position.best = losses["loss"]
                if self.config.output.keep_best:
                    export(self.folder, "best", self.model_config, entries_of(self.weights))

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The moving averages in place of the weights."""
        own = [parameter.asnumpy().copy() for parameter in self.optimiser.parameters if self.optimiser.ema]
        for parameter, average in zip(self.optimiser.parameters, self.optimiser.ema):
            parameter.set_data(Tensor(average.asnumpy().copy()))
        try:
            yield
        finally:
            for parameter, value in zip(self.optimiser.parameters, own):
                parameter.set_data(Tensor(value))

    @contextmanager
    def _profiled(self, step: int) -> Iterator[None]:
        """Record the steps that output.profile names with MindSpore's profiler."""
        bounds = self.config.output.profile
        if bounds and step + 1 == bounds[0]:
            folder = self.folder / "profile" / f"rank_{self.ranks.rank}"
            self.profiler = ms.Profiler(start_profile=False, output_path=str(folder))
            self.profiler.start()
        yield
        if bounds and step + 1 == bounds[1] and hasattr(self, "profiler"):
            self.profiler.stop()
            self.profiler.analyse()
