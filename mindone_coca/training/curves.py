"""A picture of a run's curves."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from mindone_coca.errors import InputError
from mindone_coca.files import atomic_path
from mindone_coca.training.progress import read_metrics

PANELS = ("loss", "accuracy", "caption_loss", "contrastive_loss", "lr", "grad_norm", "samples_per_s")
# They fall steeply at the start, and by little for most of the run: on a scale of ratios both can be read.
LOGARITHMIC = ("loss", "caption_loss", "contrastive_loss", "grad_norm")


def draw_curves(run: Path, target: Path | None = None) -> Path:
    """Draw every curve of a run's metrics.jsonl, training and validation together.

    Args:
        run: the run's folder. target: the PNG, `curves.png` in it by default.
    Raises:
        InputError: there is no run, or nothing was recorded.
    """
    path = run / "metrics.jsonl"
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the output.dir of a training run")
    records = read_metrics(path)
    panels = [name for name in PANELS if any(name in record for record in records)]
    if not panels:
        raise InputError(f"{path}: nothing recorded yet; let the run reach output.log_every steps")
    rows = -(-len(panels) // 3)
    figure = Figure(figsize=(12, 3.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name in zip(figure.subplots(rows, 3, squeeze=False).flat, panels):
        for kind in ("train", "val"):
            points = [(r["step"], r[name]) for r in records if r["kind"] == kind and r.get(name) is not None]
            if points:
                axes.plot(*zip(*points), label=kind, marker="o" if kind == "val" or len(points) < 20 else None)
        if name in LOGARITHMIC and all(line.get_ydata().min() > 0 for line in axes.lines):
            axes.set_yscale("log")
            axes.grid(alpha=0.1, which="minor")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False))  # where the range is short
        axes.set_title(name.replace("_", " ").replace(" per s", " / s"))
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        axes.legend()
    for axes in figure.axes[len(panels) :]:
        axes.remove()
    target = target or run / "curves.png"
    kind = target.suffix.lstrip(".").lower() or "png"
    if kind not in figure.canvas.get_supported_filetypes():
        raise InputError(f"{target}: a picture's name ends in .png, .svg or .pdf")
    with atomic_path(target) as partial:
        figure.savefig(partial, dpi=110, format=kind)
    return target
