"""Content decides what a file is, and what is no checkpoint is named for what it is, with the way to fix it."""

import gzip
import io
import pickle
import tarfile
import zipfile
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from safetensors.torch import save

from mindone_coca.errors import InputError
from mindone_coca.factory import create_model
from mindone_coca.weights.source import open_weights
from tests.models import CONFIGS
from tests.reference import torch
from tests.weights.common import STATE, Net, message_of
from tests.weights.raw_formats import ckpt_value, message, zip_archive, zip_members


def torch_bytes(value: object, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def mindspore_bytes() -> bytes:
    values = [ckpt_value(n.encode(), list(t.shape), b"Float32", t.numpy().tobytes()) for n, t in STATE.items()]
    return b"".join(values)


@pytest.mark.parametrize(
    "suffix",
    [
        ".ckpt",
        ".pth.tar",
        "",
        ".safetensors",
        ".bin",
        ".pt",
        ".pth",
        ".model",
        ".tar",
        ".th",
        ".weights",
        ".index",
        ".0",
    ],
)
@pytest.mark.parametrize("kind", ["torch", "safetensors", "mindspore"])
def test_content_decides_and_no_suffix(kind, suffix, tmp_path):
    content = {"torch": torch_bytes({"state_dict": STATE}), "safetensors": save(STATE), "mindspore": mindspore_bytes()}
    path = tmp_path / f"coca{suffix}"
    path.write_bytes(content[kind])
    weights = open_weights(path)
    assert weights.format == kind
    assert {name: entry.read().tolist() for name, entry in weights.items()} == {n: t.tolist() for n, t in STATE.items()}


def test_what_mindspore_itself_writes_is_known_under_any_name(tmp_path):
    for name in ("a", "moments.visual.proj", "x" * 300):
        for value in (1.0, [0.5], np.ones((70, 70)), np.ones(100_000)):
            parameter = {"name": name, "data": ms.Tensor(value, ms.float32)}
            ms.save_checkpoint([parameter, {"name": "visual.proj", "data": ms.Tensor([1.0])}], str(tmp_path / "m.ckpt"))
            (tmp_path / "m.ckpt").rename(tmp_path / "m.pt")
            assert open_weights(tmp_path / "m.pt").format == "mindspore"
            (tmp_path / "m.pt").unlink()


@pytest.mark.parametrize("first", [0x5B, 0x7B, 0x3C])
def test_no_length_makes_a_mindspore_checkpoint_text(first, tmp_path):
    """Its first bytes, a line feed and a length, may be those of JSON or of a page."""
    numbers = np.full(4, 1.1, np.float32).tobytes()  # without zero bytes, which no text has
    files = [ckpt_value(b"n" * length, [4], b"Float32", numbers) for length in range(1, 100)]
    (tmp_path / "m.pt").write_bytes(next(data for data in files if data[1] == first))
    assert open_weights(tmp_path / "m.pt").format == "mindspore"


def test_shards_are_told_by_content_too(tmp_path):
    (tmp_path / "a.bin").write_bytes(save({"visual.proj": STATE["visual.proj"]}))
    (tmp_path / "b.ckpt").write_bytes(torch_bytes({"text.cls_emb": STATE["text.cls_emb"]}))
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"visual.proj": "a.bin", "text.cls_emb": "b.ckpt"}}')
    assert list(open_weights(tmp_path)) == ["visual.proj", "text.cls_emb"]
    assert list(open_weights(tmp_path, key="visual")) == ["proj"]


@pytest.mark.parametrize("name", ["epoch_3.ckpt", "best.pth.tar", "checkpoint"])
def test_models_are_made_of_torch_files_of_any_name(name, checkpoint, convert, tmp_path):
    path = tmp_path / name
    path.write_bytes(checkpoint.read_bytes())
    assert convert("--source", path, "--target", tmp_path / "out.ckpt") == 0
    model = create_model(CONFIGS["base"], path)
    want = torch.load(checkpoint, weights_only=True)["visual.proj"].numpy()
    np.testing.assert_array_equal(model.visual.proj.asnumpy(), want)


def script() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(Net(), torch.ones(1, 2)), buffer)
    return buffer.getvalue()


def exported() -> bytes:
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(Net(), (torch.ones(1, 2),)), buffer)
    return buffer.getvalue()


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("coca/model.bin")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    return buffer.getvalue()


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.ones(2))
    return buffer.getvalue()


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ones(2))
    return buffer.getvalue()


