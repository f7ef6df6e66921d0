"""What a run says of itself before its first step."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import mindspore as ms
from mindspore import Parameter

from mindone_coca.distributed import Ranks
from mindone_coca.training.job import Job
from mindone_coca.training.settings import TrainConfig


def overview(config: TrainConfig, job: Job, ranks: Ranks) -> Iterator[str]:
    """A line each for the model and where it runs, and for the data."""
    total, trained = _elements(job.weights), _elements(job.optimiser.parameters)
    task = "" if config.task == "coca" else f" with a head for {config.task}"
    weights = config.model.checkpoint or "fresh weights"
    target = ms.get_context("device_target")
    devices = target if ranks.size == 1 else f"{ranks.size} x {target}"
    yield (
        f"model: {config.model.config}{task}, {weights}; {total:,} parameters, {trained:,} of them trained; "
        f"{config.train.precision} on {devices}"
    )
    held_out = "none" if job.val is None else f"{job.val.samples:,}"
    yield f"data: {job.data.samples:,} samples for training, {held_out} for validation"


def beginning(folder: Path, checkpoint: Path | None, step: int, total_steps: int) -> str:
    """Where the run starts."""
    if checkpoint is None:
        return f"{folder}: begins at step 0 of {total_steps}"
    return f"{folder}: goes on from {checkpoint.name} at step {step} of {total_steps}"


def _elements(parameters: Iterable[Parameter]) -> int:
    return sum(parameter.size for parameter in parameters)
