"""Makes damaged and hostile weights files out of valid ones, by a seed. Nothing here runs what it writes."""

import io
import json
import pickle
import random
import struct
import zipfile
from pathlib import Path

import torch

from tests.weights.fuzzer_pickles import PickleFuzzer
from tests.weights.raw_formats import ckpt_value, flip_bit, varint, zip_archive, zip_members


class Fuzzer(PickleFuzzer):
    """Damaged files from one valid state dict (torch tensors, float32), each named by the kind of damage.

    `make(number)` writes file `number` into `folder` and returns (kind, path to convert). Every file must be refused.
    """

    def __init__(self, state: dict[str, torch.Tensor], folder: Path):
        from safetensors.torch import save

        self.state = state
        self.folder = folder
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self.bin = buffer.getvalue()
        self.safetensors = save(state)
        self.ckpt_values = [
            ckpt_value(name.encode(), list(tensor.shape), b"Float32", tensor.numpy().tobytes())
            for name, tensor in state.items()
        ]
        self.ckpt = b"".join(self.ckpt_values)
        self.kinds = [getattr(self, name) for name in sorted(dir(self)) if name.startswith("kind_")]

    def make(self, number: int) -> tuple[str, Path]:
        rng = random.Random(f"weights {number}")
        kind = self.kinds[number % len(self.kinds)]
        made = kind(rng)
        if isinstance(made, Path):
            return kind.__name__, made
        suffix, data = made
        path = self.folder / f"{kind.__name__}{suffix}"
        path.write_bytes(data)
        return kind.__name__, path

    def _any(self, rng: random.Random) -> tuple[str, bytes]:
        return rng.choice([(".bin", self.bin), (".safetensors", self.safetensors), (".ckpt", self.ckpt)])

    def _save(self, rng: random.Random, state: dict) -> tuple[str, bytes]:
        """A changed state dict in one of the formats."""
        from safetensors.torch import save

        suffix = rng.choice([".bin", ".pt", ".pth", ".safetensors"])
        if suffix == ".safetensors":
            return suffix, save(state)
        buffer = io.BytesIO()
        torch.save(state if rng.random() < 0.5 else {"epoch": 1, "state_dict": state}, buffer)
        return suffix, buffer.getvalue()

    # damage to bytes

    def kind_truncated(self, rng):
        suffix, data = self._any(rng)
        if suffix == ".ckpt":  # a protobuf stream cut between two values is a shorter valid stream, without some names
            return suffix, data[: rng.randrange(1, len(data))]
        return suffix, data[: rng.randrange(len(data))]

    def kind_extended(self, rng):
        suffix, data = self._any(rng)
        return suffix, data + rng.randbytes(rng.randrange(23, 400)) if suffix != ".bin" else rng.randbytes(9) + data

    def kind_random_bytes(self, rng):
        suffix, data = self._any(rng)
        head = data[: rng.choice([0, 4, 8, 64])]
        return suffix, head + rng.randbytes(rng.randrange(1, 5000))

    def kind_flipped_safetensors_header(self, rng):
        length = int.from_bytes(self.safetensors[:8], "little")
        data = self.safetensors
        for _ in range(rng.randrange(1, 4)):
            data = flip_bit(data, rng.randrange(8 + length), rng.randrange(8))
        return ".safetensors", data if data != self.safetensors else data[:-1]

    def kind_flipped_pickle(self, rng):
        start = self.bin.index(b"\x80\x02}")
        end = self.bin.index(b"PK", start)
        with zipfile.ZipFile(io.BytesIO(self.bin)) as archive:
            size = next(member.file_size for member in archive.infolist() if member.filename.endswith("data.pkl"))
        return ".bin", flip_bit(self.bin, rng.randrange(start, min(end, start + size)), rng.randrange(8))

    def kind_flipped_pickle_with_right_checksum(self, rng):
        members = zip_members(self.bin)
        name, pickled = next(member for member in members if member[0].endswith("data.pkl"))
        # A flip in the name of a memo slot or of the device "cpu" may mean nothing, one in these bytes does.
        spots = [
            i
            for word in (b"storage", b"torch._utils", b"FloatStorage", b"OrderedDict", b"text.token_embedding")
            for i in range(pickled.index(word), pickled.index(word) + len(word))
        ]
        broken = flip_bit(pickled, rng.choice(spots), rng.randrange(8))
        return ".bin", zip_archive([(n, broken if n == name else data) for n, data in members])

    def kind_flipped_zip_directory(self, rng):
        data = bytearray(self.bin)
        entries = []
        position = 0
        while (position := self.bin.find(b"PK\x01\x02", position)) >= 0:
            length = struct.unpack("<H", self.bin[position + 28 : position + 30])[0]
            if b"/data" in self.bin[position + 46 : position + 46 + length]:
                entries.append(position)
            position += 4
        entry = rng.choice(entries)
        # signature, method, checksum, sizes, offset of the local header
        field = rng.choice([*range(4), 10, 11, *range(16, 28), *range(42, 46)])
        data[entry + field] ^= 1 << rng.randrange(8)
        return ".bin", bytes(data)

    def kind_flipped_tensor_bytes(self, rng):
        tensor = rng.choice([t for t in self.state.values() if t.numel() > 8]).numpy().tobytes()
        return ".bin", flip_bit(self.bin, self.bin.index(tensor) + rng.randrange(len(tensor)), rng.randrange(8))

    def kind_flipped_ckpt_header(self, rng):
        index = rng.randrange(len(self.ckpt_values))
        value, tensor = self.ckpt_values[index], list(self.state.values())[index]
        header = len(value) - tensor.numel() * 4
        values = [*self.ckpt_values]
        values[index] = flip_bit(value, rng.randrange(header), rng.randrange(8))
        return ".ckpt", b"".join(values)

    # wrong lengths and names

    def kind_header_length(self, rng):
        length = rng.choice([0, 1, 2**63, 2**64 - 1, len(self.safetensors), 100 << 20, rng.getrandbits(64)])
        return ".safetensors", length.to_bytes(8, "little") + self.safetensors[8:]

    def _header(self) -> tuple[dict, bytes]:
        length = int.from_bytes(self.safetensors[:8], "little")
        return json.loads(self.safetensors[8 : 8 + length]), self.safetensors[8 + length :]

    def _with_header(self, text: str | bytes, data: bytes) -> tuple[str, bytes]:
        raw = text.encode() if isinstance(text, str) else text
        return ".safetensors", len(raw).to_bytes(8, "little") + raw + data

    def kind_header_values(self, rng):
        header, data = self._header()
        name = rng.choice(list(header))
        key = rng.choice(["shape", "data_offsets", "dtype"])
        bad = {
            "shape": [[2**62, 2**62], [-1], [1.5], ["4"], [True], [1] * 50, None, {}],
            "data_offsets": [[0, 2**62], [-4, 0], [0], [4, 0], [0, 4, 8], "0", [0.0, 4.0], None],
            "dtype": ["F8_E4M3", "C64", "", None, 3, "f32", ["F32"], "X" * 10_000],
        }
        header[name][key] = rng.choice(bad[key])
        return self._with_header(json.dumps(header), data)

    def kind_header_json(self, rng):
        _, data = self._header()
        texts = [
            "[]",
            "3",
            "null",
            "[" * 100_000,
            '{"a":' * 50_000,
            '{"a": NaN}',
            "{}",
            '{"__metadata__": 3}',
            '{"a": []}',
            b"\xff\xfe",
            '{"__metadata__": {"a": 1}}',
            '{"a": ' + "9" * 6000 + "}",
        ]
        return self._with_header(rng.choice(texts), data)

    def kind_overlapping_tensors(self, rng):
        header, data = self._header()
        names = [name for name in header if header[name]["shape"] == [16]]
        first, second = rng.sample(names, 2)
        header[first]["data_offsets"] = header[second]["data_offsets"]
        return self._with_header(json.dumps(header), data)

    def kind_duplicate_names(self, rng):
        name = rng.choice(list(self.state))
        choice = rng.randrange(4)
        if choice == 0:
            header, data = self._header()
            text = json.dumps(header)[:-1] + f", {json.dumps(name)}: {json.dumps(header[name])}}}"
            return self._with_header(text, data)
        if choice == 1:
            values = [*self.ckpt_values]
            values.insert(rng.randrange(len(values) + 1), values[list(self.state).index(name)])
            return ".ckpt", b"".join(values)
        if choice == 2:
            return self._save(rng, {**self.state, f"module.{name}": self.state[name].clone()})
        members = zip_members(self.bin)
        return ".bin", zip_archive([*members, rng.choice(members)])

    def kind_ckpt_lengths(self, rng):
        name, tensor = rng.choice(list(self.state.items()))
        content = tensor.numpy().tobytes()
        dims = [[2**62], [2**63, 2**63], [0], [1] * 40, [*tensor.shape, 2], [len(content) // 4 + 1]]
        bad = rng.choice(
            [
                ckpt_value(name.encode(), rng.choice(dims), b"Float32", content),
                ckpt_value(name.encode(), list(tensor.shape), b"Float32", content[:-1]),
                ckpt_value(b"n" * 5000, list(tensor.shape), b"Float32", content),
                ckpt_value(b"\xff\xfe", list(tensor.shape), b"Float32", content),
                b"\x0a" + varint(2**40) + content,
                b"\x0a" + b"\xff" * 30,
                b"\x0b\x0c",
                b"\x0a\x00" * 200_000,
            ]
        )
        values = [value for key, value in zip(self.state, self.ckpt_values, strict=True) if key != name]
        values.insert(rng.randrange(len(values)), bad)
        return ".ckpt", b"".join(values)

    def kind_wrong_tensors(self, rng):
        state = dict(self.state)
        optional = ("text.text_projection", "text.cls_emb", "logit_bias")  # a model may do without
        name = rng.choice([name for name in state if name not in optional])
        choice = rng.randrange(4)
        if choice == 0:
            del state[name]
        elif choice == 1:
            state[f"{name}.extra"] = torch.ones(3)
        elif choice == 2:
            state[name] = torch.ones(*state[name].shape, 2)
        else:
            state = {f"encoder.{key}" if key.startswith("text.") else key: value for key, value in state.items()}
        return self._save(rng, state)

    def kind_wrong_dtypes(self, rng):
        types = [torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn, torch.float64]
        dtype = rng.choice(types)
        name = rng.choice(list(self.state))
        suffix, data = self._save(rng, {**self.state, name: self.state[name].to(dtype)})
        return suffix, data

    def kind_nan_weights(self, rng):
        name = rng.choice(list(self.state))
        tensor = self.state[name].clone()
        tensor.view(-1)[rng.randrange(tensor.numel())] = rng.choice([float("nan"), float("inf"), -float("inf")])
        if rng.random() < 0.3:
            values = [*self.ckpt_values]
            values[list(self.state).index(name)] = ckpt_value(
                name.encode(), list(tensor.shape), b"Float32", tensor.numpy().tobytes()
            )
            return ".ckpt", b"".join(values)
        dtype = rng.choice([torch.float32, torch.float16, torch.bfloat16])
        return self._save(rng, {key: value.to(dtype) for key, value in {**self.state, name: tensor}.items()})

    # archives and folders

    def kind_zip_bomb(self, rng):
        choice = rng.randrange(4)
        if choice == 0:  # 20 MB of zeros in 20 kB
            return ".bin", zip_archive([("a/data.pkl", bytes(20 << 20))], zipfile.ZIP_DEFLATED)
        members = zip_members(self.bin)
        if choice == 1:
            return ".bin", zip_archive(members, rng.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))
        if choice == 2:  # sizes that claim 4 GB
            data = bytearray(self.bin)
            position = data.rfind(b"PK\x01\x02", 0, data.rfind(b"archive/data/"))
            data[position + 20 : position + 28] = b"\xfe\xff\xff\xff" * 2
            return ".bin", bytes(data)
        return ".bin", zip_archive([(f"a/data/{i}", b"") for i in range(rng.randrange(2, 3000))])

    def kind_other_archives(self, rng):
        good = "a/data.pkl"
        members = rng.choice(
            [
                [("data.pkl", b"N.")],
                [(good, b"N."), ("b/data.pkl", b"N.")],
                [(good, self.bin[:200])],
                [(good, b"\x80\x02N."), ("a/code/x.py", b"import os")],
                [(good, b"\x80\x02}."), ("a/byteorder", b"big")],
                [("../../evil", b"x"), (good, b"\x80\x02}.")],
                [(good, pickle.dumps({"a": 1}, protocol=2))],
                [(good, pickle.dumps([1, 2], protocol=2))],
            ]
        )
        return ".bin", zip_archive(members)

    def kind_shard_index(self, rng):
        folder = self.folder / f"shards{rng.randrange(10**9)}"
        folder.mkdir()
        (folder / "model-1.safetensors").write_bytes(self.safetensors)
        whole = dict.fromkeys(self.state, "model-1.safetensors")
        name = rng.choice(list(whole))
        index = rng.choice(
            [
                {"weight_map": {**whole, name: "../../../etc/passwd"}},
                {"weight_map": {**whole, name: "/etc/passwd"}},
                {"weight_map": {**whole, name: "absent.safetensors"}},
                {"weight_map": {**whole, name: ["model-1.safetensors"]}},
                {"weight_map": {**whole, "extra": "model-1.safetensors"}},
                {"weight_map": {key: value for key, value in whole.items() if key != name}},
                {"weight_map": {key: f"s{i}.safetensors" for i, key in enumerate(whole)}},
                {"weight_map": {**whole, name: "model.safetensors.index.json"}},
                {"weight_map": []},
                {"weight_map": {}},
                [],
                {},
                None,
            ]
        )
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        return rng.choice([folder, folder / "model.safetensors.index.json"])

    def kind_bad_config_beside(self, rng):
        folder = self.folder / f"config{rng.randrange(10**9)}"
        folder.mkdir()
        (folder / "weights.safetensors").write_bytes(self.safetensors)
        name = rng.choice(["weights.yaml", "weights.json", "open_clip_config.json"])
        text = rng.choice(
            [
                b"",
                b"\x00\xff",
                b"[1, 2]",
                b'{"embed_dim": 1}',
                b"!!python/object/apply:os.system ['touch x']",
                b'{"model_cfg": 3}',
                b'{"embed_dim": 32, "vision_cfg": [], "text_cfg": {}, "multimodal_cfg": {}}',
                b'{"embed_dim": 16, "vision_cfg": {"layers": 1000000000}, "text_cfg": {}, "multimodal_cfg": {}}',
            ]
        )
        (folder / name).write_bytes(text)
        return folder

    def kind_odd_paths(self, rng):
        empty = self.folder / f"empty{rng.randrange(10**9)}.{rng.choice(['bin', 'safetensors', 'ckpt', 'txt'])}"
        empty.write_bytes(b"")
        other = empty.with_suffix(".gguf")
        other.write_bytes(b"GGUF\x03\x00\x00\x00" + self.bin)
        hollow = empty.with_suffix("")
        hollow.mkdir()
        folder = empty.with_name(f"folder{empty.stem}.bin")
        folder.mkdir()
        return rng.choice([empty, other, hollow, folder, empty.with_name("absent.bin")])
