"""What a run says while it goes: a progress bar or plain lines, metrics.jsonl, TensorBoard event files."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX import SummaryWriter
from tqdm import tqdm

from mindone_coca.files import atomic_path

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
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Record values of kind `train` or `val`."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        for name, value in values.items():
            self.writer.add_scalar(f"{kind}/{name}", value, step)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class Progress:
    """A bar on a terminal, a line for each record elsewhere, both on standard error."""

    def __init__(self, step: int, total_steps: int) -> None:
        self.started, self.first_step, self.total_steps = time.monotonic(), step, total_steps
        self.bar = None
        if sys.stderr.isatty():
            self.bar = tqdm(total=total_steps, initial=step, unit="step", dynamic_ncols=True)

    def update(self) -> None:
        if self.bar is not None:
            self.bar.update()

    def show(self, step: int, values: Mapping[str, float]) -> None:
        shown = "  ".join(f"{name} {values[name]:{form}}" for name, form in SHOWN.items() if name in values)
        if self.bar is not None:
            self.bar.set_postfix_str(shown)
            return
        seconds = (time.monotonic() - self.started) / max(1, step - self.first_step) * (self.total_steps - step)
        self.say(f"step {step}/{self.total_steps}  {shown}  left {tqdm.format_interval(seconds)}")

    def say(self, line: str) -> None:
        if self.bar is None:
            print(line, file=sys.stderr, flush=True)
        else:
            self.bar.write(line, file=sys.stderr)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
