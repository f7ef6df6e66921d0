"""The tensors of a torch checkpoint: every constructor that torch has for them is read, other objects are refused."""

import argparse
import collections
import enum
import os
import pathlib

import numpy as np
import pytest

from mindone_coca.errors import InputError
from mindone_coca.weights.source import open_weights
from tests.reference import torch
from tests.weights.common import STATE, assert_equal
from tests.weights.raw_formats import Call, torch_archive, zip_archive


class Phase(enum.Enum):
    WARMUP = 1


class Attributes(dict):
    """A dict with attributes, as Lightning keeps hyperparameters."""

    __getattr__ = dict.__getitem__


INSIDE = {
    "numpy number": (lambda: np.float64(1), "numpy", "torch.as_tensor"),
    "numpy array": (lambda: np.ones(3), "numpy.ndarray", "torch.as_tensor"),
    "namespace": (argparse.Namespace, "argparse.Namespace", "keep the tensors"),
    "path": (lambda: pathlib.PurePosixPath("/a"), "pathlib", "keep the tensors"),
    "set": (lambda: {1}, "set", "keep the tensors"),
    "dtype": (lambda: torch.float32, "torch.float32", "keep the tensors"),
    "quantized": (lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "quantized", "before quantiz"),
    "sparse": (lambda: torch.eye(3).to_sparse(), "sparse", "plain tensors"),
    "meta": (lambda: torch.ones(2, device="meta"), "meta device", "before saving"),
    "complex": (lambda: torch.ones(2, dtype=torch.complex64), "ComplexFloat", "cast"),
    "float8": (lambda: torch.ones(2).to(torch.float8_e4m3fn), "float8_e4m3fn", "cast"),
    "negation": (lambda: torch.complex(torch.ones(2), torch.ones(2)).conj().imag, "negation", "resolve_neg"),
    "evil": (lambda: Call(os.system, "true"), "system", "keep the tensors"),
}


@pytest.mark.parametrize("under", ["state_dict", None])
@pytest.mark.parametrize("kind", INSIDE)
@pytest.mark.filterwarnings("ignore")
def test_inside_the_weights_it_is_refused_with_the_fix(kind, under, tmp_path):
    make, said, fix = INSIDE[kind]
    odd = {**STATE, "odd.entry": make()}
    torch.save({"state_dict": odd} if under else odd, tmp_path / "odd.pt")
    with pytest.raises(InputError) as caught:
        open_weights(tmp_path / "odd.pt")
    message = str(caught.value)
    assert "\n" not in message and message.startswith(f"{tmp_path / 'odd.pt'}: refused: 'odd.entry' in ")
    assert said in message and fix in message


def test_a_state_dict_of_arrays_is_named(tmp_path):
    torch.save({"epoch": 1, "model": {"visual.proj": np.ones((2, 3))}}, tmp_path / "arrays.pt")
    with pytest.raises(InputError, match=r"'visual\.proj' in 'model' is made with 'numpy\.ndarray'.*as_tensor"):
        open_weights(tmp_path / "arrays.pt")


def test_plain_data_inside_the_weights_is_left_out_with_a_note(tmp_path):
    torch.save({"state_dict": {**STATE, "epoch": 3, "names": ["a"], "_extra_state": None}}, tmp_path / "t.pt")
    assert_equal(tmp_path / "t.pt", STATE)
    assert (
        "3 entries that are no tensors left out (epoch, names, _extra_state)" in open_weights(tmp_path / "t.pt").notes
    )


