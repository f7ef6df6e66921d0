"""ViT-L/14 at full size: round trips to the bit and the converter's memory. About 15 GB of disk."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from mindone_coca.model.families import load_model_config
from mindone_coca.model.open_clip.family import OPEN_CLIP
from tests.reference import ReferenceCoCa, open_clip, torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import convert as benchmark

pytestmark = pytest.mark.slow

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A random checkpoint of coca_ViT-L-14, float32."""
    folder = tmp_path_factory.mktemp("full_size")
    benchmark.random_checkpoint("coca_vit-l-14", folder / "source.bin")
    yield folder / "source.bin"
    shutil.rmtree(folder)


def same_state(our_file: Path, their_file: Path) -> bool:
    ours, theirs = (torch.load(path, weights_only=True, mmap=True) for path in (our_file, their_file))
    return (
        len(ours) == 773
        and ours.keys() == theirs.keys()
        and all(ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name]) for name in theirs)
    )


@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_round_trip_is_bit_exact(dtype, suffix, source, tmp_path):
    state = torch.load(source, weights_only=True, mmap=True)
    start = source
    if dtype != "float32":
        start = tmp_path / "start.bin"
        torch.save({name: tensor.to(DTYPES[dtype]) for name, tensor in state.items()}, start)
    middle, back = tmp_path / f"middle{suffix}", tmp_path / "back.bin"
    for arguments in (["--source", start, "--target", middle], ["--source", middle, "--reverse", "--target", back]):
        _, peak = benchmark.run_converter(*arguments)
        assert peak <= 1.3 * max(Path(path).stat().st_size for path in (arguments[1], arguments[-1]))
    assert same_state(back, start)
    if dtype == "float32" and suffix == ".safetensors":
        config = open_clip.get_model_config("coca_ViT-L-14")
        config.pop("custom_text")
        with torch.device("meta"):
            model = ReferenceCoCa(**config)
        model.load_state_dict(torch.load(back, weights_only=True, mmap=True), strict=True, assign=True)
    for path in (middle, back):
        path.unlink()


def test_safetensors_to_safetensors_needs_little_more_than_the_largest_tensor(source, tmp_path):
    start, end = tmp_path / "start.safetensors", tmp_path / "end.safetensors"
    benchmark.run_converter("--source", source, "--reverse", "--target", start)
    _, peak = benchmark.run_converter("--source", start, "--target", end)
    shapes = OPEN_CLIP.shapes(load_model_config("coca_vit-l-14")).values()
    largest = 4 * max(np.prod(shape, dtype=int) for shape in shapes)
    assert peak <= largest + 300e6
