"""A torch checkpoint is judged by the weights that are taken: what lies beside is never run and stops nothing."""

import argparse
import collections
import dataclasses
import datetime
import enum
import functools
import io
import os
import pathlib
import random
import re
import struct
import uuid
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler

from mindone_coca.errors import InputError
from mindone_coca.weights.formats.pickle_reader import read_pickle
from tests.reference import torch
from tests.weights.common import STATE, assert_equal
from tests.weights.raw_formats import Call, zip_archive, zip_members


class Phase(enum.Enum):
    WARMUP = 1


@dataclasses.dataclass
class Settings:
    lr: float = 1e-3
    tags: tuple = ("a", {"b": np.int64(3)})


class Attributes(dict):
    """A dict with attributes, as Lightning keeps hyperparameters."""

    __getattr__ = dict.__getitem__


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self):
        self.a, self.b = 1, np.ones(2)


class Keyworded:
    """Pickles with keyword arguments (NEWOBJ_EX, from protocol 4 on)."""

    def __new__(cls, *, size=1):
        return super().__new__(cls)

    def __getnewargs_ex__(self):
        return (), {"size": 3}


def schedule() -> CosineLRScheduler:
    return CosineLRScheduler(create_optimizer_v2([torch.nn.Parameter(torch.ones(2))], opt="lamb"), t_initial=10)


def cycle() -> list:
    items: list = []
    items.append(items)
    return items


OTHERS = {
    "numpy scalars": lambda: [np.float64(1e-3), np.float32(2), np.int64(3), np.bool_(True), np.str_("a")],
    "numpy arrays": lambda: {"a": np.ones((2, 3)), "structured": np.zeros(2, [("x", "<f4")]), "o": np.array([None])},
    "numpy dtypes": lambda: [np.dtype("float32"), np.dtype("U5"), np.float32],
    "numpy masked and matrix": lambda: [np.ma.array([1.0, 2.0], mask=[0, 1]), np.datetime64("2024-01-01")],
    "numpy rng": lambda: [np.random.get_state(), np.random.default_rng(0), np.random.RandomState(1)],
    "python rng": random.getstate,
    "torch rng": lambda: {"cpu": torch.get_rng_state(), "cuda": [torch.get_rng_state()], "g": torch.Generator()},
    "namespace": lambda: argparse.Namespace(lr=np.float64(1), path=pathlib.Path("/x"), other=argparse.Namespace()),
    "paths": lambda: [pathlib.PurePosixPath("/a/b"), pathlib.PureWindowsPath("c:\\a"), pathlib.Path(".")],
    "sets": lambda: {"s": {1, 2}, "f": frozenset({"a"}), "nested": [{(1, 2), (3, 4)}], "empty": set()},
    "dates": lambda: [datetime.datetime.now(datetime.timezone.utc), datetime.timedelta(1), datetime.date.today()],
    "collections": lambda: [
        collections.defaultdict(list, a=[1]),
        collections.Counter("aab"),
        collections.deque([1, 2], maxlen=3),
        collections.OrderedDict(a=1),
        collections.defaultdict(functools.partial(dict, a=1)),
    ],
    "torch values": lambda: [
        torch.float32,
        torch.bfloat16,
        torch.device("cuda:0"),
        torch.Size([1, 2, 3]),
        torch.Size([1] * 9),
        torch.per_tensor_affine,
    ],
    "partial and functions": lambda: [
        functools.partial(torch.nn.GELU, approximate="tanh"),
        torch.nn.functional.gelu,
        len,
    ],
    "enum and dataclass": lambda: [Phase.WARMUP, Settings(), {Phase.WARMUP: Settings()}],
    "objects": lambda: [Slotted(), Keyworded(), Attributes(a=Attributes(b=np.ones(2))), object(), ValueError("x")],
    "numbers": lambda: [
        Decimal("1.5"),
        Fraction(1, 3),
        1 + 2j,
        2**70,
        -(2**3000),
        uuid.UUID(int=5),
        b"bytes",
        bytearray(b"a"),
    ],
    "odd keys": lambda: {
        (0, "exp_avg"): 1,
        np.int64(3): 2,
        None: 3,
        frozenset({1}): 4,
        2.5: 5,
        b"k": 6,
        (): 7,
        2**61 - 1: 8,
    },
    "modules": lambda: torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)),
    "optimizers and schedulers": lambda: [schedule(), schedule().state_dict(), torch.optim.SGD([torch.ones(2)], 0.1)],
    "tensors of other types": lambda: [
        torch.ones(2, dtype=torch.complex64),
        torch.ones(2).to(torch.float8_e4m3fn),
        torch.ones(2, dtype=torch.uint16),
        torch.eye(3).to_sparse(),
        torch.ones(2, device="meta"),
        torch.ones(2).untyped_storage(),
        torch.nested.nested_tensor([torch.ones(2)]),
        torch.complex(torch.ones(2), torch.ones(2)).conj().imag,
    ],
    "quantized tensors": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
    "slices and ranges": lambda: [slice(1, 2), range(3), type(None), type, NotImplemented, ...],
    "regular expressions": lambda: [re.compile("a+"), io.BytesIO(b"a"), os.stat(".")],
    "cycles": cycle,
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.filterwarnings("ignore")
def test_anything_may_lie_beside_the_state_dict(kind, protocol, tmp_path):
    other = OTHERS[kind]()
    whole = {"epoch": other, "deep": {"list": [other, (other,)]}, "state_dict": STATE, "last": {"again": other}}
    torch.save(whole, tmp_path / "epoch.pt", pickle_protocol=protocol)
    assert_equal(tmp_path / "epoch.pt", STATE)


