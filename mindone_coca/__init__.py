"""CoCa (Contrastive Captioner, arXiv 2205.01917) for MindSpore, with open_clip's numbers.

The names below are imported when first used, so that `import mindone_coca` costs nothing.
"""

import importlib
import os

__version__ = "0.1.0"

# MindSpore reads this when it is imported: of its log only errors, unless the user says otherwise
os.environ.setdefault("GLOG_v", "3")

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


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
