"""The converter: every source and target, round trips to the bit, its checks and options."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
import yaml
from safetensors.torch import load_file, save_file

from mindone_coca.model.families import load_model_config
from mindone_coca.model.open_clip.config import ModelConfig
from mindone_coca.model.open_clip.family import OPEN_CLIP
from mindone_coca.weights.source import open_weights
from tests.models import CONFIGS
from tests.reference import open_clip, random_reference, torch

REPOSITORY = Path(__file__).parents[2]
BASE = CONFIGS["base"]
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def fails(capsys, code: int) -> str:
    """The one line on standard error of a failed run."""
    err = capsys.readouterr().err
    assert code == 2
    assert err.startswith("error: ") and err.count("\n") == 1
    return err


def equal_bits(ours: dict, theirs: dict) -> bool:
    """Equal names, types, shapes and bits of two torch state dicts."""
    return ours.keys() == theirs.keys() and all(
        ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name]) for name in theirs
    )


@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("name", CONFIGS)
def test_round_trip_is_bit_exact(name, dtype, convert, tmp_path):
    model = random_reference(CONFIGS[name])
    state = {name: tensor.to(DTYPES[dtype]) for name, tensor in model.state_dict().items()}
    torch.save(state, tmp_path / "source.bin")
    config = tmp_path / "given.json"
    config.write_text(json.dumps(CONFIGS[name]))
    for suffix in (".ckpt", ".safetensors"):
        middle = tmp_path / f"middle{suffix}"
        assert convert("--source", tmp_path / "source.bin", "--config", config, "--target", middle) == 0
        assert load_model_config(tmp_path / "middle.yaml") == ModelConfig.from_dict(CONFIGS[name])
        loaded = ms.load_checkpoint(str(middle), format=suffix[1:])
        assert {OPEN_CLIP.to_original(name) for name in loaded} == state.keys()
        if dtype == "float32":
            for key, parameter in loaded.items():
                np.testing.assert_array_equal(parameter.asnumpy(), state[OPEN_CLIP.to_original(key)].numpy(), key)
        for back in (f"back-{suffix[1:]}.bin", f"back-{suffix[1:]}.safetensors"):
            assert convert("--source", middle, "--reverse", "--target", tmp_path / back, "--force") == 0
            path = tmp_path / back
            theirs = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
            assert equal_bits(theirs, state)
    model.load_state_dict(theirs, strict=True)


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_open_clip_loads_the_reverse_strictly_and_captions_the_same(suffix, checkpoint, model, convert, tmp_path):
    config = tmp_path / "given.json"
    config.write_text(json.dumps(BASE))
    assert convert("--source", checkpoint, "--config", config, "--target", tmp_path / "ms") == 0
    back = tmp_path / f"returned_coca{suffix.strip('.')}{suffix}"
    assert convert("--source", tmp_path / "ms", "--reverse", "--target", back) == 0
    open_clip.add_model_config(back.with_suffix(".json"))
    loaded = open_clip.create_model(back.stem, pretrained=str(back)).eval()
    # The shapes of the file cannot tell the heads, so this config had to be carried along.
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ids = {"sot_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "seq_len": 8, "max_seq_len": 16, "min_seq_len": 2}
    with torch.no_grad():
        want = model.generate(image, generation_type="top_k", **ids)
        assert torch.equal(loaded.generate(image, generation_type="top_k", **ids), want)


def test_reverse_into_a_folder_is_a_whole_open_clip_folder(checkpoint, model, convert, tmp_path):
    assert convert("--source", checkpoint, "--target", tmp_path / "ms.safetensors") == 0
    assert convert("--source", tmp_path / "ms.safetensors", "--reverse", "--target", tmp_path / "folder") == 0
    loaded = open_clip.create_model(f"local-dir:{tmp_path / 'folder'}")
    assert equal_bits(loaded.state_dict(), model.state_dict())


def test_command_of_the_readme_works_literally(checkpoint, tmp_path):
    (tmp_path / "tools").symlink_to(REPOSITORY / "tools")
    command = "python tools/model_conversion/coca_convert.py --source open_clip_pytorch_model.bin"
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(command.split(), cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("wrote models/coca_model.ckpt: ") and done.stdout.count("\n") == 1
    assert len(ms.load_checkpoint(str(tmp_path / "models" / "coca_model.ckpt"))) == len(open_weights(checkpoint))
    assert (tmp_path / "models" / "coca_model.yaml").is_file()


def training_checkpoint(model, path, prefix=""):
    optimizer = torch.optim.AdamW(model.parameters())
    sum(parameter.sum() for parameter in model.parameters()).backward()
    optimizer.step()
    state = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    state[prefix + "text_decoder.attn_mask"] = torch.full((16, 16), float("-inf")).triu(1)
    averaged = {prefix + name: tensor * 0.5 for name, tensor in model.state_dict().items()}
    averaged["n_averaged"] = torch.tensor(3)
    whole = {
        "epoch": 3,
        "name": "run",
        "state_dict": state,
        "optimizer": optimizer.state_dict(),
        "scaler": {"scale": 1.5},
    }
    torch.save({**whole, "state_dict_ema": averaged}, path)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_training_checkpoints(prefix, model, convert, tmp_path, capsys):
    training_checkpoint(model, tmp_path / "epoch_3.pt", prefix)
    plain = dict(model.state_dict())
    averaged = {name: tensor * 0.5 for name, tensor in plain.items()}
    for options, want, said in (([], plain, "not the averaged"), (["--ema"], averaged, "took state_dict_ema")):
        arguments = ["--source", tmp_path / "epoch_3.pt", "--reverse", "--force", "--target", tmp_path / "out.bin"]
        assert convert(*arguments, *options) == 0
        assert equal_bits(torch.load(tmp_path / "out.bin", weights_only=True), want)
        err = capsys.readouterr().err
        assert said in err and "left out" in err


def test_missing_averaged_weights_are_named(checkpoint, convert, capsys, tmp_path):
    assert "--ema" in fails(capsys, convert("--source", checkpoint, "--ema", "--target", tmp_path / "out.ckpt"))


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_sharded_hugging_face_folder(suffix, model, convert, tmp_path):
    folder = tmp_path / "hf"
    folder.mkdir()
    state = dict(model.state_dict())
    names = sorted(state)
    weight_map = {}
    for shard in range(3):
        file = f"model-{shard + 1:05d}-of-00003{suffix}"
        part = {name: state[name].clone() for name in names[shard::3]}
        save_file(part, folder / file) if suffix == ".safetensors" else torch.save(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    stem = "model.safetensors" if suffix == ".safetensors" else "pytorch_model.bin"
    (folder / f"{stem}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    preprocess = {
        "size": 32,
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.2, 0.3],
        "interpolation": "bilinear",
        "resize_mode": "squash",
    }
    whole = {"model_cfg": {**BASE, "quick_gelu": True}, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(whole))
    assert convert("--source", folder, "--target", tmp_path / "ms") == 0
    written = load_model_config(tmp_path / "ms" / "coca_model.yaml")
    assert written.quick_gelu and written.preprocess.mean == (0.5, 0.4, 0.3)
    assert (written.preprocess.interpolation, written.preprocess.resize_mode) == ("bilinear", "squash")
    assert convert("--source", tmp_path / "ms", "--reverse", "--target", tmp_path / "back") == 0
    assert equal_bits(torch.load(tmp_path / "back" / "open_clip_pytorch_model.bin", weights_only=True), state)
    back = json.loads((tmp_path / "back" / "open_clip_config.json").read_text())
    assert back["preprocess_cfg"]["mean"] == [0.5, 0.4, 0.3]
    assert back["model_cfg"]["quick_gelu"] is True


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_dtype_casts_as_torch(dtype, checkpoint, model, convert, tmp_path):
    out = tmp_path / "out.safetensors"
    assert convert("--source", checkpoint, "--dtype", dtype, "--reverse", "--target", out) == 0
    assert equal_bits(load_file(out), {n: t.to(DTYPES[dtype]) for n, t in model.state_dict().items()})


def test_values_too_large_for_float16_are_refused(model, convert, capsys, tmp_path):
    state = dict(model.state_dict())
    state["visual.proj"] = state["visual.proj"] + 1e5
    torch.save(state, tmp_path / "big.bin")
    code = convert("--source", tmp_path / "big.bin", "--dtype", "float16", "--target", tmp_path / "out" / "x.ckpt")
    assert "visual.proj holds values too large for float16" in fails(capsys, code)
    assert not (tmp_path / "out").exists()


def test_nan_is_refused_unless_allowed(model, convert, capsys, tmp_path):
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state["text.ln_final.bias"][3] = float("nan")
    torch.save(state, tmp_path / "nan.bin")
    arguments = ["--source", tmp_path / "nan.bin", "--target", tmp_path / "out" / "x.ckpt"]
    assert "text.ln_final.bias holds 1 values that are NaN" in fails(capsys, convert(*arguments))
    assert not (tmp_path / "out").exists()
    assert convert(*arguments, "--allow_nan") == 0
    loaded = ms.load_checkpoint(str(tmp_path / "out" / "x.ckpt"))
    assert np.isnan(loaded["text.ln_final.beta"].asnumpy()[3])


@pytest.mark.parametrize("option, size, new", [("--image_size", "40", (5, 5)), ("--patch_grid", "2x4", (2, 4))])
def test_position_resizing(option, size, new, checkpoint, model, convert, tmp_path):
    out = tmp_path / "out.safetensors"
    assert convert("--source", checkpoint, option, size, "--target", out) == 0
    config = load_model_config(tmp_path / "out.yaml")
    assert config.vision_cfg.grid_hw == new
    assert config.preprocess.size == config.vision_cfg.image_size
    state = dict(model.state_dict())
    open_clip.model.resize_pos_embed(state, SimpleNamespace(visual=SimpleNamespace(grid_size=new)))
    want = state["visual.positional_embedding"].numpy()
    got = open_weights(out)["visual.positional_embedding"].read()
    assert np.abs(got - want).max() <= 1e-6 * np.abs(want).max()
    note = f"resized from 4x4 to {new[0]}x{new[1]} patches"
    assert note in open_weights(out).metadata["positions"]
    assert note in (tmp_path / "out.yaml").read_text()


def test_given_config_is_checked(checkpoint, convert, capsys, tmp_path):
    other = {**BASE, "text_cfg": {**BASE["text_cfg"], "layers": 3}}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other))
    code = convert("--source", checkpoint, "--config", tmp_path / "other.yaml", "--target", tmp_path / "x.ckpt")
    message = fails(capsys, code)
    assert "missing: 12 (text.transformer.resblocks.2.ln_1.weight" in message
    assert "open_clip_pytorch_model.bin" in message


def test_existing_files_need_force(checkpoint, convert, capsys, tmp_path):
    arguments = ["--source", checkpoint, "--target", tmp_path / "models"]
    assert convert(*arguments) == 0
    capsys.readouterr()
    before = (tmp_path / "models" / "coca_model.ckpt").read_bytes()
    assert "--force" in fails(capsys, convert(*arguments))
    assert convert(*arguments, "--force") == 0
    assert (tmp_path / "models" / "coca_model.ckpt").read_bytes() == before
    # The config beside it says the same, so another format of the same weights is no clash.
    target = tmp_path / "models" / "coca_model.safetensors"
    assert convert("--source", tmp_path / "models", "--target", target) == 0
    (tmp_path / "models" / "coca_model.yaml").write_text("embed_dim: 7\n")
    capsys.readouterr()
    other = ["--source", checkpoint, "--target", tmp_path / "models" / "coca_model.safetensors"]
    target.unlink()
    assert "coca_model.yaml: exists already" in fails(capsys, convert(*other))


def test_dry_run_writes_nothing(checkpoint, convert, capsys, tmp_path):
    assert convert("--source", checkpoint, "--dry_run", "--target", tmp_path / "models") == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in out] == [
        f"would write {tmp_path}/models/coca_model.ckpt",
        f"would write {tmp_path}/models/coca_model.yaml",
    ]
    assert not (tmp_path / "models").exists()


def test_dry_run_reports_what_is_there_already(checkpoint, convert, capsys, tmp_path):
    command = ("--source", checkpoint, "--dry_run", "--target", tmp_path / "coca.ckpt")
    (tmp_path / "coca.ckpt").write_bytes(b"kept")
    (tmp_path / "coca.yaml").write_text("embed_dim: 7\n")
    for more, verdict in ((), "needs --force"), (("--force",), "is overwritten"):
        assert convert(*command, *more) == 0
        printed = capsys.readouterr()
        assert [line.split(":")[0] for line in printed.out.splitlines()] == [
            f"would write {tmp_path}/coca.ckpt",
            f"would write {tmp_path}/coca.yaml",
        ]
        for name in ("coca.ckpt", "coca.yaml"):
            assert f"note: {tmp_path / name} exists already and {verdict}\n" in printed.err
    assert (tmp_path / "coca.ckpt").read_bytes() == b"kept"
    assert (tmp_path / "coca.yaml").read_text() == "embed_dim: 7\n"


def test_list_prints_without_converting(checkpoint, model, convert, capsys, tmp_path):
    assert convert("--source", checkpoint, "--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"{name}\t{'x'.join(map(str, tensor.shape)) or 'scalar'}\tfloat32"
        for name, tensor in model.state_dict().items()
    ]


def test_full_disk_is_seen_before_writing(checkpoint, convert, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1 << 20))
    code = convert("--source", checkpoint, "--target", tmp_path / "models")
    assert "MiB of disk space, 1 MiB are free" in fails(capsys, code)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    "options, said",
    [
        (["--target", "out.bin"], "--reverse"),
        (["--target", "out.ckpt", "--reverse"], "--reverse"),
        (["--target", "file.txt"], "another kind"),
    ],
)
def test_targets_of_the_wrong_kind(options, said, checkpoint, convert, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.txt").write_text("mine")
    assert said in fails(capsys, convert("--source", checkpoint, *options))
    assert (tmp_path / "file.txt").read_text() == "mine"


def test_bad_usage_ends_with_code_2(convert):
    for arguments in ([], ["--source", "x", "--image_size", "0"], ["--source", "x", "--dtype", "int8"]):
        with pytest.raises(SystemExit) as caught:
            convert(*arguments)
        assert caught.value.code == 2


@pytest.mark.parametrize("options", [[], ["--dtype", "bfloat16"], ["--reverse"], ["--image_size", "48"]])
def test_verify_compares_every_tensor(options, checkpoint, convert, capsys, tmp_path):
    assert convert("--source", checkpoint, "--target", tmp_path / "out", *options, "--verify") == 0
    out = capsys.readouterr().out.splitlines()
    count = len(open_weights(checkpoint))
    assert out[-1].split() == ["equal", "checksums", f"{count}", "of", f"{count}"]
    assert out[-4].split() == ["entries", f"{count}", f"{count}"]


def test_verify_sees_a_changed_result(checkpoint, convert, capsys, tmp_path, monkeypatch):
    import mindone_coca.conversion.verify as verify

    def damaged(*arguments):
        model = create_model(*arguments)
        model.visual.proj.set_data(model.visual.proj + 1e-6)
        return model

    create_model = verify.create_model
    monkeypatch.setattr(verify, "create_model", damaged)
    code = convert("--source", checkpoint, "--target", tmp_path / "out", "--verify")
    assert code == 2
    assert "1 tensors differ" in capsys.readouterr().err


@pytest.mark.graphs
@pytest.mark.parametrize("name", ["odd_sizes", "cascade"])
def test_verify_forward_agrees_with_open_clip(name, convert, capsys, tmp_path):
    torch.save(random_reference(CONFIGS[name]).state_dict(), tmp_path / "source.pt")
    (tmp_path / "source.json").write_text(json.dumps(CONFIGS[name]))
    assert convert("--source", tmp_path / "source.pt", "--target", tmp_path / "out", "--verify", "forward") == 0
    line = capsys.readouterr().out.splitlines()[-1]
    differences = [float(part.split()[-1]) for part in line.split(":")[1].split(",")]
    assert len(differences) == 3 and max(differences) < 1e-5
