"""Damaged pictures in a whole list: those that cannot be decoded are bad samples, named; the others are read."""

import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from tests.data.mutants import Mutant, Pictures, some_places

FORMATS = {"PNG": ".png", "JPEG": ".jpg", "BMP": ".bmp", "TIFF": ".tif", "PPM": ".ppm", "WEBP": ".webp"}


@dataclass
class PictureMutant(Mutant):
    """Pictures each of one value of grey, or None for those that no decoder reads."""

    greys: dict[str, int | None] = field(default_factory=dict)


def encoded(rng, grey: int) -> tuple[bytes, str]:
    """A picture with a little noise, so that half of its bytes are not all of it -> bytes, suffix."""
    kind = rng.choice(sorted(FORMATS))
    noise = np.random.default_rng(grey).integers(-3, 4, (40, 40, 3))
    file = io.BytesIO()
    Image.fromarray((grey + noise).astype(np.uint8)).save(file, kind)
    return file.getvalue(), FORMATS[kind]


def damaged(rng, content: bytes) -> bytes:
    return rng.choice(
        [
            content[: rng.randrange(len(content) // 2)],
            b"",
            b"<html>404</html>",
            rng.randbytes(200),
            b"\0" * len(content),
            content[200:],
        ]
    )


def _list(rng, pictures: Pictures, harm: bool) -> PictureMutant:
    greys: dict[str, int | None] = {}
    places = some_places(rng, 6)
    samples = []
    for number in range(6):
        content, suffix = encoded(rng, 20 + 40 * number)
        name = f"img/p{number}{suffix if rng.random() < 0.7 else rng.choice(['.jpg', '.png'])}"
        if number in places:
            content = damaged(rng, content) if harm else content + rng.randbytes(50)
        (pictures.folder / name).write_bytes(content)
        greys[name] = None if harm and number in places else 20 + 40 * number
        samples.append((name, [f"grey {number}"], content))
    path = pictures.folder / "list.csv"
    path.write_text("filepath,title\n" + "".join(f"{name},{said[0]}\n" for name, said, _ in samples))
    return PictureMutant({"path": str(Path(path))}, samples, greys=greys)


def kind_damaged(rng, pictures):
    return _list(rng, pictures, harm=True)


def kind_bytes_appended(rng, pictures):
    return _list(rng, pictures, harm=False)