def test_the_converter_takes_such_a_checkpoint(model, convert, tmp_path):
    plain = dict(model.state_dict())
    rest = {name: make() for name, make in OTHERS.items() if "numpy" in name or name in ("namespace", "paths", "sets")}
    torch.save({**rest, "optimizer": {"lr": np.float64(1e-3)}, "state_dict": plain}, tmp_path / "epoch_1.pt")
    assert convert("--source", tmp_path / "epoch_1.pt", "--reverse", "--target", tmp_path / "out.bin") == 0
    written = torch.load(tmp_path / "out.bin", weights_only=True)
    assert all(torch.equal(written[name], tensor) for name, tensor in plain.items())


def raw_checkpoint(path, rest: bytes):
    """A checkpoint {"rest": REST, "state_dict": STATE}, REST being instructions that push one value."""
    torch.save({"state_dict": STATE}, path)
    members = zip_members(path.read_bytes())
    made = []
    for name, data in members:
        if name.endswith("data.pkl"):
            assert data[:3] == b"\x80\x02}"
            data = data[:3] + b"X\x04\x00\x00\x00rest" + rest + b"s" + data[3:]
        made.append((name, data))
    path.write_bytes(zip_archive(made))


RAW = {
    "INST": b"(K\x01ios\nsystem\n",
    "OBJ": b"(cos\nsystem\nU\x04trueo",
    "REDUCE": b"cos\nsystem\nU\x04true\x85R",
    "NEWOBJ": b"csubprocess\nPopen\nU\x04true\x85\x81",
    "NEWOBJ_EX": b"csubprocess\nPopen\n)}U\x04argsU\x04trues\x92",
    "EXT": b"]\x82\x01a\x83\x01\x02a\x84\x01\x02\x03\x04a",
    "PERSID": b"P17\n",
    "BINPERSID": b"K\x11Q",
    "persistent tuple": b"(U\x05otherK\x01K\x02K\x03K\x04tQ",
    "BUILD with slots": b"cfoo\nBar\n)\x81N}K\x01K\x02s\x86b",
    "BUILD on a class": b"cfoo\nBar\n)\x81}U\x09__class__cos\nsystem\nsb",
    "call of a call": b"cbuiltins\ngetattr\ncos\nos\nU\x06system\x86RU\x04true\x85R",
    "set": b"\x8f(K\x01K\x02\x90",
    "frozenset": b"(K\x01K\x02\x91",
    "text opcodes": b"(lI01\naL5L\naF1.5\naS'a'\naVb\naI7\na",
    "DICT": b"(K\x01(K\x02ldK\x03K\x04s",
    "POP and DUP": b"K\x01K\x020(K\x07K\x0812\x86",
    "PUT and GET": b"]p99\ng99\na",
    "bytes": b"]C\x01aaB\x01\x00\x00\x00aa\x96\x01\x00\x00\x00\x00\x00\x00\x00aa\x8e\x01\x00\x00\x00\x00\x00\x00\x00aa",
    "buffers": b"\x97\x98",
    "LONG4": b"\x8b\x04\x00\x00\x00\x01\x02\x03\x04",
    "STACK_GLOBAL": b"\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R",
    "tensor without storage": b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x02K\x03K\x04tR",
    "too few arguments": b"ctorch._utils\n_rebuild_tensor_v2\n)R",
    "too many arguments": b"ctorch\nSize\n(" + b"K\x01" * 30 + b"tR",
    "nested rebuilding": b"ctorch._tensor\n_rebuild_from_type_v2\nq\x99"
    + b"(h\x99N" * 5000
    + b"N"
    + b"Nt" * 5000
    + b"R",
    "odd OrderedDict": b"ccollections\nOrderedDict\n(K\x01K\x02l\x85R",
    "unhashable key": b"}]K\x01s",
}


@pytest.mark.parametrize("kind", RAW)
def test_every_instruction_is_inert_beside_the_weights(kind, tmp_path):
    raw_checkpoint(tmp_path / "raw.pt", RAW[kind])
    assert_equal(tmp_path / "raw.pt", STATE)


def test_hostile_calls_beside_the_weights_do_not_run(tmp_path):
    marker = tmp_path / "RAN"
    calls = [
        Call(os.system, f"touch {marker}"),
        Call(open, str(marker), "w"),
        Call(eval, f"open({str(marker)!r}, 'w')"),
    ]
    for protocol in (2, 4):
        torch.save({"a": calls, "state_dict": STATE, "z": calls[::-1]}, tmp_path / "evil.pt", pickle_protocol=protocol)
        assert_equal(tmp_path / "evil.pt", STATE)
        assert not marker.exists()


def test_a_small_file_cannot_ask_for_much_work():
    """Each of these takes a few kB and, done naively, hours or an endless recursion."""
    pairs = b"](" + b"]K\x01aK\x01a" * 2000 + b"eq\x01"
    again = b"".join(b"ccollections\nOrderedDict\nh\x01\x85Ra" for _ in range(4000))
    with pytest.raises(InputError, match="more instructions"):
        read_pickle(b"\x80\x02" + b"]" + pairs + b"0" + again + b".", "f")
    many = b"(" + b"K\x01" * 1000 + b"tq\x01"
    again = b"".join(b"ctorch\nSize\nh\x01R0" for _ in range(3000))
    assert read_pickle(b"\x80\x02" + many + again + b"0N.", "f") is None
    keys = b"".join(b"\x8a\x09" + struct.pack("<Q", (2**61 - 1) * n % 2**63) + b"\x00K\x01" for n in range(1, 3000))
    assert len(read_pickle(b"\x80\x02}(" + keys + b"u.", "f")) == 2999
    nest = b"\x80\x02)" + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(200))
    assert len(read_pickle(b"\x80\x02}" + nest[2:] + b"K\x01s.", "f")) == 1
