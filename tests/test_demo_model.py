"""The demo model that ships: right captions for combinations its training never showed, the same in open_clip."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from mindone_coca.captioning.captioner import VideoCaptioner
from mindone_coca.factory import find_config_and_weights
from mindone_coca.video.frames import read_frames
from tests.reference import ReferenceCoCa, torch
from tools.model_conversion import coca_convert

sys.path.insert(0, str(Path(__file__).parents[1] / "examples/demo"))

import demo_figures
from demo_scenes import describe
from make_demo_data import demo_scene

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def captioner() -> VideoCaptioner:
    return VideoCaptioner(*find_config_and_weights(None, demo_figures.WEIGHTS))


def test_words_are_compared_place_by_place():
    assert demo_figures.words_right("a red ring", "a red star") == (1, 2)
    assert demo_figures.words_right("a red ring and a blue star", "a red ring") == (2, 4)
    assert demo_figures.words_right("two green stars", "two green stars") == (2, 2)


@pytest.mark.graphs
def test_the_bundled_video(captioner):
    assert captioner(REPOSITORY / "assets" / "demo.mp4") == describe(demo_scene())


@pytest.mark.graphs
def test_unseen_scenes_and_videos(captioner):
    """As demo_figures.py, whose whole figures tests/test_readme_slow.py holds against models/README.md; eight
    videos leave the shares some room."""
    for pictures in (demo_figures.scenes(24), demo_figures.middle_frames(8)):
        figures = demo_figures.measure(captioner, *pictures)
        print(figures)
        assert figures.exact >= 0.85 and figures.words >= 0.9 and figures.recall_at_1 >= 0.85


@pytest.mark.graphs
def test_open_clip_gives_the_same_captions(captioner, tmp_path):
    target = tmp_path / "open_clip_pytorch_model.bin"
    arguments = ["--source", str(demo_figures.WEIGHTS), "--reverse", "--target", str(target), "--dtype", "float32"]
    assert coca_convert.main(arguments) == 0
    config = json.loads((tmp_path / "open_clip_config.json").read_text())["model_cfg"]
    config = {k: v for k, v in config.items() if k in ("embed_dim", "vision_cfg", "text_cfg", "multimodal_cfg")}
    reference = ReferenceCoCa(**config).eval()
    reference.load_state_dict(torch.load(target, weights_only=True), strict=True)
    images = [*demo_figures.scenes(8)[0], read_frames(REPOSITORY / "assets" / "demo.mp4")[0].image]
    pixels = np.stack([captioner.transform(image) for image in images])
    want = reference.generate(torch.from_numpy(pixels)).numpy()
    np.testing.assert_array_equal(captioner.model.generate(pixels).asnumpy(), want)
