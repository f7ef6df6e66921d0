"""A picture of a run's curves."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mindone_coca.errors import InputError
from mindone_coca.files import atomic_path
from mindone_coca.training.progress import read_metrics

PANELS = ("loss", "accuracy", "caption_loss", "contrastive_loss", "lr", "grad_norm", "samples_per_s")


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
        axes.set_title(name.replace("_", " ").replace(" per s", " / s"))
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        axes.legend()
    for axes in figure.axes[len(panels) :]:
        axes.remove()
    target = target or run / "curves.png"
    with atomic_path(target) as partial:
        figure.savefig(partial, dpi=110, format=target.suffix.lstrip(".") or "png")
    return target
