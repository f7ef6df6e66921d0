"""Videos in training: fusions, and temporal embeddings, which start at nothing and tell the order of frames."""

import numpy as np
import pytest

from mindone_coca.distributed import Ranks
from mindone_coca.errors import InputError
from mindone_coca.factory import create_model
from mindone_coca.training.checkpoints import entries_of, export
from mindone_coca.training.optim import AdamW
from mindone_coca.training.settings import LossConfig, OptimConfig
from mindone_coca.training.step import TrainStep
from tests.frames import fuse_frames
from tests.models import CONFIGS, from_reference, one_layer, relative_difference
from tests.reference import random_reference
from tests.training.reference_training import make_batch

SMALL = one_layer(CONFIGS["base"])


def moving(config: dict, frames: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Two videos with the same frames in opposite order, and their two captions."""
    images, text = make_batch(config, frames)
    return np.stack([images, images[::-1]]), text[:2]


@pytest.mark.graphs
@pytest.mark.parametrize("fusion", ["mean", "pool"])
def test_without_an_embedding_the_order_is_invisible(fusion):
    model = from_reference(random_reference(SMALL), SMALL)
    videos, _ = moving(SMALL)
    forward, backward = (fuse_frames(model, fusion, video)[0] for video in videos)
    assert relative_difference(forward, backward) < 1e-5
    model = from_reference(random_reference(SMALL), SMALL)
    model.add_temporal_embedding(4)
    assert relative_difference(fuse_frames(model, fusion, videos[0])[0], forward) < 1e-6


@pytest.mark.graphs
def test_temporal_embedding_learns_the_order_and_is_exported(tmp_path):
    config = SMALL
    model = from_reference(random_reference(config), config)
    model.add_temporal_embedding(4)
    videos, text = moving(config)
    optimiser = AdamW(model, OptimConfig(), Ranks())
    step = TrainStep(model, LossConfig(), optimiser, Ranks(), fusion="pool")
    losses = [step([(videos, text)], 3e-4)["contrastive_loss"] for _ in range(120)]
    assert losses[0] > 0.69 and losses[-1] < 0.1  # log 2 as long as both videos look alike
    path = export(tmp_path, "video", model.config, entries_of(model.get_parameters()))
    loaded = create_model(path, tmp_path / "video.safetensors")
    for one in (model, loaded):
        assert one.config.temporal_frames == 4
    ours, again = (fuse_frames(one, "pool", videos[0])[1] for one in (model, loaded))
    np.testing.assert_array_equal(ours, again)
    # another number of frames: the embeddings are interpolated
    assert np.isfinite(fuse_frames(loaded, "pool", videos[0][:3])[0]).all()


def test_a_model_without_a_pooler_is_refused():
    model = from_reference(random_reference(CONFIGS["no_pool"]), CONFIGS["no_pool"])
    with pytest.raises(InputError, match="temporal_frames"):
        model.add_temporal_embedding(4)
