"""A finetuned model goes back to PyTorch: converted, loaded strictly by open_clip, the same captions."""

import copy

import numpy as np
import pytest

from mindone_coca import create_model
from tests.reference import ReferenceCoCa, torch
from tests.training.runs import TINY, train_here, write_config
from tools.model_conversion import coca_convert

pytestmark = pytest.mark.graphs


def test_a_finetuned_checkpoint_captions_alike_in_open_clip(tmp_path):
    train_here(write_config(tmp_path, train={"batch_size": 8, "max_steps": 4}, output={"dir": str(tmp_path / "run")}))
    weights = next((tmp_path / "run").glob("final*.safetensors"))
    target = tmp_path / "open_clip_pytorch_model.bin"
    assert coca_convert.main(["--source", str(weights), "--reverse", "--target", str(target), "--verify"]) == 0
    towers = copy.deepcopy({k: v for k, v in TINY.items() if k.endswith("_cfg")})
    for name in ("vision_cfg", "text_cfg"):
        towers[name]["output_tokens"] = True
    reference = ReferenceCoCa(embed_dim=TINY["embed_dim"], **towers).eval()
    reference.load_state_dict(torch.load(target, weights_only=True), strict=True)
    images = np.random.default_rng(0).standard_normal((3, 3, 16, 16)).astype(np.float32)
    options = {"seq_len": 9, "min_seq_len": 2}
    want = reference.generate(torch.from_numpy(images), **options).numpy()
    ours = create_model(tmp_path / "tiny.yaml", weights).generate(images, **options).asnumpy()
    np.testing.assert_array_equal(ours, want)
