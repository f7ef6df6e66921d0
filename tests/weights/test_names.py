import pytest

from mindone_coca.errors import InputError
from mindone_coca.model.coca_pytorch.family import COCA_PYTORCH
from mindone_coca.model.families import FAMILIES, load_model_config
from mindone_coca.model.open_clip.config import ModelConfig
from mindone_coca.model.open_clip.family import OPEN_CLIP
from mindone_coca.weights.infer import infer_config
from mindone_coca.weights.names import recognise
from mindone_coca.weights.shapes import check_shapes
from tests.models import CONFIGS
from tests.reference import ReferenceCoCa, open_clip, random_reference, torch


def shapes_of(model):
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.key)
def test_table_is_a_bijection(family):
    left, right = zip(*family.names, strict=True)
    assert len(set(left)) == len(left)
    assert len(set(right)) == len(right)
    for open_clip_name, mindspore_name in family.names:
        for layer in ("0", "7", "23"):
            ours, theirs = mindspore_name.replace("{i}", layer), open_clip_name.replace("{i}", layer)
            assert family.to_mindspore(theirs) == ours
            assert family.to_original(ours) == theirs


@pytest.mark.parametrize("name", ["visual.ln_post.gamma", "visual.transformer.resblocks.01.ln_1.weight", "visual", ""])
def test_names_outside_the_table_have_no_translation(name):
    assert OPEN_CLIP.to_mindspore(name) is None


@pytest.mark.parametrize("name", CONFIGS)
def test_table_covers_every_config_and_expected_shapes_agree(name):
    shapes = shapes_of(random_reference(CONFIGS[name]))
    assert all(OPEN_CLIP.to_original(OPEN_CLIP.to_mindspore(name)) == name for name in shapes)
    assert OPEN_CLIP.shapes(ModelConfig.from_dict(CONFIGS[name])) == shapes


@pytest.mark.parametrize("published, entries", [("coca_ViT-L-14", 773), ("coca_ViT-B-32", None), ("coca_base", None)])
def test_published_configs_on_the_meta_device(published, entries, tmp_path):
    config = open_clip.get_model_config(published)
    config.pop("custom_text")
    with torch.device("meta"):
        shapes = shapes_of(ReferenceCoCa(**config))
    assert entries in (None, len(shapes))
    assert all(OPEN_CLIP.to_original(OPEN_CLIP.to_mindspore(name)) == name for name in shapes)
    ours = load_model_config(published.lower())
    assert OPEN_CLIP.shapes(ours) == shapes
    inferred, origin = infer_config(shapes, OPEN_CLIP, tmp_path)
    assert inferred == ours
    assert published.lower() in origin


@pytest.mark.parametrize("name", CONFIGS)
def test_config_is_inferred_from_shapes(name, tmp_path):
    shapes = shapes_of(random_reference(CONFIGS[name]))
    if name in ("parallel", "cascade"):
        with pytest.raises(InputError, match="parallel from cascade"):
            infer_config(shapes, OPEN_CLIP, tmp_path)
        return
    inferred, origin = infer_config(shapes, OPEN_CLIP, tmp_path)
    given = ModelConfig.from_dict(CONFIGS[name])
    assert OPEN_CLIP.shapes(inferred) == shapes
    assert inferred.vision_cfg.patch_size == given.vision_cfg.patch_size
    assert inferred.vision_cfg.grid_hw == given.vision_cfg.grid_hw
    assert inferred.vision_cfg.attentional_pool == given.vision_cfg.attentional_pool
    assert inferred.text_cfg.context_length == given.text_cfg.context_length
    assert inferred.multimodal_cfg.layers == given.multimodal_cfg.layers
    assert "quick_gelu" in origin  # says what it had to assume


def test_oblong_grid_cannot_be_inferred(tmp_path):
    shapes = shapes_of(random_reference(CONFIGS["base"]))
    shapes["visual.positional_embedding"] = (3 * 5 + 1, 48)
    with pytest.raises(InputError, match="15 image patches are no square grid"):
        infer_config(shapes, OPEN_CLIP, tmp_path)


def test_mismatches_are_listed_in_one_line(tmp_path):
    expected = {f"layer.{i}": (2, 3) for i in range(5)}
    found = {"layer.0": (2, 3), "layer.1": (3, 2), "extra": (1,)}
    with pytest.raises(InputError) as caught:
        check_shapes(expected, found, tmp_path / "weights.ckpt")
    message = str(caught.value)
    assert "\n" not in message
    assert "missing: 3 (layer.2, layer.3, layer.4)" in message
    assert "unexpected: 1 (extra)" in message
    assert "of another shape: 1 (layer.1 [3, 2] instead of [2, 3])" in message


def test_naming_is_told_by_the_token_embedding():
    assert recognise(["text.token_embedding.weight", "logit_scale"], "f") == (OPEN_CLIP, False)
    assert recognise(["text.token_embedding.embedding_table"], "f") == (OPEN_CLIP, True)
    assert recognise(["token_emb.weight", "temperature"], "f") == (COCA_PYTORCH, False)
    with pytest.raises(InputError, match="not the weights of a CoCa model"):
        recognise(["conv1.weight"], "f")
    with pytest.raises(InputError, match="several namings"):
        recognise(["text.token_embedding.weight", "text.token_embedding.embedding_table"], "f")
