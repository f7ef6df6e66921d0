"""Readers and writers against the libraries that own the formats: safetensors, torch, MindSpore."""

from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from mindone_coca.conversion.resize import resize_positions
from mindone_coca.errors import InputError
from mindone_coca.weights.formats import mindspore_file
from mindone_coca.weights.formats.dtypes import DTYPES, cast, count_nonfinite
from mindone_coca.weights.formats.entry import Entry
from mindone_coca.weights.save import save_weights
from mindone_coca.weights.source import open_weights
from tests.reference import open_clip, torch

TORCH = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def bits(tensor: torch.Tensor) -> np.ndarray:
    return (
        tensor.view(torch.int16).numpy().view(np.uint16) if tensor.dtype == torch.bfloat16 else tensor.numpy()
    ).copy()


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(3)
    shapes = {"a.weight": (5, 7), "b": (64,), "scalar": (), "conv": (3, 2, 4, 4), "one": (1,)}
    types = ["float32", "float16", "bfloat16", "float32", "float16"]
    return {
        name: torch.randn(shape, generator=generator).to(TORCH[dtype])
        for (name, shape), dtype in zip(shapes.items(), types, strict=True)
    }


def as_entries(tensors):
    names = {dtype: name for name, dtype in TORCH.items()}
    return {
        name: Entry(tuple(tensor.shape), names[tensor.dtype], lambda tensor=tensor: bits(tensor))
        for name, tensor in tensors.items()
    }


def assert_same(weights, tensors):
    assert set(weights) == set(tensors)
    for name, tensor in tensors.items():
        entry = weights[name]
        entry.check()
        assert entry.shape == tuple(tensor.shape)
        assert TORCH[entry.dtype] == tensor.dtype
        assert entry.read().tobytes() == bits(tensor).tobytes()
        assert entry.read().ctypes.data % 16 == 0


def test_reads_what_the_libraries_write(tensors, tmp_path):
    save_file(tensors, tmp_path / "t.safetensors", metadata={"format": "pt"})
    torch.save(tensors, tmp_path / "t.bin")
    parameters = [
        {"name": name, "data": ms.Tensor(bits(t.float())).astype(getattr(ms, str(t.dtype)[6:]))}
        for name, t in tensors.items()
    ]
    ms.save_checkpoint(parameters, str(tmp_path / "t.ckpt"))
    for name in ("t.safetensors", "t.bin", "t.ckpt"):
        assert_same(open_weights(tmp_path / name), tensors)
    assert open_weights(tmp_path / "t.safetensors").metadata == {"format": "pt"}


def test_the_libraries_read_what_is_written(tensors, tmp_path):
    for suffix in (".safetensors", ".bin", ".ckpt"):
        path = tmp_path / f"ours{suffix}"
        save_weights(path, as_entries(tensors), {"note": "kept"})
        assert_same(open_weights(path), tensors)
    for theirs in (
        load_file(tmp_path / "ours.safetensors"),
        torch.load(tmp_path / "ours.bin", weights_only=True),
        torch.load(tmp_path / "ours.bin", weights_only=True, mmap=True),
    ):
        assert theirs.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert theirs[name].dtype == tensor.dtype and theirs[name].shape == tensor.shape
            assert torch.equal(theirs[name], tensor)
    for path, kind in (("ours.ckpt", "ckpt"), ("ours.safetensors", "safetensors")):
        loaded = ms.load_checkpoint(str(tmp_path / path), format=kind)
        for name, tensor in tensors.items():
            assert loaded[name].shape == tuple(tensor.shape)
            assert loaded[name].asnumpy().tobytes() == bits(tensor).tobytes()


def test_tensors_start_at_multiples_of_64_bytes_so_that_no_copy_is_needed(tensors, tmp_path):
    tensors = {name: tensor for name, tensor in tensors.items() if tensor.nbytes % 64 == 0}
    assert tensors
    for suffix in (".safetensors", ".ckpt", ".bin"):
        path = tmp_path / f"ours{suffix}"
        save_weights(path, as_entries(tensors))
        for entry in open_weights(path).values():
            assert entry.read().ctypes.data % 64 == 0
            assert np.shares_memory(entry.read(), entry.read())  # both are the mapped file


def test_large_tensors_are_written_and_read_in_slices(tensors, tmp_path, monkeypatch):
    monkeypatch.setattr(mindspore_file, "_SLICE", 48)
    save_weights(tmp_path / "ours.ckpt", as_entries(tensors))
    assert_same(open_weights(tmp_path / "ours.ckpt"), tensors)
    loaded = ms.load_checkpoint(str(tmp_path / "ours.ckpt"))
    np.testing.assert_array_equal(loaded["conv"].asnumpy(), tensors["conv"].numpy())


