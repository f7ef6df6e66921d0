"""The training run, read from top to bottom: open, resume, loop, validate, save, export."""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor
from mindspore.profiler import profile, tensorboard_trace_handler

from mindone_coca import device
from mindone_coca.distributed import Ranks, start_ranks
from mindone_coca.errors import InputError
from mindone_coca.interrupts import Stopped, StopRequest, stop_on_signals
from mindone_coca.training.checkpoints import CHECKPOINTS, Checkpoints, Position, checkpoint_paths, entries_of
from mindone_coca.training.curves import draw_curves
from mindone_coca.training.folder import claim_folder
from mindone_coca.training.job import CocaJob, Job
from mindone_coca.training.optim import learning_rate
from mindone_coca.training.overview import beginning, overview
from mindone_coca.training.progress import LeftOut, Metrics, Progress, say
from mindone_coca.training.record import check_record, with_precision, write_record
from mindone_coca.training.settings import TrainConfig
from mindone_coca.waiting import Wait


class Trainer:
    """One run of a training config; `run()` does it all, from the newest checkpoint on.

    Args:
        open_job: makes what is trained of the config.

    Raises InputError: config, data or weights that do not go together.
    """

    def __init__(self, config: TrainConfig, open_job: Callable[[TrainConfig, Ranks], Job] = CocaJob) -> None:
        self.config, self.folder = config, Path(config.output.dir)
        self._check_folder()  # first: a refusal should not cost the time to load a model
        place = config.device
        chosen = (place.mode, place.jit_level, place.max_memory, place.kernels, place.deterministic)
        device.configure(place.target, place.id, *chosen)
        self.config = with_precision(config, self.folder)
        self.ranks = start_ranks()
        self.lock = claim_folder(self.folder, self.ranks)
        try:
            self._open(open_job)
        except BaseException:
            self._release()
            raise

    def _open(self, open_job: Callable[[TrainConfig, Ranks], Job]) -> None:
        """Load the model and open the data."""
        config = self.config
        ms.set_seed(config.train.seed)  # draws fresh weights; the same on every device
        np.random.seed(config.train.seed)
        self.job = open_job(config, self.ranks)
        self.data, self.optimiser = self.job.data, self.job.optimiser
        self.steps_per_epoch = len(self.data) // config.train.accumulate_steps
        if not self.steps_per_epoch:
            raise InputError(
                f"train.accumulate_steps: {config.train.accumulate_steps} micro-batches are more than the "
                f"{len(self.data)} of an epoch; lower it or train.batch_size"
            )
        self.total_steps = self._total_steps()
        self.checkpoints = Checkpoints(self.folder / CHECKPOINTS, self.job.state, config.output.keep_last)
        self.position = Position(seed=config.train.seed)
        self.profiler: profile | None = None

    def _total_steps(self) -> int:
        epochs, limit = self.config.train.epochs, self.config.train.max_steps
        if epochs is None:
            return limit or self.steps_per_epoch
        return min(epochs * self.steps_per_epoch, limit or epochs * self.steps_per_epoch)

    def run(self) -> Position:
        """Train to the end; returns where the run stands then. A run that is there already writes nothing.

        Raises Stopped after a step if a signal asked for that, with a checkpoint to go on from.
        """
        try:
            with stop_on_signals() as request:
                return self._run(request)
        finally:
            self._release()

    def _release(self) -> None:
        if self.lock is not None:
            self.lock.release()

    def _run(self, request: StopRequest) -> Position:
        output = self.config.output
        checkpoint = self._resume()
        if self._is_finished():
            if self.ranks.is_main:
                say(
                    f"{self.folder}: already at step {self.position.step} of {self.total_steps}: nothing to do; raise "
                    "train.max_steps or train.epochs to go on"
                )
            return self.position
        self._start_output(checkpoint)
        val_every = output.val_every or self.steps_per_epoch
        with closing(self._updates()) as updates:
            for micro_batches in updates:
                rate = learning_rate(self.config.optim, self.position.step, self.total_steps)
                with self._profiled(self.position.step + 1):
                    result = self.job.run(micro_batches, rate)
                self.position.step += 1
                self.position.samples += self.batch_samples
                step, last = self.position.step, self.position.step == self.total_steps
                if self.ranks.is_main:
                    self.progress.update()
                if step % output.log_every == 0 or last:
                    self._log(rate, self.job.report(result))
                if self.job.val is not None and (step % val_every == 0 or last):
                    with self._untimed(), self._averaged(), Wait(f"validating at step {step}"):
                        self._validate()
                signal = None if last else self._stop_signal(request)
                if self.ranks.is_main and (step % output.save_every == 0 or last or signal):
                    with self._untimed():
                        self.checkpoints.save(self.position)
                if signal:
                    self._stop(signal)
        self._finish()
        return self.position

    def _start_output(self, checkpoint: Path | None) -> None:
        """Open what the main process writes to, say what begins, and start the clock."""
        if self.ranks.is_main:
            self.metrics = Metrics(self.folder, self.position.step)
            write_record(self.folder, self.config)
            for line in overview(self.config, self.job, self.ranks):
                say(line)
            say(beginning(self.folder, checkpoint, self.position.step, self.total_steps))
            self.progress = Progress(self.position.step, self.total_steps)
            self.left_out = LeftOut(self.position.step, float(self.optimiser.loss_scale.asnumpy()))
        self.timed_from, self.timed_step = time.monotonic(), self.position.step

    @contextmanager
    def _untimed(self) -> Iterator[None]:
        """Leave the time spent here out of the samples per second."""
        start = time.monotonic()
        yield
        self.timed_from += time.monotonic() - start

    def _log(self, rate: float, report: dict[str, float]) -> None:
        """Write and show a step's values. Raises InputError when the loss is not finite."""
        step = self.position.step
        if report["updated"] and not np.isfinite(report["loss"]):
            raise InputError(
                f"the loss is {report['loss']} at step {step}: lower optim.lr, set train.grad_clip_norm or look for "
                "bad data"
            )
        if self.ranks.is_main:
            speed = (step - self.timed_step) * self.batch_samples / (time.monotonic() - self.timed_from)
            report |= {"lr": rate, "samples_per_s": speed, "epoch": self.position.epoch}
            self.metrics.write(step, "train", report)
            self.progress.show(step, report)
            if self.optimiser.loss_scaling:
                line = self.left_out.line(step, float(self.optimiser.loss_scale.asnumpy()), bool(report["updated"]))
                if line:
                    self.progress.say(line)
        self.timed_from, self.timed_step = time.monotonic(), step

    def _stop_signal(self, request: StopRequest) -> int | None:
        """The signal to stop by, if there is one: on all ranks after the same step, whichever of them got it."""
        return self.ranks.highest(request.requested or 0) or None

    def _stop(self, signal: int) -> None:
        """End after a step whose checkpoint is written. Raises Stopped."""
        if self.ranks.is_main:
            self.metrics.close()
            self.progress.close()
        self.ranks.gather(0)  # msrun kills all when one ends: that must not be before the checkpoint is written
        raise Stopped(f"stopped at step {self.position.step} of {self.total_steps}; the same command goes on", signal)

    def _finish(self) -> None:
        """Export the weights, draw the curves, say what happened."""
        if not self.ranks.is_main:
            return
        path = self.job.export(self.folder, "final", self._exported())
        self.metrics.close()
        self.progress.close()
        draw_curves(self.folder)
        bad = len(self.data.bad_samples)
        self.progress.say(f"done: {path}" + (f"; {bad} samples could not be read" if bad else ""))

    @property
    def batch_samples(self) -> int:
        """Pairs in one update, over all devices."""
        return self.config.train.batch_size * self.config.train.accumulate_steps * self.ranks.size

    def _updates(self) -> Generator[list[Any], None, None]:
        """The micro-batches of each update, from where the run stands to its end."""
        parts = self.config.train.accumulate_steps
        while self.position.step < self.total_steps:
            # an epoch goes on at the same sample also when the number of devices or micro-batches is another now
            start = self.position.samples // (self.config.train.batch_size * self.ranks.size)
            with closing(self.data.epoch(self.position.epoch, start)) as batches:
                while len(micro_batches := list(islice(batches, parts))) == parts:
                    yield micro_batches
                    if self.position.step == self.total_steps:
                        return
            self.position.epoch, self.position.samples = self.position.epoch + 1, 0

    def _check_folder(self) -> None:
        """Refuse the folder of a run that this one does not continue."""
        folder = self.folder / CHECKPOINTS
        if not checkpoint_paths(folder):
            return
        if self.config.output.resume == "never":
            raise InputError(
                f"{folder}: holds the checkpoints of another run; choose another output.dir, or continue it with "
                "output.resume=auto"
            )
        check_record(self.folder, self.config)

    def _is_finished(self) -> bool:
        """Whether the last step is done and its weights are exported."""
        if self.position.step < self.total_steps:
            return False
        newest = self.checkpoints.paths()[-1].stat().st_mtime_ns
        # a run that was killed before its export still has that to do
        exported = [self.folder / "final.safetensors", self.folder / "final.yaml"]
        return all(path.exists() and path.stat().st_mtime_ns >= newest for path in exported)

    def _resume(self) -> Path | None:
        """Take the state from the newest checkpoint; returns which, None where there is none."""
        paths = self.checkpoints.paths()
        if self.ranks.is_main:
            self.checkpoints.remove_partial()
        if paths:
            self.position = self.checkpoints.load(paths[-1])
            if self.position.seed != self.config.train.seed:
                raise InputError(
                    f"{paths[-1]}: was trained with train.seed {self.position.seed}; set it or change output.dir"
                )
        steps = self.ranks.gather(self.position.step)
        if len(set(steps)) > 1:
            raise InputError(
                f"{self.checkpoints.folder}: the processes see different checkpoints (steps {steps}); put "
                "output.dir on a file system that all machines share"
            )
        return paths[-1] if paths else None

    def _exported(self) -> dict:
        """The weights to use: the moving averages where they are kept."""
        return {**entries_of(self.job.weights), **entries_of(self.optimiser.ema, "ema.")}

    def _validate(self) -> None:
        """Losses on the validation data, the page of samples, the best weights so far."""
        losses = self.job.validate()
        if not self.ranks.is_main:
            return
        step, output = self.position.step, self.config.output
        self.metrics.write(step, "val", losses)
        self.progress.say(f"validation at step {step}: " + ", ".join(f"{k} {v:.4f}" for k, v in losses.items()))
        if output.val_images:
            self.job.write_page(self.folder / "validation" / f"step_{step:08d}.html", step, losses)
        if self.position.best is None or losses["loss"] < self.position.best:
            self.position.best = losses["loss"]
            if output.keep_best:
                self.job.export(self.folder, "best", entries_of(self.job.weights))

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
        if bounds and step == bounds[0]:
            folder = self.folder / "profile" / f"rank_{self.ranks.rank}"
            self.profiler = profile(on_trace_ready=tensorboard_trace_handler(str(folder)))
        yield
        if bounds and self.profiler and step == min(bounds[1], self.total_steps):
            self.profiler.stop()
            self.profiler = None
