"""A small open_clip model, its state dict in a file, and the converter to run on it."""

from pathlib import Path

import pytest

from mindone_coca.cli.convert import main
from tests.models import CONFIGS
from tests.reference import ReferenceCoCa, random_reference, torch


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
    return lambda *argv: main([str(argument) for argument in argv])