def zipped(name: str, content: bytes, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    return zip_archive([("readme.txt", b"hello"), (name, content)], compression)


def rezipped() -> bytes:
    return zip_archive([(f"coca/{name}", data) for name, data in zip_members(torch_bytes(STATE))])


def onnx(second: bytes) -> bytes:
    return b"\x08\x08" + second + message(7, b"\x0a\x03abc")


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 2554000000\n"

# what it is: (content, words of the message)
OTHERS = {
    "TorchScript": (script, ["TorchScript", "torch.jit.load(FILE).state_dict()"]),
    "torch.export": (exported, ["torch.export", "state_dict"]),
    "LFS pointer": (lambda: LFS, ["Git LFS pointer", "2,554,000,000 bytes", "git lfs pull"]),
    "old LFS pointer": (lambda: LFS.replace(b"git-lfs.github.com", b"hawser.github.com"), ["Git LFS pointer"]),
    "LFS pointer with Windows lines": (lambda: LFS.replace(b"\n", b"\r\n"), ["Git LFS pointer", "git lfs pull"]),
    "annex pointer": (lambda: b"/annex/objects/SHA256E-s10--abc.bin\n", ["git-annex", "git annex get"]),
    "HTML": (lambda: b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", ["HTML page", "/resolve/"]),
    "HTML with a BOM": (lambda: b"\xef\xbb\xbf\r\n  <HTML lang=en>", ["HTML page", "download"]),
    "HTML after blank lines": (lambda: b"\n\n\n<html><body>" + b"a" * 99, ["HTML page", "download"]),
    "HTML fragment": (lambda: b"<head><title>Google Drive - Virus scan warning</title>", ["HTML page", "download"]),
    "XML of a store": (lambda: b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', ["XML", "download"]),
    "JSON": (lambda: b'{"error": "Repository not found"}', ["JSON", "weights file"]),
    "gzip": (lambda: gzip.compress(torch_bytes(STATE)), ["gzip", "unpack"]),
    "tar.gz": (lambda: gzip.compress(tar()), ["gzip", "tar -xzf"]),
    "bzip2": (lambda: b"BZh91AY&SY" + bytes(50), ["bzip2", "unpack"]),
    "xz": (lambda: b"\xfd7zXZ\x00" + bytes(50), ["xz", "unpack"]),
    "zstd": (lambda: b"\x28\xb5\x2f\xfd" + bytes(50), ["zstd", "unpack"]),
    "7z": (lambda: b"7z\xbc\xaf\x27\x1c" + bytes(50), ["7z", "unpack"]),
    "tar": (tar, ["tar archive", "tar -xf"]),
    "zip around a checkpoint": (lambda: zipped("coca/model.pt", torch_bytes(STATE)), ["'coca/model.pt'", "unzip"]),
    "zip of something else": (lambda: zipped("a.txt", b"a"), ["zip file", "'readme.txt'"]),
    "empty zip": (lambda: zip_archive([]), ["empty zip"]),
    "checkpoint zipped anew": (rezipped, ["zipped anew", "torch.save"]),
    "npz": (npz, [".npz", "torch.save"]),
    "npy": (npy, [".npy", "torch.save"]),
    "Keras": (lambda: zipped("model.weights.h5", b"\x89HDF"), ["Keras"]),
    "HDF5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(90), ["HDF5", "Keras"]),
    "GGUF": (lambda: b"GGUF\x03\x00\x00\x00" + bytes(90), ["GGUF"]),
    "msgpack of Flax": (lambda: b"\x81\xa6params\x82\xa6visual\x80\xa4text\x80", ["msgpack", "Flax"]),
    "msgpack, large maps": (lambda: b"\xde\x00\x10\xd9\x20" + b"a" * 32 + bytes(40), ["msgpack", "Flax"]),
    "msgpack, long keys": (lambda: b"\x83\xda\x01\x00" + b"a" * 256 + bytes(40), ["msgpack", "Flax"]),
    "ONNX of torch": (lambda: onnx(message(2, b"pytorch") + message(3, b"2.1.0")), ["ONNX"]),
    "ONNX without a producer": (lambda: onnx(b""), ["ONNX"]),
    "ONNX, opset first": (lambda: onnx(message(8, b"\x10\x11")), ["ONNX"]),
    "SavedModel": (lambda: b"\x08\x01" + message(2, bytes(200)), ["SavedModel"]),
    "TFLite": (lambda: b"\x1c\x00\x00\x00TFL3" + bytes(90), ["TensorFlow Lite"]),
    "MindIR": (lambda: message(1, b"1.1") + message(2, b"MindSpore") + bytes(9), ["MindIR", ".ckpt"]),
    "bare pickle": (lambda: pickle.dumps({"a": 1}, protocol=4), ["pickle", "not run", "torch.save"]),
    "pickle of arrays": (lambda: pickle.dumps({"a": np.ones(2)}, protocol=2), ["pickle", "not run"]),
    "pickle, newest protocol": (lambda: pickle.dumps([1], protocol=5), ["pickle", "not run"]),
    "old torch": (lambda: torch_bytes(STATE, _use_new_zipfile_serialization=False), ["torch 1.6", "re-save"]),
    "old torch, protocol 4": (
        lambda: torch_bytes(STATE, _use_new_zipfile_serialization=False, pickle_protocol=4),
        ["torch 1.6", "re-save"],
    ),
    "noise": (lambda: bytes(range(200, 256)), ["no weights file", "begins with c8 c9"]),
    "text": (lambda: b"hello, world", ["no weights file", "begins with 'hello, world'"]),
    "one byte": (lambda: b"\x80", ["no weights file"]),
    "whole model": (lambda: torch_bytes(Net()), ["whole pickled model", "common.Net", ".state_dict()"]),
    "whole model under a key": (
        lambda: torch_bytes({"epoch": 1, "model": Net()}),
        ["whole pickled model", "weights_only=False)['model'].state_dict()"],
    ),
    "wrapped model": (lambda: torch_bytes({"net": torch.nn.DataParallel(Net())}), ["whole pickled model", "['net']"]),
    "model two keys deep": (lambda: torch_bytes({"model": {"ema": Net()}}), ["whole", "['model']['ema']"]),
    "model deep down": (lambda: torch_bytes({"a": [{"b": {"c": Net()}}]}), ["whole", "['a'][0]['b']"]),
    "model beside an optimizer": (
        lambda: torch_bytes({"optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}, "net": Net()}),
        ["whole pickled model", "['net']"],
    ),
    "a loss module beside a state dict": (
        lambda: torch_bytes({"loss": Net(), "net": STATE}),
        ["'net' (3)", "--key net"],
    ),
    "one tensor": (lambda: torch_bytes(torch.ones(2)), ["one tensor", "state_dict()"]),
    "optimizer": (lambda: torch_bytes(torch.optim.SGD([torch.ones(2)], 0.1)), ["SGD", "state_dict()"]),
    "settings": (lambda: torch_bytes({"epoch": 1, "args": {"lr": 1}}), ["'epoch', 'args'", "state_dict()"]),
    "unknown key": (lambda: torch_bytes({"net": STATE, "epoch": 3}), ["'net' (3)", "--key net"]),
    "unknown keys": (
        lambda: torch_bytes({"gan": {"generator": STATE, "critic": {"a": torch.ones(2)}}}),
        ["'gan.generator' (3), 'gan.critic' (1)", "--key gan.generator"],
    ),
    "in a list": (lambda: torch_bytes([1, STATE]), ["'1' (3)", "--key 1"]),
    "beside a tensor": (lambda: torch_bytes({"net": STATE, "rng": torch.ones(3)}), ["'net' (3)", "--key net"]),
}


def test_an_averaged_model_that_is_whole_is_named(tmp_path):
    torch.save({"model": STATE, "ema": Net()}, tmp_path / "t.pt")
    assert list(open_weights(tmp_path / "t.pt")) == list(STATE)
    with pytest.raises(InputError, match=r"whole pickled model under \['ema'\]"):
        open_weights(tmp_path / "t.pt", ema=True)


@pytest.mark.parametrize("suffix", [".bin", ".ckpt", ".safetensors", ""])
@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.filterwarnings("ignore")
def test_what_is_no_checkpoint_is_named(kind, suffix, tmp_path):
    make, words = OTHERS[kind]
    path = tmp_path / f"coca{suffix}"
    path.write_bytes(make())
    text = message_of(path)
    if kind in ("noise", "text", "one byte") and suffix in (".ckpt", ".safetensors"):
        assert "damaged" in text or "not a whole" in text  # the suffix is the last clue
    else:
        assert all(word in text for word in words), text


def test_the_command_line_says_it_in_one_line(convert, capsys, tmp_path):
    (tmp_path / "page.ckpt").write_bytes(b"<html></html>")
    assert convert("--source", tmp_path / "page.ckpt", "--target", tmp_path / "out") == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {tmp_path}/page.ckpt: an HTML page") and err.count("\n") == 1
