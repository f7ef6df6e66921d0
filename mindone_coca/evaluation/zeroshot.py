"""Zero-shot classification: the class whose sentences are most similar to the image (paper, section 4.2.2)."""

import logging
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mindone_coca.account import number_of, shorten, some, some_of
from mindone_coca.captioning.batches import encode_texts
from mindone_coca.captioning.captioner import VideoCaptioner
from mindone_coca.captioning.options import CaptionOptions
from mindone_coca.config import find_config
from mindone_coca.data.folders import ClassFolders
from mindone_coca.data.labels import folder_names, is_number, known_label, read_label_names
from mindone_coca.data.settings import SourceConfig
from mindone_coca.errors import InputError
from mindone_coca.evaluation.reports import Example, choose_examples, write_report
from mindone_coca.evaluation.samples import Samples, finite, open_samples
from mindone_coca.places import place
from mindone_coca.progress import progress
from mindone_coca.typed_mapping import from_dict, read_mapping
from mindone_coca.video.pictures import DEFAULT_RULES, PictureRules

log = logging.getLogger(__name__)
_CLASSES_AT_ONCE = 10


@dataclass(frozen=True)
class ClassifiedSamples:
    """Images with their classes: `labels` (N,) are indices into `names`."""

    samples: Samples
    labels: np.ndarray
    names: list[str]


@dataclass(frozen=True)
class Templates:
    """A file of templates: sentences with {} where the class goes."""

    templates: list[str]


def read_templates(path: str | os.PathLike) -> list[str]:
    """The sentences of a YAML file, or of a packaged one by name (`zeroshot_templates`). Raises InputError."""
    file = find_config(path)
    templates = from_dict(Templates, read_mapping(file), str(file)).templates
    if not templates:
        raise InputError(f"{file}: templates: the list is empty; give at least one sentence with {{}} in it")
    for template in templates:
        if "{}" not in template:
            raise InputError(f"{file}: template {template!r}: put {{}} where the class goes")
    return templates


def open_classes(
    config: SourceConfig, class_names: str | None = None, rules: PictureRules = DEFAULT_RULES
) -> ClassifiedSamples:
    """Images in a folder per class, or a list with a column of labels (`config.label_key`).

    Args:
        class_names: JSON file {folder or label: name}. All classes in it are among those to choose from, whether or
            not there are images of them. A class that is not in it has its label for a name, a folder its own name
            with spaces for underscores. "7.0", as pandas may write a 7, is the label "7".
        rules: how pictures are read.
    Raises:
        InputError: a folder without images, an image without a label or with several, two classes of one name, labels
            without a name that are numbers, or no label with a name.
    """
    source, samples = open_samples(config, rules)
    given = read_label_names(class_names) if class_names else {}
    for item in samples.items:
        if len(set(item.captions)) > 1:
            raise InputError(f"{item.name}: it has several labels ({some_of(item.captions, 3)}); leave one")
    labels = [known_label(item.captions[0], given) for item in samples.items]
    found = dict.fromkeys(labels)
    if class_names and not isinstance(source, ClassFolders):
        _check_named(labels, given, class_names)
    if isinstance(source, ClassFolders):
        for folder in source.classes:
            if folder not in found:
                raise InputError(f"{place(config.path) / folder}: no images in this class's folder; remove it")
        given = {**folder_names(source.classes), **given}
    classes = sorted({**found, **given}, key=lambda label: (int(label) if label.isdecimal() else math.inf, label))
    names = [given.get(label, label) for label in classes]
    first: dict[str, str] = {}
    for label, name in zip(classes, names):
        if name in first:
            raise InputError(
                f"classes {first[name]!r} and {label!r} are both called {name!r}; tell them apart by --class_names"
            )
        first[name] = label
    numbers = {label: number for number, label in enumerate(classes)}
    return ClassifiedSamples(samples, np.array([numbers[label] for label in labels]), names)


