"""Captioning: one caption for each image, scored against its references."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mindone_coca.captioning.captioner import VideoCaptioner
from mindone_coca.captioning.options import CaptionOptions
from mindone_coca.evaluation.caption_scores import score_captions
from mindone_coca.evaluation.reports import Example, choose_examples, write_report
from mindone_coca.evaluation.samples import Item, Samples
from mindone_coca.files import atomic_path
from mindone_coca.progress import progress


def image_ids(items: Sequence[Item]) -> Sequence[int | str]:
    """COCO's image ids; without them the files' names, or their whole paths if two names are the same."""
    ids = [item.image_id for item in items if item.image_id is not None]
    if len(ids) == len(items):
        return ids
    names = [Path(item.name).name for item in items]
    return names if len(set(names)) == len(names) else [item.name for item in items]


def evaluate_captioning(
    captioner: VideoCaptioner,
    samples: Samples,
    options: CaptionOptions,
    workers: int,
    folder: Path | None = None,
    notes: Mapping[str, str] | None = None,
) -> dict[str, float | int]:
    """Caption all images.

    Args:
        options: which frames stand for a video, the prompt, and how to generate.
        workers: reading threads.
        folder: for the report, which also holds `notes`, and `captions_results.json`, COCO's format for submissions.
    Returns:
        `Bleu_1` to `Bleu_4`, `ROUGE_L`, `CIDEr`, and the numbers of images and references.
    """
    captioned = captioner.batches(options)(samples.pictures(captioner, options, workers))
    captions = [caption.text for _, caption in progress(captioned, len(samples), "captioning", "images")]
    references = [item.captions for item in samples.items]
    scores, cider = score_captions(captions, references)
    metrics = {**scores, "images": len(samples), "references": sum(map(len, references))}
    if folder is not None:
        results = [
            {"image_id": image_id, "caption": caption} for image_id, caption in zip(image_ids(samples.items), captions)
        ]
        with atomic_path(folder / "captions_results.json") as partial:
            partial.write_bytes(json.dumps(results, ensure_ascii=False, indent=0).encode("utf-8", "backslashreplace"))
        shown = sorted(choose_examples(np.ones(len(samples), bool)), key=lambda i: cider[i])
        examples = [
            Example(
                samples.items[i].name,
                samples.frames(i, options),
                None,
                " / ".join(references[i]),
                captions[i],
                None,
                float(cider[i]),
            )
            for i in shown
        ]
        write_report(folder, "captioning", {**metrics, **(notes or {})}, examples, score="CIDEr")
    return metrics
