"""What a run says while it goes: a progress bar or plain lines, metrics.jsonl, TensorBoard event files."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from mindone_coca import progress
from mindone_coca.files import atomic_path, reported_writes
from mindone_coca.progress import say

SHOWN = {
    "loss": ".4f",
    "accuracy": ".4f",
    "contrastive_loss": ".4f",
    "caption_loss": ".4f",
    "lr": ".2e",
    "samples_per_s": ".1f",
}


def read_metrics(path: Path) -> list[dict]:
    """The records of a metrics.jsonl; a last line that was cut off is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


class Metrics:
    """Writes each record to `metrics.jsonl` and to TensorBoard event files in `tensorboard/`.

    Args:
        step: where the run starts; records of later steps, left by a killed process, are dropped.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / "metrics.jsonl"
        if self.path.exists():
            kept = [record for record in read_metrics(self.path) if step and record["step"] <= step]
            with atomic_path(self.path) as partial:
                partial.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
        from tensorboardX import SummaryWriter  # heavy, and of several processes one needs it

        with reported_writes(folder):
            self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Record values of kind `train` or `val`.

        What is not finite, as the gradients' norm after an overflow, is null in the file, since JSON has no other word
        for it, and left out of TensorBoard.
        """
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        with reported_writes(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "kind": kind, **finite}) + "\n")
        for name, value in finite.items():
            if value is not None:
                self.writer.add_scalar(f"{kind}/{name}", value, step)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class LeftOut:
    """Watches the float16 loss scale for updates that overflowed and were left out, at the steps that are logged.

    Args:
        step, scale: where the run starts, and the loss scale there.
    """

    def __init__(self, step: int, scale: float) -> None:
        self.step, self.scale = step, scale

    def line(self, step: int, scale: float, updated: bool) -> str | None:
        """What to say at a step, whose own update was made or not, of all steps since the last call."""
        first, before = self.step + 1, self.scale
        self.step, self.scale = step, scale
        halvings = round(math.log2(before / scale)) if 0 < scale < before else 0
        if updated and not halvings:
            return None
        alone = step == first or (not updated and halvings < 2)
        where = f"step {step}" if alone else f"{halvings} of the steps {first} to {step}"
        hint = "" if scale >= 1 else "; the model itself may have diverged: lower optim.lr or set train.precision=fp32"
        return f"{where} left out: float16 overflowed; the loss scale is {scale:g} now{hint}"


class Progress:
    """A bar on a terminal, a line for each record elsewhere, both on standard error."""

    def __init__(self, step: int, total_steps: int) -> None:
        self._shown = progress.Progress(total_steps, "step", done=step)

    def update(self) -> None:
        self._shown.update()

    def show(self, step: int, values: Mapping[str, float]) -> None:
        shown = [(name, f"{values[name]:{form}}") for name, form in SHOWN.items() if name in values]
        brief = " ".join(f"{name.removesuffix('_loss').replace('_per_', '/')} {value}" for name, value in shown)
        self._shown.show("  ".join(f"{name} {value}" for name, value in shown), brief)

    def say(self, line: str) -> None:
        say(line)

    def close(self) -> None:
        self._shown.close()
