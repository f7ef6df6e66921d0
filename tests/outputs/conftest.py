import base64
import io

import numpy as np
import pytest
from PIL import Image

from mindone_coca.outputs.schema import Provenance


def jpeg(colour: str, size: tuple[int, int] = (320, 180)) -> str:
    encoded = io.BytesIO()
    Image.new("RGB", size, colour).save(encoded, "JPEG")
    return base64.b64encode(encoded.getvalue()).decode()


def segment(start: float, end: float, caption: str, seed: int, colours: tuple[str, ...] = ("teal",), **more) -> dict:
    features = np.random.default_rng(seed).standard_normal((2, 6)).astype("<f4")
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    image, text = (base64.b64encode(feature.tobytes()).decode() for feature in features)
    times = np.linspace(start, end, len(colours) + 2)[1:-1].tolist()
    return {
        "start": start,
        "end": end,
        "times": times,
        "caption": caption,
        "score": -1.2345,
        "thumbnails": [jpeg(colour) for colour in colours],
        "image_feature": image,
        "text_feature": text,
        **more,
    }


@pytest.fixture
def records():
    """Videos in segments, a still image, hostile texts and names, and failures."""
    alternatives = [{"caption": "a puppy", "score": -2.5}]

    def record(path: str, duration: float | None, segments: list, error: str | None = None) -> dict:
        return {"path": path, "size": 9, "error": error, "duration": duration, "segments": segments}

    return [
        record(
            "in/long.mp4",
            3725.5,
            [
                segment(0.0, 61.25, "a dog on a beach", 0, alternatives=alternatives),
                segment(61.25, 3599.9996, 'a <b>"bold"</b> sign & more --> here', 1, ("olive",)),
                segment(3599.9996, 3725.5, "the end", 2, ("navy", "teal", "orange")),
            ],
        ),
        record("in/long.mkv", 2.0, [segment(0.5, 2.5, "ein Café", 3)]),
        record("in/sub/süß 東京.webm", 1.0, [segment(0, 1, "", 4)]),
        record("in/still.png", 0.0, [segment(0, 0, "a still", 5)]),
        record("in/<script>.mp4", None, [], "in/<script>.mp4: is cut short"),
        record("in/\udcff\n.mp4", 1.0, [segment(0, 1, "odd", 6)]),
    ]


@pytest.fixture
def provenance():
    return Provenance("coca.ckpt 0123456789abcdef", {"frame_type": "segments", "num_beams": 6}, "0.1.0")
