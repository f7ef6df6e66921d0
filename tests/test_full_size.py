"""ViT-L/14 as published, with random weights: converted, loaded strictly, and held against open_clip."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data

from mindone_coca import create_model, create_transforms
from tests.reference import open_clip, random_reference, torch

ROOT = Path(__file__).parent.parent
PHOTOS = ("astronaut", "chelsea", "coffee")


@pytest.mark.slow
def test_vit_l_14_converted_gives_open_clips_features_and_captions(tmp_path):
    reference = random_reference(open_clip.get_model_config("coca_ViT-L-14"), seed=1)
    torch.save(reference.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    script = ROOT / "tools/model_conversion/coca_convert.py"
    subprocess.run([sys.executable, script, "--source", "open_clip_pytorch_model.bin"], cwd=tmp_path, check=True)
    model = create_model(ROOT / "configs/coca_vit-l-14.yaml", tmp_path / "models/coca_model.ckpt")
    transform = create_transforms(224)
    images = np.stack([transform(getattr(skimage.data, name)()) for name in PHOTOS])
    with torch.no_grad():
        want = reference.encode_image(torch.from_numpy(images)).numpy()
        captions = reference.generate(torch.from_numpy(images)).numpy()
    ours = model.encode_image(images).asnumpy()
    cosine = (ours * want).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(want, axis=1)
    print("cosine of image features, smallest:", cosine.min())
    assert cosine.min() >= 0.999999
    np.testing.assert_array_equal(model.generate(images).asnumpy(), captions)
    text = open_clip.tokenize(["a photo of a cat", "a cup of coffee on a table"], 76)
    with torch.no_grad():
        want = reference.encode_text(text).numpy()
    assert (model.encode_text(text.numpy()).asnumpy() * want).sum(1).min() >= 0.999999
