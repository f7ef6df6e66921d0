"""CoCa (Contrastive Captioner, arXiv 2205.01917) for MindSpore, with open_clip's numbers.

The names below are imported when first used, so that `import mindone_coca` costs nothing.
"""

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

__version__ = "0.2.0"


def _log_level(devices: Path = Path("/dev")) -> str:
    """Of MindSpore's log only errors; where there are Ascend devices warnings too, as those of versions that do not go
    together."""
    return "2" if any(devices.glob("davinci[0-9]*")) else "3"


os.environ.setdefault("GLOG_v", _log_level())  # MindSpore reads it when it is imported

_HOMES = {
    "CoCa": "mindone_coca.model.open_clip.model",
    "ParallelCoCa": "mindone_coca.model.coca_pytorch.model",
    "CLIPVisionCfg": "mindone_coca.model.open_clip.config",
    "CLIPTextCfg": "mindone_coca.model.open_clip.config",
    "MultimodalCfg": "mindone_coca.model.open_clip.config",
    "create_model": "mindone_coca.factory",
    "create_transforms": "mindone_coca.preprocess.transforms",
    "Tokenizer": "mindone_coca.preprocess.tokenizer",
    "VideoCaptioner": "mindone_coca.captioning.captioner",
}
__all__ = list(_HOMES)

if TYPE_CHECKING:  # the same for type checkers
    from mindone_coca.captioning.captioner import VideoCaptioner as VideoCaptioner
    from mindone_coca.factory import create_model as create_model
    from mindone_coca.model.coca_pytorch.model import ParallelCoCa as ParallelCoCa
    from mindone_coca.model.open_clip.config import CLIPTextCfg as CLIPTextCfg
    from mindone_coca.model.open_clip.config import CLIPVisionCfg as CLIPVisionCfg
    from mindone_coca.model.open_clip.config import MultimodalCfg as MultimodalCfg
    from mindone_coca.model.open_clip.model import CoCa as CoCa
    from mindone_coca.preprocess.tokenizer import Tokenizer as Tokenizer
    from mindone_coca.preprocess.transforms import create_transforms as create_transforms


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
