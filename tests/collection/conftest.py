import mindspore as ms
import pytest
import yaml

from mindone_coca import create_model
from mindone_coca.weights.load import parameter_entries
from mindone_coca.weights.save import save_weights
from tests.captioners import shared_captioners
from tests.models import make_config

# few layers: quick to compile
CONFIG = make_config(vision={"layers": 1}, text={"layers": 1, "vocab_size": 49408}, multimodal={"layers": 1})


@pytest.fixture(scope="package", autouse=True)
def one_captioner():
    with shared_captioners():
        yield


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """A folder with a small model, its weights drawn at random, and its config."""
    folder = tmp_path_factory.mktemp("model")
    ms.set_seed(5)
    model = create_model(CONFIG)
    model.text_decoder.text_projection.set_data(model.text_decoder.text_projection * 50)  # decided captions
    save_weights(folder / "coca.safetensors", parameter_entries(model), {"note": "random"})
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    return folder


@pytest.fixture(scope="session")
def model_arguments(model_folder):
    """Arguments of inference.py for that model, and for short captions."""
    return [
        "-c",
        str(model_folder / "config.yaml"),
        "--model_path",
        str(model_folder / "coca.safetensors"),
        "--seq_len",
        "8",
        "--min_seq_len",
        "3",
        "--num_workers",
        "1",
    ]
