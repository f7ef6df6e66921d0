import mindspore as ms
import pytest
import yaml

from mindone_coca import captioner, create_model
from mindone_coca.weights.load import parameter_entries
from mindone_coca.weights.save import save_weights

# few tokens and few layers: quick to compile
CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {
        "image_size": 32, "patch_size": 8, "layers": 1, "width": 48, "head_width": 16,
        "attentional_pool": True, "attn_pooler_heads": 4, "attn_pooler_queries": 9,
    },
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 1, "embed_cls": True},
    "multimodal_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 1},
}  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def one_captioner():
    """Runs in this process share a model for the same arguments: it compiles its graphs once."""
    built = {}

    def get(config, weights, *arguments, **options):
        key = (str(weights), arguments, tuple(options.items()))
        if key not in built:
            built[key] = build(config, weights, *arguments, **options)
        return built[key]

    build = captioner.VideoCaptioner
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captioner, "VideoCaptioner", get)
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
        "-c", str(model_folder / "config.yaml"), "--model_path", str(model_folder / "coca.safetensors"),
        "--seq_len", "8", "--min_seq_len", "3", "--num_workers", "1",
    ]  # fmt: skip
