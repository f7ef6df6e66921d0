"""Image-text retrieval as the paper's table 3 counts it: recall at 1, 5 and 10, both ways."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mindone_coca.captioning.captioner import VideoCaptioner
from mindone_coca.captioning.options import CaptionOptions
from mindone_coca.evaluation.reports import Example, choose_examples, write_report
from mindone_coca.evaluation.samples import Samples, text_features

BLOCK_BYTES = 32 * 2**20  # of similarities held at once
RECALLS = (1, 5, 10)
TIE = 3e-7  # unit vectors' products that are equal differ by less, depending on their place in a block


@dataclass(frozen=True)
class Ranking:
    """For each query, (Q,): the rank of its best right item, from 0 on, the item that is first, and its similarity."""

    ranks: np.ndarray
    first: np.ndarray
    similarity: np.ndarray


def rank(queries: np.ndarray, gallery: np.ndarray, begin: np.ndarray, end: np.ndarray) -> Ranking:
    """Rank the gallery for every query, in blocks of bounded memory.

    A wrong item that is as similar as the best right one (to within `TIE`) goes before it, so ties count against the
    model, whatever the order of the gallery.

    Args:
        queries: (Q, D). gallery: (G, D). Both float32 and about of unit length.
        begin, end: (Q,) the right items of query q are begin[q] to end[q] - 1, at least one.
    """
    rows = max(1, BLOCK_BYTES // (gallery.dtype.itemsize * len(gallery)))
    block = np.empty((min(rows, len(queries)), len(gallery)), gallery.dtype)
    ranks, first = np.empty((2, len(queries)), np.int64)
    similarity = np.empty(len(queries), gallery.dtype)
    for start in range(0, len(queries), rows):
        part = queries[start : start + rows]
        scores = np.matmul(part, gallery.T, out=block[: len(part)])
        for query, row in enumerate(scores, start):
            right = row[begin[query] : end[query]]
            best = begin[query] + right.argmax()
            value = row[best]
            right[:] = -np.inf  # its other right items do not compete
            ranks[query] = np.count_nonzero(row >= value - TIE)
            if ranks[query] > 0:
                best = row.argmax()
                value = row[best]
            first[query], similarity[query] = best, value
    return Ranking(ranks, first, similarity)


def retrieval_metrics(
    images: np.ndarray, texts: np.ndarray, owners: np.ndarray
) -> tuple[dict[str, float], Ranking, Ranking]:
    """Recalls and ranks of images (N, D) and texts (M, D) by their scalar products.

    Image to text is right at K when any of the image's texts is among the first K, text to image when its image is:
    the protocol for Flickr30K and COCO. Mean and median rank are counted from 1, the median rounded down: with one text
    for each image all are the numbers of open_clip's `get_clip_metrics`.

    Args:
        owners: (M,) the image of each text, ascending; every image has one or more.
    Returns:
        the metrics, and the rankings for image to text and for text to image.
    """
    begin = np.searchsorted(owners, np.arange(len(images)))
    end = np.append(begin[1:], len(texts))
    rankings = {
        "image_to_text": rank(images, texts, begin, end),
        "text_to_image": rank(texts, images, owners, owners + 1),
    }
    metrics = {}
    for name, ranking in rankings.items():
        for count in RECALLS:
            metrics[f"{name}_R@{count}"] = float((ranking.ranks < count).mean())
        metrics[f"{name}_mean_rank"] = float(ranking.ranks.mean() + 1)
        metrics[f"{name}_median_rank"] = float(np.floor(np.median(ranking.ranks)) + 1)
    return metrics, rankings["image_to_text"], rankings["text_to_image"]


def evaluate_retrieval(
    captioner: VideoCaptioner,
    samples: Samples,
    options: CaptionOptions,
    workers: int,
    folder: Path | None = None,
    notes: Mapping[str, str] | None = None,
) -> dict[str, float | int]:
    """Retrieve among all images and all captions of `samples`.

    Args:
        options: which frames stand for a video. workers: reading threads.
        folder: for the report, which also holds `notes`; its examples are of image to text.
    Returns:
        those of `retrieval_metrics`, and the numbers of images and captions.
    """
    captions = [caption for item in samples.items for caption in item.captions]
    owners = np.repeat(np.arange(len(samples)), [len(item.captions) for item in samples.items])
    repeated = len(set(zip(owners.tolist(), captions))) - len(set(captions))
    if repeated:
        warnings.warn(f"{repeated} captions are other images' too; such ties count against the model", stacklevel=2)
    texts = text_features(captioner, captions)
    images = samples.features(captioner, options, workers)
    found, to_text, _ = retrieval_metrics(images, texts, owners)
    metrics = {**found, "images": len(samples), "captions": len(captions)}
    if folder is not None:
        right = to_text.ranks == 0
        examples = [
            Example(
                samples.items[i].name,
                samples.frames(i, options),
                None,
                " / ".join(samples.items[i].captions),
                captions[to_text.first[i]],
                bool(right[i]),
                float(to_text.similarity[i]),
            )
            for i in choose_examples(right)
        ]
        write_report(folder, "retrieval", {**metrics, **(notes or {})}, examples, score="similarity")
    return metrics
