"""Exported graphs, run through GraphCell by their manifest alone, caption as the model does."""

import json
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn
from mindspore.train.mind_ir_pb2 import ModelProto

from mindone_coca import device, factory
from mindone_coca.cli import export
from mindone_coca.config import PreprocessCfg
from mindone_coca.conversion.export import export_model
from mindone_coca.errors import InputError
from mindone_coca.factory import create_model
from mindone_coca.model.open_clip.model import CoCa
from mindone_coca.weights.load import parameter_entries
from mindone_coca.weights.save import save_weights
from tests.models import make_config, relative_difference

pytestmark = pytest.mark.graphs

TOOL = Path(__file__).parents[1] / "tools" / "export_mindir.py"
SEQ_LEN = 12
VOCABULARY = {"vocab_size": 49408}  # the manifest's tokens are CLIP's
CONFIGS = {
    "base": make_config(text=VOCABULARY),
    "no_pool": make_config({"embed_dim": 24}, text=VOCABULARY, vision={"attentional_pool": False, "width": 32}),
    "cascade": make_config(
        text={**VOCABULARY, "heads": 2, "layers": 3}, vision={"attentional_pool": "cascade", "width": 32}
    ),
    "no_class_token": make_config(text={**VOCABULARY, "embed_cls": False, "pool_type": "argmax"}),
}


class Exported:
    """The graphs of an exported folder, called with arrays."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = json.loads((folder / "manifest.json").read_text())
        self.cells = {
            name: nn.GraphCell(ms.load(str(folder / graph["file"]))) for name, graph in self.manifest["graphs"].items()
        }

    def shape(self, graph: str, name: str) -> list[int]:
        return next(item["shape"] for item in self.manifest["graphs"][graph]["inputs"] if item["name"] == name)

    def zeros(self, graph: str, name: str) -> np.ndarray:
        kind = next(item["dtype"] for item in self.manifest["graphs"][graph]["inputs"] if item["name"] == name)
        return np.zeros(self.shape(graph, name), kind)

    def __call__(self, graph: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        entry = self.manifest["graphs"][graph]
        tensors = []
        for item in entry["inputs"]:
            array = np.ascontiguousarray(inputs.pop(item["name"]))
            assert list(array.shape) == item["shape"] and array.dtype == item["dtype"], item["name"]
            tensors.append(Tensor(array))
        assert not inputs
        results = self.cells[graph](*tensors)
        results = results if isinstance(results, tuple) else (results,)
        named = {item["name"]: r.asnumpy() for item, r in zip(entry["outputs"], results, strict=True)}
        for item in entry["outputs"]:
            assert list(named[item["name"]].shape) == item["shape"] and named[item["name"]].dtype == item["dtype"]
        return named


def greedy_captions(exported: Exported, images: np.ndarray, seq_len: int, min_seq_len: int) -> np.ndarray:
    """The likeliest token at each step, as `generate(generation_type="top_k")` takes it by default."""
    tokens = exported.manifest["tokens"]
    cross = exported("image_encoder", images=images)["cross"]
    ids = exported.zeros("decode_step", "ids")
    caches = {name: exported.zeros("decode_step", name) for name in ("unimodal", "multimodal")}
    captions = np.full((len(ids), 1), tokens["start"], np.int32)
    while captions.shape[1] < seq_len:
        length = captions.shape[1]
        ids[:, :length] = captions
        position, parents = np.array([length - 1], np.int32), np.arange(len(ids), dtype=np.int32)
        step = exported("decode_step", ids=ids, position=position, parents=parents, cross=cross, **caches)
        caches = {name: step[name] for name in caches}
        logits = step["logits"]
        if length < min_seq_len:
            logits[:, tokens["end"]] = -np.inf
        chosen = np.full(len(ids), tokens["end"]) if length + 1 == seq_len else logits.argmax(1)
        finished = np.isin(captions[:, -1], (tokens["end"], tokens["pad"]))
        if finished.all():
            break
        captions = np.concatenate((captions, np.where(finished, tokens["pad"], chosen)[:, None].astype(np.int32)), 1)
    return captions[:: len(ids) // len(images)]


def random_images(model, count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 3, *model.visual.image_hw)).astype(np.float32)


def draw_weights(model) -> None:
    """Fresh weights give nearly even logits; draw some by which image and tokens matter, the same ones each time."""
    rng = np.random.default_rng(1)
    for name, parameter in model.parameters_and_names():
        std = parameter[0].size ** -0.5 if parameter.ndim == 2 else 0.1
        drawn = rng.normal(1 if name.endswith("gamma") else 0, std, parameter.shape)
        if name != "logit_scale":
            parameter.set_data(Tensor(drawn.astype(np.float32)))


def drawn_model(name: str):
    """A model that ends the caption of the first of two random images early, and that of the second not."""
    model = create_model(CONFIGS[name])
    assert isinstance(model, CoCa)
    draw_weights(model)
    captions: Tensor = model.generate(random_images(model, 2), generation_type="top_k", seq_len=SEQ_LEN)
    first, second = captions.asnumpy()
    token = next(token for token in first[5:] if token not in second)
    projection = model.text_decoder.text_projection.asnumpy().copy()
    projection[:, 49407] = 1.01 * projection[:, token]  # the end token takes its place
    model.text_decoder.text_projection.set_data(Tensor(projection))
    return model


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The base model, and its graphs for 2 images of 2 beams each."""
    model, folder = drawn_model("base"), tmp_path_factory.mktemp("base")
    export_model(model, PreprocessCfg(), folder / "mindir", 2, 2, SEQ_LEN)
    assert [path.name for path in folder.iterdir()] == ["mindir"]
    return model, Exported(folder / "mindir")