def _check_named(labels: Sequence[str], names: Mapping[str, str], file: str) -> None:
    """Warn of labels in a list that have no name. Raises InputError when they can be no names themselves."""
    counts = Counter(label for label in labels if label not in names)
    if not counts:
        return
    described = (f"{shorten(label, 50)!r} ({number_of(count, 'sample')})" for label, count in counts.most_common())
    listed = some(described, len(counts))
    message = f"{file}: no name for {len(counts)} of the {len(set(labels))} labels: {listed}"
    if any(map(is_number, counts)) or len(counts) == len(set(labels)):
        known = some(map(repr, names), len(names)) or "none"
        raise InputError(
            f"{message}; it has names for {known}; give the names of these labels there, or correct the labels"
        )
    log.warning("%s; they stand for their own names", message)


def class_weights(captioner: VideoCaptioner, names: Sequence[str], templates: Sequence[str]) -> np.ndarray:
    """A unit vector for each class, (C, D): the mean over the templates' unit text features, made unit length again.

    open_clip's `build_zero_shot_classifier`, transposed.
    """
    weights = []
    starts = range(0, len(names), _CLASSES_AT_ONCE)
    for start in progress(starts, len(starts), "encoding classes", "blocks"):
        block = names[start : start + _CLASSES_AT_ONCE]
        texts = [template.replace("{}", name) for name in block for template in templates]
        features = (
            encode_texts(captioner.model, captioner.tokenizer, texts).reshape(len(block), len(templates), -1).mean(1)
        )
        weights.append(features / np.linalg.norm(features, axis=1, keepdims=True))
    return finite(np.concatenate(weights))


def classify(similarity: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rank of each right class, from 0 on, and the class that is first.

    Another class that is as similar as the right one goes before it, so ties count against the model.

    Args:
        similarity: (N, C). labels: (N,) the right classes.
    """
    rows = np.arange(len(labels))
    right = similarity[rows, labels]
    ranks = (similarity >= right[:, None]).sum(1) - 1
    others = similarity.copy()
    others[rows, labels] = -np.inf
    return ranks, np.where(ranks == 0, labels, others.argmax(1))


def evaluate_zeroshot(
    captioner: VideoCaptioner,
    data: ClassifiedSamples,
    templates: Sequence[str],
    options: CaptionOptions,
    workers: int,
    folder: Path | None = None,
    notes: Mapping[str, str] | None = None,
) -> dict[str, float | int]:
    """Classify all images.

    Args:
        options: which frames stand for a video. workers: reading threads.
        folder: for the report, which also holds `notes`.
    Returns:
        `top1`, `top5` (left out below six classes, where it cannot fail), `mean_per_class` (the mean of the classes'
        top-1 accuracies), and the numbers of samples and classes.
    """
    weights = class_weights(captioner, data.names, templates)
    features = data.samples.features(captioner, options, workers)
    similarity = features @ weights.T  # (N, C)
    ranks, predicted = classify(similarity, data.labels)
    confusion = np.zeros((len(data.names), len(data.names)), np.int64)
    np.add.at(confusion, (data.labels, predicted), 1)
    metrics: dict[str, float | int] = {"top1": float((ranks < 1).mean())}
    if len(data.names) > 5:
        metrics["top5"] = float((ranks < 5).mean())
    there = confusion.sum(1) > 0
    metrics["mean_per_class"] = float((confusion.diagonal()[there] / confusion.sum(1)[there]).mean())
    metrics |= {"samples": len(data.samples), "classes": len(data.names)}
    if folder is not None:
        examples = [
            Example(
                data.samples.items[i].name,
                data.samples.frames(i, options),
                None,
                data.names[data.labels[i]],
                data.names[predicted[i]],
                bool(ranks[i] == 0),
                float(similarity[i, predicted[i]]),
            )
            for i in choose_examples(ranks == 0)
        ]
        write_report(
            folder, "zeroshot", {**metrics, **(notes or {})}, examples, (data.names, confusion), score="similarity"
        )
    return metrics
