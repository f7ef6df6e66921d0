"""What every task leaves behind: a JSON of its metrics, a confusion matrix and a page of examples."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from mindone_coca.errors import InputError
from mindone_coca.files import atomic_path
from mindone_coca.outputs.html import card, escape, page_end, page_start
from mindone_coca.outputs.schema import plain
from mindone_coca.outputs.thumbnails import thumbnail

EXAMPLES = 120  # a page of so many is a few hundred kilobytes
PICTURE_WIDTH = 160  # pixels
LABELLED_CLASSES, COUNTED_CLASSES = 40, 15  # more would not be readable in the confusion matrix
LABEL_LENGTH = 24  # characters


@dataclass(frozen=True)
class Example:
    """One sample with what the model made of it.

    Attributes:
        name: of the file or row.
        images: the picture, both pictures of a pair, or the frames of a video; any size, they are made small.
        text: what was asked or said with them, if anything.
        expected, predicted: answers, classes or captions.
        right: None where there is no right and wrong, as for captions.
        score: of the prediction, which `write_report` is told the name of.
    """

    name: str
    images: Sequence[Image.Image]
    text: str | None
    expected: str
    predicted: str
    right: bool | None
    score: float | None = None


def choose_examples(right: np.ndarray | Sequence[bool], limit: int = EXAMPLES, seed: int = 0) -> list[int]:
    """Which of all samples to show: at most `limit`, drawn at random, half of them wrong ones if there are enough.

    Args:
        right: a truth value for each sample.
    Returns:
        indices, ascending.
    """
    right = np.asarray(right, bool)
    order = np.random.default_rng(seed).permutation(len(right))
    wrong, others = order[~right[order]], order[right[order]]
    few_wrong = min(len(wrong), max(limit // 2, limit - len(others)))
    return sorted([*wrong[:few_wrong].tolist(), *others[: limit - few_wrong].tolist()])


def write_report(
    folder: Path,
    task: str,
    metrics: Mapping[str, float | int | str],
    examples: Sequence[Example],
    confusion: tuple[Sequence[str], np.ndarray] | None = None,
    *,
    score: str = "score",
    unreadable: int = 0,
) -> None:
    """Write `metrics.json`, `examples.html` and, with a confusion matrix, `confusion.png` in `folder`.

    `metrics.json` holds `task`, `metrics`, how many `examples` the page shows, the rows that are `unreadable` if there
    are such, and with a confusion matrix the number of `samples` and, `per_class`, each class's samples, right ones and
    accuracy (null for a class without samples).

    Args:
        examples: all of them are shown, wrong ones first; `choose_examples` picks few among many.
        confusion: class names and counts (C, C), rows what was expected, columns what was predicted.
        score: what the examples' scores are, such as "CIDEr".
    Raises:
        InputError: a metric that is not finite, by name.
    """
    content: dict[str, Any] = {"task": task, "metrics": {name: _number(name, value) for name, value in metrics.items()}}
    if confusion is not None:
        names, counts = list(confusion[0]), np.asarray(confusion[1])
        if counts.shape != (len(names), len(names)):
            raise ValueError(f"confusion: {len(names)} names, but counts of shape {counts.shape}")
        content |= {"samples": int(counts.sum()), "per_class": _per_class(names, counts)}
    if unreadable:
        content["unreadable"] = unreadable
    verdicts = [example.right for example in examples]
    content["examples"] = {"shown": len(examples), "right": verdicts.count(True), "wrong": verdicts.count(False)}
    with atomic_path(folder / "metrics.json") as partial:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        partial.write_bytes(text.encode("utf-8", "backslashreplace") + b"\n")  # odd bytes of paths as JSON's escapes
    if confusion is not None:
        _draw_confusion(folder / "confusion.png", names, counts)
    write_page(folder / "examples.html", task.replace("_", " "), examples, content["metrics"], score)


def _number(name: str, value: float | int | str) -> float | int | str:
    """A metric as JSON has it: NumPy's numbers become Python's."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"metric {name} is {value}: the model's output is not finite; are the weights sound?")
    return value


def _per_class(names: Sequence[str], counts: np.ndarray) -> list[dict[str, Any]]:
    rows = zip(names, counts.sum(1).tolist(), counts.diagonal().tolist())
    return [
        {"name": name, "samples": samples, "right": right, "accuracy": right / samples if samples else None}
        for name, samples, right in rows
    ]


def _draw_confusion(path: Path, names: Sequence[str], counts: np.ndarray) -> None:
    """Each row's shares as shades. Names stand beside few classes only, counts in the cells of fewer still."""
    classes = len(names)
    labelled = classes <= LABELLED_CLASSES
    size = max(4.5, 0.32 * classes + 3) if labelled else 10  # inches; 1000 classes are a pixel each
    figure = Figure(figsize=(size + 1, size), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    if labelled:
        shown = [_label(name) for name in names]
        axes.set_xticks(range(classes), shown, rotation=90 if max(map(len, shown)) > 2 else 0)
        axes.set_yticks(range(classes), shown)
    if classes <= COUNTED_CLASSES:
        for row, column in np.argwhere(counts):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", color=colour, fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("expected")
    figure.colorbar(image, ax=axes, label="share of the expected class", shrink=0.8)
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png")


def _label(name: str) -> str:
    name = plain(name)
    short = name if len(name) <= LABEL_LENGTH else name[: LABEL_LENGTH - 1] + "…"
    return short.replace("$", r"\$")  # Matplotlib sets what is between two of them as a formula


def write_page(
    path: Path, title: str, examples: Sequence[Example], metrics: Mapping[str, float | int | str], score: str = "score"
) -> None:
    """Write a page that needs no other file: examples, wrong ones first, right ones last; metrics in its footer."""
    wrong = sum(example.right is False for example in examples)
    counts = f"{len(examples):,} examples" + (f", {wrong:,} wrong" if wrong else "")
    ordered = sorted(examples, key=lambda example: {False: 0, None: 1, True: 2}[example.right])
    shown = ", ".join(f"{name} {show(value)}" for name, value in metrics.items())
    with atomic_path(path) as partial, open(partial, "w", encoding="utf-8") as file:
        file.write(page_start(title, counts))
        file.writelines(_card(example, score) for example in ordered)
        file.write("</main>\n" + page_end(shown))


def show(value: float | int | str) -> str:
    """A metric for people: numbers with a fraction to four places."""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _card(example: Example, score: str) -> str:
    pictures = [
        f'<img alt="" loading="lazy" src="data:image/jpeg;base64,{thumbnail(image, PICTURE_WIDTH)}">'
        for image in example.images
    ]
    verdict = {None: "", True: "right", False: "wrong"}[example.right]
    facts = f"<b>{verdict}</b>" if verdict else ""
    if example.score is not None:
        facts += f"<span>{escape(score)} {example.score:.3f}</span>"
    words = [
        f'<p class="caption">{escape(example.text)}</p>' if example.text is not None else "",
        f'<dl class="pair"><dt>expected</dt><dd>{escape(example.expected)}</dd>',
        f'<dt>predicted</dt><dd class="predicted">{escape(example.predicted)}</dd></dl>',
        f'<p class="path">{escape(example.name)}</p><p class="facts">{facts}</p>',
    ]
    return card(pictures, words, verdict)
