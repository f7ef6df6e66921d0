import pytest

from tests.data.cases import CAPTIONS
from tests.data.training_samples import write_images


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path, len(CAPTIONS))
    return tmp_path
