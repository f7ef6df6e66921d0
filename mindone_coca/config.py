"""What all configs share: choices that several programs offer, sizes of images, preprocessing, packaged files."""

import dataclasses
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mindone_coca.errors import InputError
from mindone_coca.hub.configs import fetch_config
from mindone_coca.hub.names import hub_name
from mindone_coca.places import local_copy
from mindone_coca.storage import is_url
from mindone_coca.typed_mapping import nearest, value_differs

CONFIG_DIR = Path(__file__).parent / "configs"  # in a checkout a link to the folder on top

Dtype = Literal["float32", "float16", "bfloat16"]
Precision = Literal["fp32", "fp16", "bf16"]
DTYPE_OF: dict[str, Dtype] = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
DeviceTarget = Literal["auto", "CPU", "GPU", "Ascend"]
Mode = Literal["graph", "pynative"]
JitLevel = Literal["O0", "O1", "O2"]
LOCAL_CLUSTER = "local"  # in place of an address: a Ray cluster of this process's own
Kernels = Literal["auto", "portable"]  # the fastest forms of operations that a device has, or those that all have
# what stands for a video: its middle frame, several frames, or a frame of each of its stretches
SeveralFrames = Literal["multi_frames", "mutil_frames"]  # the second is the older port's spelling of the first
FrameType = Literal["middle", SeveralFrames, "segments"]
# how several frames become one: the mean of their tokens and features, or the pooler reads the tokens of all
Fusion = Literal["mean", "pool"]


class PatchGrid:
    """Sizes of an image encoder with square or oblong images and patches, in pixels: (height, width)."""

    image_size: int | tuple[int, int]
    patch_size: int | tuple[int, int]

    @property
    def image_hw(self) -> tuple[int, int]:
        return self.image_size if isinstance(self.image_size, tuple) else (self.image_size, self.image_size)

    @property
    def patch_hw(self) -> tuple[int, int]:
        return self.patch_size if isinstance(self.patch_size, tuple) else (self.patch_size, self.patch_size)

    @property
    def grid_hw(self) -> tuple[int, int]:
        (image_h, image_w), (patch_h, patch_w) = self.image_hw, self.patch_hw
        return image_h // patch_h, image_w // patch_w


@dataclass
class PreprocessCfg:
    """Image preprocessing. Source: open_clip.transform.PreprocessCfg (the mean and std are OpenAI CLIP's)."""

    size: int | tuple[int, int] = 224
    mode: Literal["RGB"] = "RGB"
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    interpolation: Literal["bicubic", "bilinear", "random"] = "bicubic"
    resize_mode: Literal["shortest", "longest", "squash"] = "shortest"
    fill_color: int = 0


def with_image_size(data: dict, encoder: Any) -> dict:
    """A model config's plain data with preprocessing to its image encoder's size, unless it names another."""
    preprocess = data.get("preprocess") or {}
    if isinstance(encoder, Mapping) and isinstance(preprocess, Mapping) and "size" not in preprocess:
        return data | {"preprocess": {"size": encoder.get("image_size", PreprocessCfg.size), **preprocess}}
    return data


def plain_part(part: Any, keep: Collection[str] = ()) -> dict:
    """A part of a config as plain data: fields away from their defaults, and those in `keep`; lists for tuples."""
    return {
        f.name: list(value) if isinstance(value := getattr(part, f.name), tuple) else value
        for f in dataclasses.fields(part)
        if f.name in keep or value_differs(part, f)
    }


def find_config(config: str | os.PathLike) -> Path:
    """The path of a config: as given, else a packaged one by name (`coca_vit-l-14`, `configs/coca_vit-l-14.yaml`), else
    that of the repository that is named (`hub.names`), fetched; of one behind a URL a copy here."""
    if isinstance(config, str) and is_url(config):
        return local_copy(config)
    if name := hub_name(config):
        config = fetch_config(name)
    path = Path(config)
    if path.is_file():
        return path
    packaged = CONFIG_DIR / f"{path.stem if path.suffix in ('.yaml', '.yml', '.json') else path.name}.yaml"
    if packaged.is_file() and path.parent.name in ("", "configs"):
        return packaged
    known = sorted(p.stem for p in CONFIG_DIR.glob("*.yaml"))
    raise InputError(f"{config}: no such config file{nearest(path.stem, known) or f'; packaged: {known}'}")
