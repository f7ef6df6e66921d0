"""Damaged and hostile pickles in torch's archives, by a seed; a part of the fuzzer."""

import io
import os
import pickle
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from tests.weights.raw_formats import Call, torch_archive, zip_archive

MARKER = "FUZZED_CODE_RAN"


class PickleFuzzer:
    """The kinds of damage that are in a pickle. A subclass sets `state` and `folder`."""

    state: dict[str, torch.Tensor]
    folder: Path

    def kind_pickle_runs_code(self, rng):
        import builtins
        import subprocess

        marker = str(self.folder / MARKER)
        touch = f"touch {marker}".encode()
        script = f"open({marker!r}, 'w').close()"
        evil = rng.choice(
            [
                Call(os.system, f"touch {marker}"),
                Call(builtins.eval, script),
                Call(builtins.exec, script),
                Call(subprocess.check_call, ["touch", marker]),
                Call(open, marker, "w"),
                Call(torch.load, marker),
                Call(getattr, "os", "system"),
                Call(np.save, marker, np.zeros(1)),
            ]
        )
        tree = rng.choice([evil, [evil], {"state_dict": {"a": evil}}, {"epoch": evil}, (1, (2, evil))])
        pickled = rng.choice(
            [
                pickle.dumps(tree, protocol=rng.randrange(6)),
                f"cos\nsystem\n(S'touch {marker}'\ntR.".encode(),
                f"(S'touch {marker}'\nios\nsystem\n.".encode(),
                f"(cos\nsystem\nS'touch {marker}'\no.".encode(),
                b"\x80\x02cbuiltins\nexec\n" + b"X" + struct.pack("<I", len(script)) + script.encode() + b"\x85R.",
                b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c" + bytes([len(touch)]) + touch + b"\x85R.",
                b"\x80\x02ctorch\nFloatStorage\n)\x81.",
                b"\x80\x02\x82\x01.",
                b"\x80\x02ccollections\nOrderedDict\n)R}X\x07\x00\x00\x00__class\x8c\x01as\x62" + b"Q.",
            ]
        )
        return rng.choice([(".bin", torch_archive(pickled)), (".pt", pickled), (".pth", torch_archive(pickled))])

    def kind_pickle_bomb(self, rng):
        nest = b"\x80\x02)" + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(200))
        bombs = [
            b"\x80\x02}" + nest[2:] + b"K\x01s.",  # hashing this key takes 2**200 steps
            nest + b".",
            b"\x80\x02Nr\xff\xff\xff\x7f.",  # memo slot 2**31
            b"\x80\x04\x8e" + struct.pack("<Q", 2**50) + b"x.",
            b"\x80\x05\x96" + struct.pack("<Q", 2**50) + b"x.",
            b"\x80\x04\x95" + struct.pack("<Q", 2**63) + b"N.",
            b"\x80\x02" + b"]" * 1_100_000 + b".",
            b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b".",
            b"\x80\x02X" + struct.pack("<I", 2**32 - 1) + b"x.",
            b"I" + b"9" * 100_000 + b"\n.",
            b"\x80\x02\x8b" + struct.pack("<I", 2**31 - 1) + b"x.",
            b"\x80\x02.",
            b"",
            b"t.",
            b"h\x05.",
            b"e.",
            b"\x80\x02}b.",
            b"\x80\x02K\x01Q.",
            b"\x80\x02NR.",
        ]
        return ".bin", torch_archive(rng.choice(bombs))

    def kind_repeated_views(self, rng):
        """Tensors that claim far more numbers than the 16 that are stored."""
        views = dict.fromkeys(self.state, (16, (4,), (1,)))
        for name in rng.sample(list(self.state), 3):
            views[name] = (16, (rng.choice([17, 2**20, 2**40, 2**60]),), (0,))
        return ".bin", self._pickled_views(views)

    def kind_views_outside(self, rng):
        views = dict.fromkeys(self.state, (16, (16,), (1,)))
        views[rng.choice(list(views))] = rng.choice(
            [
                (16, (4,), (2**40,)),
                (16, (5,), (4,)),
                (17, (4,), (1,)),
                (2**40, (4,), (1,)),
                (16, (-4,), (1,)),
                (16, (4, 4), (1,)),
                (16, (4,), (-1,)),
                (16, (2**62, 4), (1, 1)),
                (16, (2, 8), (9, 1)),
            ]
        )
        return ".bin", self._pickled_views(views)

    def _pickled_views(self, views: dict) -> bytes:
        def integer(value: int) -> bytes:
            return pickle.dumps(value, protocol=2)[2:-1]

        def text(value: str) -> bytes:
            return b"X" + struct.pack("<I", len(value)) + value.encode()

        out = b"\x80\x02}"
        for name, (size, shape, strides) in views.items():
            storage = (
                b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + integer(size) + b"tQ"
            )
            sizes = b"".join(b"(" + b"".join(map(integer, values)) + b"t" for values in (shape, strides))
            tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + integer(0) + sizes
            out += text(name) + tensor + b"\x89ccollections\nOrderedDict\n)RtRs"
        return zip_archive([("a/data.pkl", out + b"."), ("a/data/0", bytes(64)), ("a/version", b"3\n")])

    def kind_objects_among_tensors(self, rng):
        """One entry of the state dict, or a part of its tensor, is some object."""
        name = rng.choice(list(self.state))
        tensor = self.state[name]
        rebuild = (torch._utils._rebuild_tensor_v2, tensor.untyped_storage(), 0, tensor.shape, tensor.stride(), False)
        odd = rng.choice(
            [
                tensor.numpy(),
                np.float64(1),
                {1, 2},
                torch.float32,
                Fraction(1, 3),
                tensor.to_sparse(),
                tensor.half().cfloat(),
                torch.empty_like(tensor, device="meta"),
                Call(dict, tensor),
                Call(torch.nn.Parameter, np.ones(2)),
                Call(torch.Size, [-1]),
                Call(torch._utils._rebuild_tensor_v2),
                Call(*rebuild, np.float64(1)),
                Call(*rebuild, {"a": 1}),
                Call(*rebuild, None, {"neg": True}),
                Call(*rebuild[:3], np.int64(1), (1,), False, None),
                Call(torch._tensor._rebuild_from_type_v2, os.system, torch.Tensor, ("true",), None),
            ]
        )
        state = {**self.state, name: odd}
        whole = rng.choice([state, {"state_dict": state}, {"model": {"module": state}}])
        buffer = io.BytesIO()
        torch.save(whole, buffer, pickle_protocol=rng.randrange(2, 6))
        return rng.choice([".bin", ".pt", ".ckpt", ".pth.tar"]), buffer.getvalue()

    def kind_no_state_dict(self, rng):
        """Whole checkpoints whose tensors are in a place that must be named, and trees that take long to search."""
        shared = {"_parameters": self.state, "_modules": {}}
        bare = torch.nn.Module()
        bare.__dict__.update(shared)
        deep: object = self.state
        for _ in range(300):
            deep = {"a": deep, "b": deep}
        whole = rng.choice(
            [
                {"net": self.state},
                {"net": {"inner": self.state}},
                [self.state],
                (1, (2, self.state)),
                bare,
                {"model": bare, "other": [bare] * 1000},
                deep,
                {"x" * 500_000: [dict(self.state) for _ in range(50)]},
                [[self.state] * 300] * 300,
                {"a": [{} for _ in range(20_000)]},
                self.state["text.token_embedding.weight"],
            ]
        )
        buffer = io.BytesIO()
        torch.save(whole, buffer)
        return rng.choice([".bin", ".pt", ".ckpt", ".pth.tar"]), buffer.getvalue()
