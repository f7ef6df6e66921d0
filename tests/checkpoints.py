"""A small open_clip model, its state dict in a file, and the converter to run on it."""

import importlib.util
from pathlib import Path

import pytest

from tests.models import CONFIGS
from tests.reference import ReferenceCoCa, random_reference, torch

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def model() -> ReferenceCoCa:
    return random_reference(CONFIGS["base"])


@pytest.fixture
def checkpoint(tmp_path, model) -> Path:
    """The model's state dict as torch saves it."""
    path = tmp_path / "open_clip_pytorch_model.bin"
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def convert():
    """The converter's main(argv) -> exit code, in this process."""
    script = REPOSITORY / "tools" / "model_conversion" / "coca_convert.py"
    spec = importlib.util.spec_from_file_location("coca_convert", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda *argv: module.main([str(argument) for argument in argv])
