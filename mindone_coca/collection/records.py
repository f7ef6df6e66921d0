"""What the journal keeps of a caption; `outputs.schema` says what is in it."""

import base64
from typing import Any

import numpy as np

from mindone_coca.captioning.batches import Caption, ScoredText
from mindone_coca.captioning.reading import Passage


def segment(passage: Passage, caption: Caption) -> dict[str, Any]:
    """A passage and its caption, as a segment of a record."""
    kept = {
        "start": round(passage.start, 6),
        "end": round(passage.end, 6),
        "times": [round(time, 6) for time in passage.times],
        **_scored(caption),
    }
    if caption.alternatives:
        kept["alternatives"] = [_scored(other) for other in caption.alternatives]
    if passage.thumbnails:
        kept["thumbnails"] = passage.thumbnails
    if caption.image_feature is not None and caption.text_feature is not None:
        kept |= {"image_feature": pack(caption.image_feature), "text_feature": pack(caption.text_feature)}
    return kept


def _scored(caption: ScoredText) -> dict[str, Any]:
    scored = {"caption": caption.text, "score": caption.score}
    return scored if caption.rank_score is None else scored | {"rank_score": caption.rank_score}


def pack(feature: np.ndarray) -> str:
    """Little-endian float32 in base64."""
    return base64.b64encode(feature.astype("<f4").tobytes()).decode()