def test_mindspore_checksum_is_checked(tmp_path):
    path = tmp_path / "t.ckpt"
    ms.save_checkpoint([{"name": "a", "data": ms.Tensor(np.ones(8, np.float32))}], str(path), crc_check=True)
    assert open_weights(path)["a"].shape == (8,)
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    with pytest.raises(InputError, match="checksum"):
        open_weights(path)


def test_torch_views_and_parameters(tmp_path):
    base = torch.arange(48, dtype=torch.float32).reshape(2, 3, 2, 4)
    saved = {
        "channels_last": base.to(memory_format=torch.channels_last),
        "transposed": base.reshape(6, 8).t(),
        "slice": base.reshape(6, 8)[2:4, 1:5],
        "parameter": torch.nn.Parameter(base),
    }
    torch.save(saved, tmp_path / "t.pt")
    weights = open_weights(tmp_path / "t.pt")
    for name, tensor in saved.items():
        np.testing.assert_array_equal(weights[name].read(), tensor.detach().numpy())


def test_torch_checksums_are_checked_unless_absent(tensors, tmp_path):
    try:
        torch.serialization.set_crc32_options(False)
        torch.save(tensors, tmp_path / "unchecked.bin")
    finally:
        torch.serialization.set_crc32_options(True)
    assert_same(open_weights(tmp_path / "unchecked.bin"), tensors)
    path = tmp_path / "t.bin"
    torch.save(tensors, path)
    data = path.read_bytes()
    value = bits(tensors["b"]).tobytes()
    path.write_bytes(data.replace(value, value[:-1] + bytes([value[-1] ^ 1])))
    with pytest.raises(InputError, match="b does not match its checksum"):
        open_weights(path)["b"].check()


def test_legacy_torch_file_is_refused_with_the_mend(tensors, tmp_path):
    torch.save(tensors, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match="re-save"):
        open_weights(tmp_path / "old.pt")


def test_reading_is_lazy_and_writing_to_an_array_changes_no_file(tensors, tmp_path):
    save_file(tensors, tmp_path / "t.safetensors")
    before = (tmp_path / "t.safetensors").read_bytes()
    weights = open_weights(tmp_path / "t.safetensors")
    array = weights["conv"].read()
    array[...] = 7
    assert (tmp_path / "t.safetensors").read_bytes() == before


@pytest.mark.parametrize("source", list(TORCH))
@pytest.mark.parametrize("target", list(TORCH))
def test_casts_equal_torch(source, target):
    values = torch.randn(100_000, generator=torch.Generator().manual_seed(1)) * torch.logspace(-42, 4, 100_000)
    special = torch.tensor([0.0, -0.0, float("inf"), -float("inf"), 65504.0, 65519.0, 65520.0, 1e-45, 3.4e38])
    values = torch.cat([values, special]).to(TORCH[source])
    ours = cast(bits(values), source, target)
    assert ours.dtype == DTYPES[target].storage
    np.testing.assert_array_equal(ours, bits(values.to(TORCH[target])))
    assert count_nonfinite(ours, target) == int((~torch.isfinite(values.to(TORCH[target]))).sum())


@pytest.mark.parametrize("dtype", list(TORCH))
def test_nonfinite_values_are_counted(dtype):
    values = torch.full((3, 1000), 3e38 if dtype != "float16" else 6e4)  # finite, though their sum is not
    assert count_nonfinite(bits(values.to(TORCH[dtype])), dtype) == 0
    values[1, 5], values[2, 7], values[0, 0] = float("nan"), float("inf"), -float("inf")
    assert count_nonfinite(bits(values.to(TORCH[dtype])), dtype) == 3


@pytest.mark.parametrize("old, new", [((3, 3), (5, 5)), ((16, 16), (7, 7)), ((4, 4), (9, 2)), ((5, 5), (5, 6))])
def test_position_resizing_equals_open_clip(old, new):
    embedding = torch.randn(old[0] * old[1] + 1, 11, generator=torch.Generator().manual_seed(0))
    state = {"visual.positional_embedding": embedding.clone()}
    open_clip.model.resize_pos_embed(state, SimpleNamespace(visual=SimpleNamespace(grid_size=new)))
    want = state["visual.positional_embedding"].numpy()
    got = resize_positions(embedding.numpy(), old, new)
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 1e-6 * np.abs(want).max()


def test_folders(tensors, tmp_path):
    with pytest.raises(InputError, match="no weights in this folder"):
        open_weights(tmp_path)
    save_weights(tmp_path / "mine.ckpt", as_entries(tensors))
    assert_same(open_weights(tmp_path), tensors)
    save_weights(tmp_path / "yours.bin", as_entries(tensors))
    with pytest.raises(InputError, match="2 weights files in this folder"):
        open_weights(tmp_path)
    save_weights(tmp_path / "open_clip_model.safetensors", as_entries(tensors))
    assert open_weights(tmp_path).path.name == "open_clip_model.safetensors"
    with pytest.raises(InputError, match="no such file"):
        open_weights(tmp_path / "absent.bin")
