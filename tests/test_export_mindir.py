"""Exported graphs, run through GraphCell by examples/lite_caption.py, caption as the model does."""

import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from PIL import Image

from examples import lite_caption
from examples.lite_caption import CellGraph, Graphs
from mindone_coca import device, factory
from mindone_coca.cli import export
from mindone_coca.config import PreprocessCfg
from mindone_coca.conversion.export import CONVERTER_CONFIGS, export_model
from mindone_coca.errors import InputError
from mindone_coca.factory import create_model
from mindone_coca.model.open_clip.model import CoCa
from mindone_coca.weights.load import parameter_entries
from mindone_coca.weights.save import save_weights
from tests.lite_operators import ALLOWED, ON_CPU, operators_in
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


@contextmanager
def portable():
    """Models made and exported within are of the forms that all devices have, as for Ascend."""
    device.configure(kernels="portable")
    try:
        yield
    finally:
        device.configure()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The base model, and its graphs for 2 images of 2 beams each."""
    folder = tmp_path_factory.mktemp("base")
    with portable():
        model = drawn_model("base")
        export_model(model, PreprocessCfg(), folder / "mindir", [2], 2, SEQ_LEN)
    assert [path.name for path in folder.iterdir()] == ["mindir"]
    return model, Graphs(folder / "mindir", CellGraph)


def check_operators(exported: Graphs, allowed: set[str] = ALLOWED) -> None:
    for graph in exported.manifest["graphs"].values():
        found = operators_in(exported.folder / graph["file"])
        assert len(found) > 10 and found <= allowed, (graph["file"], found - allowed)


def check_ids(exported: Graphs, captions: list[np.ndarray], expected: np.ndarray) -> None:
    """Captions, without their ends, are the rows that `generate` gave."""
    tokens = exported.manifest["tokens"]
    for ids, row in zip(captions, expected.tolist(), strict=True):
        end = [tokens["end"]] * (len(ids) < len(row))
        assert [*ids.tolist(), *end, *[tokens["pad"]] * (len(row) - len(ids) - 1)] == row


def check_against_model(model, exported: Graphs) -> None:
    check_operators(exported)
    images = random_images(model, 2)
    features = exported("image_encoder", images=images)["image_features"]
    assert relative_difference(features, model.encode_image(images)) < 1e-5
    text = np.random.default_rng(2).integers(1, 49000, (2, model.text.context_length)).astype(np.int32)
    features = exported("text_encoder", text=text)["text_features"]
    assert relative_difference(features, model.encode_text(text)) < 1e-5
    captions = lite_caption.caption(exported, images, SEQ_LEN)
    if exported.beams == 1:
        check_ids(exported, captions, model.generate(images, generation_type="top_k", seq_len=SEQ_LEN).asnumpy())
        assert 5 <= len(captions[0]) < len(captions[1]) == SEQ_LEN - 1
    else:  # open_clip's default: 6 beams in 3 groups are 2 beams in 1
        check_ids(exported, captions, model.generate(images, seq_len=SEQ_LEN).asnumpy())


def test_captions_equal_the_models(base):
    check_against_model(*base)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_captions_equal_the_models_for_all_kinds(name, tmp_path):
    with portable():
        model = drawn_model(name)
        export_model(model, PreprocessCfg(), tmp_path / "mindir", [2], 1, SEQ_LEN)
    check_against_model(model, Graphs(tmp_path / "mindir", CellGraph))


def test_beams_move_with_their_parents(base):
    """Each image's beams swap their prefixes: the candidates are those of the whole rows."""
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
        inputs = {"position": position, "parents": parents, "forbidden": exported.zeros("decode_step", "forbidden")}
        step = exported("decode_step", ids=ids, **inputs, cross=encoded["cross"], **caches)
        caches = {name: step[name] for name in caches}
    image = {"image_latent": encoded["image_features"].repeat(2, 0), "image_embs": encoded["image_embs"].repeat(2, 0)}
    whole = model(None, ids[:, :4], output_labels=False, **image)["logits"]
    best = np.sort(whole.asnumpy()[:, -1], 1)[:, :-5:-1]
    assert relative_difference(step["scores"], best) < 1e-5
    assert step["tokens"].tolist() == (-whole.asnumpy()[:, -1]).argsort(1)[:, :4].tolist()


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
    command += ["--device_target", "CPU"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    exported = Graphs(tmp_path / "mindir", CellGraph)
    check_operators(exported, ALLOWED | ON_CPU)
    for name, text in CONVERTER_CONFIGS.items():
        assert (exported.folder / name).read_text() == text
    with device.half_on_cpu():
        model = create_model(config, weights, "float16")
    images = random_images(model, 1)
    assert exported.zeros("decode_step", "ids").shape == (1, 16)
    captions = lite_caption.caption(exported, images, 16)
    check_ids(exported, captions, model.generate(images, generation_type="top_k", seq_len=16).asnumpy())
    assert exported.zeros("decode_step", "unimodal").dtype == np.float16
    assert exported.manifest["tokens"] == {"start": 49406, "end": 49407, "pad": 0}
    assert exported.manifest["preprocess"]["size"] == 32


def test_large_models_keep_their_weights_apart(tmp_path, monkeypatch):
    monkeypatch.setattr("mindspore.train.serialization.TOTAL_SAVE", 1)  # KB, as if these were the gigabyte
    model = create_model(make_config(text={"layers": 1}, vision={"layers": 1}, multimodal={"layers": 1}))
    export_model(model, PreprocessCfg(), tmp_path / "mindir", [1], 1, 8)
    exported = Graphs(tmp_path / "mindir", CellGraph)
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


def test_a_batch_of_none_is_refused_in_one_line(tmp_path, capsys):
    for sizes in (["0"], ["4", "0"], ["-1"], ["4", "many"]):
        with pytest.raises(SystemExit) as caught:
            export.main(["--target", str(tmp_path / "mindir"), "--batch_size", *sizes])
        printed = capsys.readouterr().err
        assert caught.value.code == 2 and printed.startswith("error: ") and printed.count("\n") == 1
        assert "--batch_size" in printed and not list(tmp_path.iterdir())


def test_a_failed_export_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(ms, "export", fail)
    with pytest.raises(OSError, match="disk full"):
        export_model(create_model(make_config()), PreprocessCfg(), tmp_path / "mindir", [1], 1, 8)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("product", "target", "kernels"),
    [("CPU", None, "portable"), ("CPU", "CPU", "auto"), ("A2", None, "portable"), ("910A", "CPU", "portable")],
)
def test_the_forms_are_those_of_where_the_graphs_will_run(product, target, kernels, monkeypatch, tmp_path):
    made = []

    def create(*_):
        made.append(device.chosen_kernels())
        raise InputError("that is enough")

    monkeypatch.setattr(device, "product", lambda: product)
    monkeypatch.setattr(factory, "create_model", create)
    demo = Path(__file__).parents[1] / "models" / "coca_tiny.safetensors"
    asked = [] if target is None else ["--device_target", target]
    try:
        assert export.main(["--model_path", str(demo), "--target", str(tmp_path / "mindir"), *asked]) == 2
    finally:
        monkeypatch.undo()
        device.configure()
    assert made == [kernels]


def test_pictures_are_captioned_by_the_manifest(base, tmp_path, capsys):
    """The example, with more pictures than a batch holds, and what it refuses."""
    _, exported = base
    rng = np.random.default_rng(5)
    pictures = [tmp_path / f"{number}.png" for number in range(3)]
    for picture in pictures:
        Image.fromarray(rng.integers(0, 255, (40, 32, 3), np.uint8)).save(picture)
    options = ["--graphs", str(exported.folder), "--runtime", "graphcell", *map(str, pictures)]
    assert lite_caption.main([*options, "--seq_len", "6"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [path for path, _ in lines] == [str(picture) for picture in pictures] and all(text for _, text in lines)
    for asked, message in ((["--seq_len", "14"], "--seq_len 14"), (["--graphs", str(tmp_path)], "no manifest.json")):
        assert lite_caption.main([*options, *asked]) == 2
        printed = capsys.readouterr()
        assert message in printed.err and not printed.out
