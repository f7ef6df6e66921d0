"""Fresh weights are drawn as open_clip draws or means to draw them."""

import mindspore as ms
import numpy as np
import pytest

from mindone_coca.errors import InputError
from mindone_coca.model.open_clip.family import OPEN_CLIP
from mindone_coca.model.open_clip.model import CoCa
from tests.models import make_config
from tests.reference import ReferenceCoCa, torch

CONFIG = make_config(
    {"embed_dim": 128},
    vision={"width": 96, "head_width": 24, "ls_init_value": 0.1, "attn_pooler_queries": 60},
    text={"width": 128, "vocab_size": 900},
    multimodal={"width": 128},
)


def test_fresh_weights_follow_open_clip():
    ms.set_seed(0)
    torch.manual_seed(0)
    ours = {OPEN_CLIP.to_original(p.name): p.asnumpy() for p in CoCa(**CONFIG).get_parameters()}
    towers = {k: {**v, "output_tokens": True} if k != "multimodal_cfg" else v for k, v in CONFIG.items() if "_cfg" in k}
    reference = ReferenceCoCa(embed_dim=128, **towers)
    text_blocks = dict(reference.text.transformer.resblocks.named_parameters())
    for name, value in reference.named_parameters():
        drawn = ours[name]
        assert np.isfinite(drawn).all()
        if name == "text_decoder.text_projection":  # open_clip leaves it undrawn: as its init_parameters means it
            want = 128**-0.5
        elif name.startswith("text_decoder.") and value.ndim == 2:  # likewise, as in the text tower
            want = text_blocks[name.replace("cross_attn", "resblocks").split("resblocks.")[1]].std().item()
        else:
            want = value.std().item() if value.numel() > 1 else 0
        if want < 1e-6:  # constant
            expected = value.mean().item()
            assert drawn.min() == drawn.max() == pytest.approx(expected, abs=1e-6), name
        else:
            assert drawn.std() == pytest.approx(want, rel=0.35 if drawn.size < 200 else 0.1), name


def test_fixed_positions_are_open_clip_s():
    from open_clip.pos_embed import get_2d_sincos_pos_embed

    model = CoCa(**make_config(vision={"pos_embed_type": "sin_cos_2d"}))
    want = get_2d_sincos_pos_embed(48, 4, cls_token=True)
    assert np.abs(model.visual.positional_embedding.asnumpy() - want).max() < 1e-6
    assert "visual.positional_embedding" not in {p.name for p in model.trainable_params()}
    with pytest.raises(InputError, match="sin_cos_2d"):
        CoCa(**make_config(vision={"pos_embed_type": "sin_cos_2d", "image_size": (32, 40)}))