def check_against_model(model, exported: Exported) -> None:
    images = random_images(model, 2)
    features = exported("image_encoder", images=images)["image_features"]
    assert relative_difference(features, model.encode_image(images)) < 1e-5
    text = np.random.default_rng(2).integers(1, 49000, (2, model.text.context_length)).astype(np.int32)
    features = exported("text_encoder", text=text)["text_features"]
    assert relative_difference(features, model.encode_text(text)) < 1e-5
    captions = greedy_captions(exported, images, SEQ_LEN, min_seq_len=5)
    expected = model.generate(images, generation_type="top_k", seq_len=SEQ_LEN).asnumpy()
    assert captions.tolist() == expected.tolist()
    ends = (captions == 49407).argmax(1)
    assert 5 <= ends[0] < ends[1] == SEQ_LEN - 1


def test_captions_equal_the_models(base):
    check_against_model(*base)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "base"])
def test_captions_equal_the_models_for_all_kinds(name, tmp_path):
    model = drawn_model(name)
    export_model(model, PreprocessCfg(), tmp_path / "mindir", 2, 1, SEQ_LEN)
    check_against_model(model, Exported(tmp_path / "mindir"))


def test_beams_move_with_their_parents(base):
    """Each image's beams swap their prefixes: the logits are those of the whole rows."""
    model, exported = base
    encoded = exported("image_encoder", images=random_images(model, 2))
    prefixes = np.random.default_rng(3).integers(1, 49000, (4, 4)).astype(np.int32)
    prefixes[1, 1] = 0  # padding inside
    caches = {name: exported.zeros("decode_step", name) for name in ("unimodal", "multimodal")}
    for length in range(1, 5):
        parents = np.array([1, 0, 3, 2] if length == 4 else [0, 1, 2, 3], np.int32)
        ids = np.full((4, SEQ_LEN), 7, np.int32)  # what stands in the free places does not matter
        ids[:, :length] = np.concatenate((prefixes[parents, : length - 1], prefixes[:, length - 1 : length]), 1)
        position = np.array([length - 1], np.int32)
        step = exported("decode_step", ids=ids, position=position, parents=parents, cross=encoded["cross"], **caches)
        caches = {name: step[name] for name in caches}
    image = {"image_latent": encoded["image_features"].repeat(2, 0), "image_embs": encoded["image_embs"].repeat(2, 0)}
    whole = model(None, ids[:, :4], output_labels=False, **image)["logits"]
    assert relative_difference(step["logits"], whole[:, -1]) < 1e-5


def write_weights(folder: Path, config: dict) -> tuple[Path, Path]:
    """A config and weights as files."""
    model = create_model(config)
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_weights(folder / "weights.safetensors", parameter_entries(model))
    return folder / "config.json", folder / "weights.safetensors"


