"""Files and folders that hold a part of a model: pieces of a distributed run, adapters, one tower."""

import pytest
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file

from mindone_coca.errors import InputError
from mindone_coca.factory import create_model
from mindone_coca.weights.source import open_weights
from tests.models import CONFIGS
from tests.reference import torch
from tests.weights.common import STATE, message_of


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_distributed_checkpoint_folders(tmp_path):
    dcp.save({"model": dict(STATE)}, checkpoint_id=tmp_path / "dcp", no_dist=True)
    fix = f"format_utils dcp_to_torch {tmp_path / 'dcp'} coca.pt"
    assert fix in message_of(tmp_path / "dcp")
    piece = next((tmp_path / "dcp").glob("*.distcp"))
    assert fix in message_of(piece)
    assert "pickle" in message_of(tmp_path / "dcp" / ".metadata")
    (tmp_path / "dcp" / ".metadata").unlink()
    assert ".metadata file is missing" in message_of(tmp_path / "dcp")


def zero3(**more: object) -> dict:
    hollow = {name: torch.nn.Parameter(torch.empty(0)) for name in STATE}
    return {"module": hollow, "ds_version": "0.14.2", "ds_config": {"zero_optimization": {"stage": 3}}, **more}


@pytest.mark.parametrize("name", ["zero_pp_rank_0_mp_rank_00_model_states.pt", "rank0.pt"])
def test_deepspeed_pieces(name, tmp_path):
    shapes = [{name: torch.Size(tensor.shape) for name, tensor in STATE.items()}]
    torch.save(zero3(param_shapes=shapes), tmp_path / name)
    assert "zero_to_fp32.py" in message_of(tmp_path / name)
    if name.startswith("zero"):
        assert "zero_to_fp32.py" in message_of(tmp_path)
        torch.save(zero3(), tmp_path / name)  # as an older version writes it
        assert "zero_to_fp32.py" in message_of(tmp_path / name)
    torch.save({"optimizer_state_dict": {"groups": [torch.ones(4)]}, "ds_version": "1"}, tmp_path / "optim_states.pt")
    assert "zero_to_fp32.py" in message_of(tmp_path / "optim_states.pt")


def test_deepspeed_stages_one_and_two_keep_whole_weights(tmp_path):
    shapes = [{name: torch.Size(tensor.shape) for name, tensor in STATE.items()}]
    torch.save({**zero3(param_shapes=shapes), "module": STATE}, tmp_path / "mp_rank_00_model_states.pt")
    assert list(open_weights(tmp_path / "mp_rank_00_model_states.pt")) == list(STATE)


ADAPTERS = {
    "PEFT": [
        "base_model.model.text.resblocks.0.attn.lora_A.weight",
        "base_model.model.text.resblocks.0.attn.lora_B.weight",
    ],
    "loralib": ["visual.transformer.resblocks.0.attn.lora_A", "visual.transformer.resblocks.0.attn.lora_B"],
    "kohya": ["lora_te_text_model_layers_0.lora_down.weight", "lora_te_text_model_layers_0.lora_up.weight"],
    "LyCORIS": ["visual_blocks_0.hada_w1_a", "visual_blocks_0.hada_w1_b"],
    "embedding": ["text.token_embedding.lora_embedding_A", "text.token_embedding.lora_embedding_B"],
    "unmerged": [
        "text.token_embedding.weight",
        "visual.proj",
        "text.q.base_layer.weight",
        "text.q.lora_A.default.weight",
    ],
}


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
@pytest.mark.parametrize("kind", ADAPTERS)
def test_adapters_are_named(kind, suffix, convert, capsys, tmp_path):
    state = {name: torch.ones(2, 2) for name in ADAPTERS[kind]}
    path = tmp_path / f"adapter_model{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    assert convert("--source", path, "--target", tmp_path / "out") == 2
    err = capsys.readouterr().err
    assert "LoRA adapter" in err and "merge_and_unload()" in err and err.count("\n") == 1
    with pytest.raises(InputError, match="LoRA adapter"):
        create_model(CONFIGS["base"], path)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize(
    "tower, said", [("visual.", "image tower"), ("text.", "text tower"), ("text_decoder.", "multimodal decoder")]
)
def test_one_tower_is_named(tower, said, prefix, model, convert, capsys, tmp_path):
    state = {prefix + name: tensor for name, tensor in model.state_dict().items() if name.startswith(tower)}
    torch.save(state, tmp_path / "tower.pt")
    assert convert("--source", tmp_path / "tower.pt", "--target", tmp_path / "out") == 2
    assert f"holds only the {said}" in capsys.readouterr().err
    assert list(open_weights(tmp_path / "tower.pt")) == [name.removeprefix(prefix) for name in state]
