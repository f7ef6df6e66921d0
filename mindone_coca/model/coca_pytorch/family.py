"""The record of coca-pytorch's CoCa."""

from typing import TYPE_CHECKING

from mindone_coca.model.coca_pytorch.config import FAMILY, ParallelConfig, ViTCfg
from mindone_coca.model.coca_pytorch.infer import UNKNOWABLE, model_data
from mindone_coca.model.coca_pytorch.names import NAMES, TIED, TOKENS
from mindone_coca.model.coca_pytorch.reference import run_original
from mindone_coca.model.coca_pytorch.shapes import state_shapes
from mindone_coca.model.family import Family

if TYPE_CHECKING:
    from mindone_coca.model.coca_pytorch.model import ParallelCoCa


def build(config: ParallelConfig) -> "ParallelCoCa":
    """The model of a checked config, its image encoder included."""
    from mindone_coca import device  # these need MindSpore
    from mindone_coca.model.coca_pytorch.model import ParallelCoCa
    from mindone_coca.model.coca_pytorch.vit import build_vit
    from mindone_coca.model.open_clip.vision import VisionTransformer

    dtype = device.compute_dtype(config.cast_dtype)
    cfg = config.encoder
    if isinstance(cfg, ViTCfg):
        encoder = build_vit(cfg, dtype)
    else:
        encoder = VisionTransformer(cfg, config.image_dim, dtype=dtype)
    names: tuple[str, ...] = ("dim", "num_tokens", "unimodal_depth", "multimodal_depth", "image_dim", "dim_latents")
    names += ("num_img_queries", "dim_head", "heads", "ff_mult", "caption_loss_weight", "contrastive_loss_weight")
    names += ("pad_id", "context_length", "cast_dtype")
    return ParallelCoCa(img_encoder=encoder, config=config, **{name: getattr(config, name) for name in names})


COCA_PYTORCH = Family(
    key=FAMILY,
    original="coca-pytorch",
    config=ParallelConfig,
    build=build,
    names=NAMES,
    marker=TOKENS,
    shapes=state_shapes,
    infer=model_data,
    unknowable=UNKNOWABLE,
    run_original=run_original,
    torch_file="coca_pytorch.pt",
    tied={TIED: TOKENS},
)
