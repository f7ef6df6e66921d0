"""The record of open_clip's CoCa."""

from typing import TYPE_CHECKING

from mindone_coca.model.family import Family
from mindone_coca.model.open_clip.config import ModelConfig
from mindone_coca.model.open_clip.infer import UNKNOWABLE, model_data
from mindone_coca.model.open_clip.names import MARKER, NAMES
from mindone_coca.model.open_clip.reference import config_files, run_original
from mindone_coca.model.open_clip.shapes import state_shapes

if TYPE_CHECKING:
    from mindone_coca.model.open_clip.model import CoCa


def build(config: ModelConfig) -> "CoCa":
    """The model of a checked config."""
    from mindone_coca.model.open_clip.model import CoCa  # needs MindSpore

    names: tuple[str, ...] = ("embed_dim", "multimodal_cfg", "text_cfg", "vision_cfg", "quick_gelu", "init_logit_scale")
    names += ("init_logit_bias", "nonscalar_logit_scale", "cast_dtype", "pad_id", "temporal_frames")
    model = CoCa(**{name: getattr(config, name) for name in names})
    model.config = config  # with its preprocessing, which the towers do not need
    return model


OPEN_CLIP = Family(
    key="coca",
    original="open_clip",
    config=ModelConfig,
    build=build,
    names=NAMES,
    marker=MARKER,
    shapes=state_shapes,
    infer=model_data,
    unknowable=UNKNOWABLE,
    run_original=run_original,
    torch_file="open_clip_pytorch_model.bin",
    positions="visual.positional_embedding",
    config_files=config_files,
)