def test_command(tmp_path):
    small = make_config(text={**VOCABULARY, "layers": 1}, vision={"layers": 1}, multimodal={"layers": 1})
    config, weights = write_weights(tmp_path / "models", small)
    command = [sys.executable, TOOL, "-c", config, "--model_path", weights, "--target", tmp_path / "mindir"]
    command += ["--dtype", "float16"]  # and caches for the 16 tokens of the model, though 32 are the default
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    exported = Exported(tmp_path / "mindir")
    with device.half_on_cpu():
        model = create_model(config, weights, "float16")
    images = random_images(model, 1)
    assert exported.zeros("decode_step", "ids").shape == (1, 16)
    captions = greedy_captions(exported, images, seq_len=16, min_seq_len=5)
    assert captions.tolist() == model.generate(images, generation_type="top_k", seq_len=16).asnumpy().tolist()
    assert exported.zeros("decode_step", "unimodal").dtype == np.float16
    assert exported.manifest["tokens"] == {"start": 49406, "end": 49407, "pad": 0}
    assert exported.manifest["preprocess"]["size"] == 32


def test_large_models_keep_their_weights_apart(tmp_path, monkeypatch):
    monkeypatch.setattr("mindspore.train.serialization.TOTAL_SAVE", 1)  # KB, as if these were the gigabyte
    model = create_model(make_config(text={"layers": 1}, vision={"layers": 1}, multimodal={"layers": 1}))
    export_model(model, PreprocessCfg(), tmp_path / "mindir", 1, 1, 8)
    exported = Exported(tmp_path / "mindir")
    assert exported.manifest["graphs"]["text_encoder"]["file"] == "text_encoder_graph.mindir"
    assert list((tmp_path / "mindir" / "text_encoder_variables").iterdir())
    text = np.arange(1, 17, dtype=np.int32)[None]
    assert relative_difference(exported("text_encoder", text=text)["text_features"], model.encode_text(text)) < 1e-5


def test_errors_are_one_line(tmp_path, capsys):
    config, weights = write_weights(tmp_path / "models", make_config())
    other, _ = write_weights(tmp_path / "both_ways", make_config(text={"no_causal_mask": True}))
    (tmp_path / "there").mkdir()
    cases = {
        ("-c", config, "--model_path", tmp_path / "none.ckpt", "--target", "x"): "no such weights file",
        ("-c", tmp_path / "none.yaml", "--model_path", weights, "--target", "x"): "no such config file",
        ("-c", config, "--model_path", weights, "--target", tmp_path / "there"): "exists already",
        ("-c", config, "--model_path", weights, "--target", "x", "--cache_length", "17"): "--cache_length 17",
        ("-c", other, "--model_path", weights, "--target", "x"): "no_causal_mask",
    }
    for arguments, message in cases.items():
        arguments = [str(tmp_path / "x") if argument == "x" else str(argument) for argument in arguments]
        assert export.main(arguments) == 2
        printed = capsys.readouterr()
        assert printed.err.startswith("error: ") and printed.err.count("\n") == 1 and message in printed.err, (
            printed.err
        )
        assert not printed.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["both_ways", "models", "there"]


def test_a_failed_export_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(ms, "export", fail)
    with pytest.raises(OSError, match="disk full"):
        export_model(create_model(make_config()), PreprocessCfg(), tmp_path / "mindir", 1, 1, 8)
    assert list(tmp_path.iterdir()) == []


def test_no_operator_compares_with_a_number(base):
    """EqScalar and its like stand in none of MindSpore Lite's lists."""
    _, exported = base
    for graph in exported.manifest["graphs"].values():
        model = ModelProto()
        model.ParseFromString((exported.folder / graph["file"]).read_bytes())
        operators = {node.op_type for part in (model.graph, *model.functions) for node in part.node}
        assert len(operators) > 10 and not [name for name in operators if "Scalar" in name]


@pytest.mark.parametrize(("product", "kernels"), [("CPU", "auto"), ("A2", "portable"), ("910A", "portable")])
def test_what_an_ascend_exports_has_no_forms_of_its_own(product, kernels, monkeypatch, tmp_path):
    made = []

    def create(*_):
        made.append(device.chosen_kernels())
        raise InputError("that is enough")

    monkeypatch.setattr(device, "product", lambda: product)
    monkeypatch.setattr(factory, "create_model", create)
    demo = Path(__file__).parents[1] / "models" / "coca_tiny.safetensors"
    try:
        assert export.main(["--model_path", str(demo), "--target", str(tmp_path / "mindir")]) == 2
    finally:
        monkeypatch.undo()
        device.configure()
    assert made == [kernels]