class Rebuilt:
    """Pickles as a call of a function that rebuilds a tensor, with the arguments given."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class Marked(torch.Tensor):
    """A subclass with an attribute; its numbers are those of its storage."""


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_all_of_torchs_own_constructors_are_read(tmp_path):
    tensor = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    with_attribute = torch.nn.Parameter(tensor.clone())
    with_attribute.tag = Phase.WARMUP  # _rebuild_parameter_with_state
    subclass = tensor.clone().as_subclass(Marked)
    subclass.note = "mine"  # _rebuild_from_type_v2
    attributed = tensor.clone()
    attributed.owner = {"a": np.float64(1)}  # the same, of a plain tensor
    v3 = (tensor.clone().untyped_storage(), 4, (2, 4), (4, 1), False, collections.OrderedDict(), torch.float32)
    bfloat16 = tensor.bfloat16()
    saved = {
        "with_attribute": with_attribute,
        "subclass": subclass,
        "attributed": attributed,
        "v3": Rebuilt(torch._utils._rebuild_tensor_v3, *v3),
        "v3_bfloat16": Rebuilt(
            torch._utils._rebuild_tensor_v3, bfloat16.untyped_storage(), 0, (3, 4), (4, 1), True, None, torch.bfloat16
        ),
        "v1": Rebuilt(torch._utils._rebuild_tensor, tensor.clone().storage(), 1, (2,), (1,)),
        "constructed": Rebuilt(torch.nn.Parameter, tensor, False),
        "buffer": torch.nn.Buffer(tensor),
    }
    want = {**dict.fromkeys(saved, tensor), "v3": tensor[1:], "v3_bfloat16": bfloat16, "v1": tensor.reshape(-1)[1:3]}
    for protocol in (2, 4, 5):
        torch.save({"state_dict": saved}, tmp_path / "t.pt", pickle_protocol=protocol)
        weights = open_weights(tmp_path / "t.pt")
        assert list(weights) == list(saved)
        for name, tensor in want.items():
            assert weights[name].dtype == str(tensor.dtype)[6:]
            got = weights[name].read()
            bits = tensor.view(torch.uint16).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()
            np.testing.assert_array_equal(got, bits)


def npu_pickle(size: int, offset: int, shape: tuple, strides: tuple, layout: bytes) -> bytes:
    """{"w": a tensor} as Ascend's torch pickles it."""

    def integers(values):
        return b"(" + b"".join(b"K" + bytes([value]) for value in values) + b"t"

    storage = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x05npu:0K" + bytes([size]) + b"tQ"
    return (
        b"\x80\x02}U\x01wctorch_npu.utils.storage\n_rebuild_npu_tensor\n("
        + storage
        + b"K"
        + bytes([offset])
        + integers(shape)
        + integers(strides)
        + b"\x89ccollections\nOrderedDict\n)R"
        + layout
        + b"tRs."
    )


@pytest.mark.parametrize(
    "layout", [b"K\x02", b"K\x1d", b"\x88", b"J\xff\xff\xff\xff", b"ctorch_npu.npu\nFormat\nK\x02\x85R"]
)
def test_tensors_of_ascends_torch_are_read(layout, tmp_path):
    numbers = np.arange(16, dtype=np.float32)
    for offset, shape, strides in ((0, (4, 4), (4, 1)), (4, (3, 4), (4, 1)), (1, (2, 3), (1, 4))):
        pickled = npu_pickle(16, offset, shape, strides, layout)
        members = [("a/data.pkl", pickled), ("a/data/0", numbers.tobytes()), ("a/version", b"3\n")]
        (tmp_path / "npu.pt").write_bytes(zip_archive(members))
        want = np.lib.stride_tricks.as_strided(numbers[offset:], shape, [4 * stride for stride in strides])
        np.testing.assert_array_equal(open_weights(tmp_path / "npu.pt")["w"].read(), want)


def test_a_parameter_of_ascends_torch_is_read(tmp_path):
    tensor = npu_pickle(16, 0, (4, 4), (4, 1), b"K\x02")
    start, end = tensor.index(b"ctorch_npu"), tensor.rindex(b"s.")
    wrapped = b"ctorch._utils\n_rebuild_parameter\n(" + tensor[start:end] + b"\x88ccollections\nOrderedDict\n)RtR"
    (tmp_path / "npu.pt").write_bytes(torch_archive(tensor[:start] + wrapped + b"s."))
    assert open_weights(tmp_path / "npu.pt")["w"].shape == (4, 4)


def test_dict_like_objects_hold_a_state_dict_as_well(tmp_path):
    for made in (collections.defaultdict(int, STATE), Attributes(STATE), collections.OrderedDict(STATE)):
        torch.save({"state_dict": made}, tmp_path / "t.pt")
        assert_equal(tmp_path / "t.pt", STATE)
