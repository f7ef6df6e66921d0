"""Small generated images in every layout that training reads."""

import csv
import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from mindone_coca.data.settings import DataConfig
from mindone_coca.data.sources import open_sources


def jpeg(seed: int, size: tuple[int, int] = (40, 32)) -> bytes:
    """The bytes of a JPEG with a smooth random picture; sizes in bytes differ."""
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=80)
    return file.getvalue()


def write_images(folder: Path, count: int) -> list[bytes]:
    """Write folder/00.jpg, 01.jpg, ...; return their bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    images = [jpeg(number) for number in range(count)]
    for number, image in enumerate(images):
        (folder / f"{number:02}.jpg").write_bytes(image)
    return images


def captions_of(number: int) -> list[str]:
    return [f"picture {number}, said once", f'picture {number}, said "again"']


def write_csv(path: Path, rows: list[tuple[str, str]], columns=("filepath", "title"), separator: str = "\t") -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerow(columns)
        writer.writerows(rows)
    return path


def write_tar(path: Path, samples: list[dict[str, bytes]]) -> Path:
    """One dict of file name -> bytes for each sample."""
    with tarfile.open(path, "w") as archive:
        for sample in samples:
            for name, content in sample.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


def write_layouts(folder: Path, count: int = 7) -> tuple[dict[str, dict], list[bytes]]:
    """The same images in all layouts -> settings of each source by format, and the images' bytes."""
    images = write_images(folder / "images", count)
    names = [f"images/{number:02}.jpg" for number in range(count)]
    first = [captions_of(number)[0] for number in range(count)]
    write_csv(folder / "list.csv", list(zip(names, first, strict=True)), separator=",")
    write_csv(folder / "list.tsv", list(zip(names, first, strict=True)))
    rows = [{"filepath": name, "title": captions_of(number)} for number, name in enumerate(names)]
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    notes = [{"image_id": 100 + n, "caption": text} for n in range(count) for text in captions_of(n)]
    coco = {
        "images": [{"id": 100 + number, "file_name": f"{number:02}.jpg"} for number in range(count)],
        "annotations": notes,
    }
    (folder / "captions.json").write_text(json.dumps(coco), encoding="utf-8")
    samples = [
        {f"some/{n:02}.jpg": images[n], f"some/{n:02}.json": json.dumps({"said": captions_of(n)}).encode()}
        for n in range(count)
    ]
    write_tar(folder / "part-00.tar", samples[:3])
    write_tar(folder / "part-01.tar", samples[3:])
    sources = {
        "csv": {"path": str(folder / "list.csv")},
        "tsv": {"path": str(folder / "list.tsv")},
        "jsonl": {"path": str(folder / "list.jsonl")},
        "coco": {"path": str(folder / "captions.json"), "image_root": str(folder / "images")},
        "webdataset": {"path": str(folder / "part-{00..01}.tar"), "caption_key": "json.said"},
    }
    return sources, images


def open_one(settings: dict | str, **data):
    """The source that settings describe."""
    [source], _ = open_sources(settings, DataConfig(train=settings, **data), "data.train")
    return source
