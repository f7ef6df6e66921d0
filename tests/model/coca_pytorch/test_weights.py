"""Conversion of coca-pytorch's state dict: names, shapes, bits there and back."""

import dataclasses
import math

import numpy as np
import pytest
import yaml

from mindone_coca.factory import create_model
from mindone_coca.model.coca_pytorch.config import ParallelConfig
from mindone_coca.model.coca_pytorch.family import COCA_PYTORCH
from mindone_coca.model.coca_pytorch.names import TIED
from mindone_coca.model.families import load_model_config
from mindone_coca.weights.formats.safetensors_file import read_safetensors
from mindone_coca.weights.infer import infer_config
from tests.models import relative_difference
from tests.parallel_models import SMALL, build_reference, make_inputs, random_config, random_reference
from tests.reference import torch

SEEDS = range(8)
VISION = {"image_size": 16, "patch_size": 8, "layers": 2, "width": 64, "head_width": 64}


def equal_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(
        a[n].dtype == b[n].dtype and a[n].shape == b[n].shape and a[n].numpy().tobytes() == b[n].numpy().tobytes()
        for n in a
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_names_and_shapes_are_the_original_s(seed):
    config = random_config(seed)
    state = build_reference(config).state_dict()
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    parsed = ParallelConfig.from_dict(config)
    assert COCA_PYTORCH.shapes(parsed) == shapes
    own = {name for name, shape in shapes.items() if not COCA_PYTORCH.is_derived(name, shape)}
    assert all(COCA_PYTORCH.to_original(COCA_PYTORCH.to_mindspore(name)) == name for name in own)
    ours = {p.name: tuple(p.shape) for p in COCA_PYTORCH.build(parsed).get_parameters()}
    assert ours == {COCA_PYTORCH.to_mindspore(name): shape for name, shape in shapes.items() if name in own}


def test_open_clip_s_vision_transformer_as_encoder():
    config = ParallelConfig.from_dict({**SMALL, "img_encoder": None, "vision_cfg": VISION})
    ours = {p.name: tuple(p.shape) for p in COCA_PYTORCH.build(config).get_parameters()}
    assert ours == {
        COCA_PYTORCH.to_mindspore(name): shape for name, shape in COCA_PYTORCH.parameter_shapes(config).items()
    }


@pytest.mark.parametrize("seed", [seed for seed in SEEDS if random_config(seed)["img_encoder"]["type"] == "vit"])
def test_config_is_inferred_from_shapes(seed, tmp_path):
    config = random_config(seed)
    config["img_encoder"] |= {"image_size": 16, "patch_size": 4, "heads": 2, "dim_head": 64}
    shapes = COCA_PYTORCH.parameter_shapes(ParallelConfig.from_dict(config))
    inferred, origin = infer_config(shapes, COCA_PYTORCH, tmp_path)
    assert COCA_PYTORCH.parameter_shapes(inferred) == shapes and "assumed" in origin
    assert inferred.heads == config["heads"] and inferred.img_encoder.pool == config["img_encoder"]["pool"]


def test_config_with_open_clip_s_encoder_is_inferred(tmp_path):
    config = ParallelConfig.from_dict({**SMALL, "img_encoder": None, "vision_cfg": VISION})
    inferred, _ = infer_config(COCA_PYTORCH.parameter_shapes(config), COCA_PYTORCH, tmp_path)
    assert inferred.vision_cfg.layers == 2 and inferred.vision_cfg.image_hw == (16, 16)


def write_source(folder, config: dict, state: dict) -> None:
    torch.save(state, folder / "source.pt")
    (folder / "source.yaml").write_text(yaml.safe_dump(ParallelConfig.from_dict(config).to_dict()))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_round_trip_is_bit_exact(seed, suffix, convert, tmp_path):
    config = random_config(seed)
    reference = random_reference(config, seed)
    write_source(tmp_path, config, reference.state_dict())
    middle, back = tmp_path / f"ms{suffix}", tmp_path / "back.pt"
    assert convert("--source", tmp_path / "source.pt", "--target", middle) == 0
    assert load_model_config(middle.with_suffix(".yaml")) == ParallelConfig.from_dict(config)
    assert convert("--source", middle, "--reverse", "--target", back) == 0
    returned = torch.load(back, weights_only=True)
    assert equal_bits(returned, dict(reference.state_dict()))
    build_reference(config).load_state_dict(returned, strict=True)


@pytest.mark.graphs
def test_converted_model_says_the_same(convert, tmp_path, capsys):
    reference = random_reference(SMALL)
    write_source(tmp_path, SMALL, reference.state_dict())
    models = tmp_path / "models"
    assert convert("--source", tmp_path / "source.pt", "--target", models, "--verify", "forward") == 0
    said = capsys.readouterr().out
    differences = [float(part.split()[-1]) for part in said.strip().splitlines()[-1].split(",")]
    assert "coca-pytorch" in said and len(differences) == 3 and max(differences) < 1e-5
    inputs = make_inputs(SMALL)
    with torch.no_grad():
        want = reference(torch.from_numpy(inputs.text), torch.from_numpy(inputs.images))
    model = create_model(models / "coca_model.yaml", models)
    assert relative_difference(model(inputs.text, inputs.images), want) < 1e-5
    torch_named = create_model(SMALL, tmp_path / "source.pt")
    assert all(
        np.array_equal(a.asnumpy(), b.asnumpy()) for a, b in zip(model.get_parameters(), torch_named.get_parameters())
    )
    assert convert("--source", models, "--reverse", "--target", tmp_path / "back", "--verify") == 0
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == ["coca_pytorch.pt", "coca_pytorch.yaml"]


def test_what_cannot_be_converted_is_refused(convert, tmp_path, capsys):
    state = dict(random_reference(SMALL).state_dict())
    write_source(tmp_path, SMALL, state)
    source, target = tmp_path / "source.pt", tmp_path / "out.safetensors"

    def refused(*options: object) -> str:
        assert convert("--source", source, "--target", target, *options) == 2
        assert not target.exists()
        return capsys.readouterr().err

    assert "only open_clip's position embeddings" in refused("--image_size", "32")
    torch.save({**state, TIED: state[TIED] + 1}, source)
    assert f"{TIED} differs from token_emb.weight" in refused()
    torch.save({n: v for n, v in state.items() if "img_queries" not in n}, source)
    assert "missing: 1 (img_queries)" in refused()
    torch.save(state, source)
    (tmp_path / "source.yaml").unlink()
    assert "image size of a SimpleViT; give --config" in refused()


def test_half_precision_file(convert, tmp_path):
    write_source(tmp_path, SMALL, random_reference(SMALL).state_dict())
    target = tmp_path / "half.safetensors"
    assert convert("--source", tmp_path / "source.pt", "--target", target, "--dtype", "float16") == 0
    assert {entry.dtype for entry in read_safetensors(target).values()} == {"float16"}
    assert create_model(SMALL, target, "float16").text.dtype == create_model(SMALL, target, "float16").visual.dtype


@pytest.mark.parametrize(
    ("name", "encoder", "decoder", "rounding"),
    [
        ("coca_paper_base", 86e6, 297e6, 0.005),
        ("coca_paper_large", 303e6, 484e6, 0.005),
        ("coca_paper_2b", 1.0e9, 1.1e9, 0.08),  # stated with two digits
    ],
)
def test_sizes_of_the_paper(name, encoder, decoder, rounding):
    """Table 1 of arXiv 2205.01917 against the config of that size: the image encoder has the stated size, and where the
    decoder has another, it is where coca-pytorch's layers are others."""
    config = dataclasses.replace(load_model_config(name), num_tokens=64_000)  # the paper's vocabulary
    counts = {n: math.prod(shape) for n, shape in COCA_PYTORCH.parameter_shapes(config).items()}
    dim, unimodal, multimodal = config.dim, config.unimodal_depth, config.multimodal_depth
    assert dim == config.heads * config.dim_head == config.image_dim
    assert abs(sum(c for n, c in counts.items() if n.startswith("img_encoder")) / encoder - 1) < rounding + 0.01
    # the paper: 12 dim^2 a layer, 4 dim^2 more with cross-attention, embeddings in and out
    stated = (12 * (unimodal + multimodal) + 4 * multimodal) * dim**2 + 2 * config.num_tokens * dim
    assert abs(stated / decoder - 1) < rounding
    # here: SwiGLU has three matrices (4 dim^2 more), a cross-attention has a feedforward too (12 dim^2), all heads
    # share a key and a value, embeddings are tied
    layers = unimodal + 2 * multimodal
    expected = stated + (4 * (unimodal + multimodal) + 12 * multimodal) * dim**2 - config.num_tokens * dim
    expected -= layers * 2 * dim * (dim - config.dim_head)
    ours = sum(c for n, c in counts.items() if "modal_layers" in n or n.startswith("token_emb"))
    small = sum(c for n, c in counts.items() if "modal_layers" in n and n.endswith(("gamma", "beta", "inv_freq")))
    assert ours - small == expected


def test_paper_configs_are_read_without_building():
    counts = {
        name: sum(math.prod(shape) for shape in COCA_PYTORCH.parameter_shapes(load_model_config(name)).values())
        for name in ("coca_paper_base", "coca_paper_large", "coca_paper_2b", "coca_parallel_digits")
    }
    assert list(counts.values()) == [427_244_953, 891_682_457, 2_601_558_857, 3_750_881]
