"""Tells what a file is by its content: one of the formats that are read, or something else that has a name.

A suffix proves nothing: torch files are called .ckpt and .pth.tar, downloads end as HTML pages called .bin.
"""

import re
import struct
import zipfile
from pathlib import Path

from mindone_coca.errors import InputError
from mindone_coca.weights.formats.entry import MappedFile

TORCH, SAFETENSORS, MINDSPORE = "torch", "safetensors", "mindspore"
WEIGHTS_SUFFIXES = (".bin", ".pt", ".pth", ".safetensors", ".ckpt")

_HEAD = 4096
_MAX_SAFETENSORS_HEADER = 100 << 20
_LEGACY_TORCH = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # torch's magic number, as a pickled integer
_LFS = re.compile(rb"\s*version https?://(git-lfs\.github\.com|hawser\.github\.com)/spec/")

_PAGE = (b"<!doctype", b"<html", b"<head", b"<body", b"<meta", b"<script", b"<!--")
_ANSWER = (b"<?xml", b"<error")

_RE_SAVE = "torch.save(torch.load(FILE, weights_only=True), FILE)"
_FROM_NUMPY = "in Python, make every array a tensor and write a dict of them with torch.save or safetensors"
_UNPACK = "unpack it and give the weights file that is in it"
_CONVERT = "load it where it was made, and write a dict of names and tensors with torch.save or safetensors"

# (first bytes, what it is, how to fix it)
_MAGIC = (
    (b"\x1f\x8b", "a gzip archive", f"{_UNPACK} (gunzip, or tar -xzf)"),
    (b"BZh", "a bzip2 archive", f"{_UNPACK} (bunzip2, or tar -xjf)"),
    (b"\xfd7zXZ\x00", "an xz archive", f"{_UNPACK} (unxz, or tar -xJf)"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", f"{_UNPACK} (unzstd)"),
    (b"\x04\x22\x4d\x18", "an lz4 archive", f"{_UNPACK} (unlz4)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!", "a RAR archive", _UNPACK),
    (b"PK\x05\x06", "an empty zip archive", "download or save it again"),
    (b"\x93NUMPY", "a NumPy array (.npy)", _FROM_NUMPY),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras and TensorFlow write", _CONVERT),
    (b"GGUF", "a GGUF file, whose weights are mostly quantized", "give the checkpoint that it was made from"),
    (
        b"\xd8\x5e\x3a\x7f",
        "an encrypted file of MindSpore",
        "decrypt it with mindspore.load_checkpoint(FILE, dec_key=KEY) and save it with mindspore.save_checkpoint",
    ),
    (b"\x7fELF", "a program or library (ELF)", "give the weights file"),
)


# what Python's zipfile raises for an archive that is damaged, or of a kind that it does not know
ZIP_ERRORS = (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError, OverflowError, EOFError)


def _zip_kind(path: Path) -> str:
    """A zip archive's kind, told by the names in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except ZIP_ERRORS:
        return TORCH  # damaged: torch's reader says how
    tails = {name.split("/", 1)[-1] for name in names}
    if path.suffix == ".distcp":
        raise InputError(
            f"{path}: one file of a distributed torch checkpoint (DCP); join its folder to one file: "
            f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {path.parent} coca.pt"
        )
    if "constants.pkl" in tails or any(tail.startswith("code/") for tail in tails):
        raise InputError(
            f"{path}: a TorchScript program, not a checkpoint; save its weights instead: "
            "torch.save(torch.jit.load(FILE).state_dict(), 'coca.pt')"
        )
    if "archive_format" in tails or "models/model.json" in tails or "serialized_exported_program.json" in names:
        raise InputError(
            f"{path}: a program that torch.export wrote, not a checkpoint; save its weights instead: "
            "torch.save(dict(torch.export.load(FILE).state_dict), 'coca.pt')"
        )
    if sum(name.count("/") == 1 and name.endswith("/data.pkl") for name in names):
        return TORCH
    if "data.pkl" in (name.split("/")[-1] for name in names):
        raise InputError(
            f"{path}: a torch checkpoint that was unpacked and zipped anew, which torch cannot read either; give the "
            "file that torch.save wrote"
        )
    if names and all(name.endswith(".npy") for name in names):
        raise InputError(f"{path}: a NumPy archive (.npz), not a checkpoint; {_FROM_NUMPY}")
    if "model.weights.h5" in names:
        raise InputError(f"{path}: a Keras model; {_CONVERT}")
    inner = next((name for name in names if name.endswith(WEIGHTS_SUFFIXES)), None)
    if inner is not None:
        raise InputError(f"{path}: a zip archive around {inner[:100]!r}; unzip it and give that file")
    first = repr(names[0][:100]) if names else "nothing"
    raise InputError(
        f"{path}: a zip file, but not one that torch.save wrote (no single data.pkl; it begins with {first})"
    )


def _refuse_text(head: bytes, path: Path) -> None:
    """Name what is text: pages, pointers, JSON."""
    if _LFS.match(head):
        size = re.search(rb"\bsize (\d{1,20})\b", head)
        bytes_ = f" ({int(size[1]):,} bytes)" if size else ""
        raise InputError(
            f"{path}: a Git LFS pointer, not the weights{bytes_}; fetch them with `git lfs install` and `git lfs pull`"
        )
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:200].lower()
    if b"/annex/objects/" in head[:300] and start.startswith((b"/annex", b"..", b".git")):
        raise InputError(f"{path}: a git-annex pointer, not the weights; fetch them with `git annex get`")
    if start.startswith(_PAGE + _ANSWER):
        kind = "an XML answer of a server" if start.startswith(_ANSWER) else "an HTML page"
        raise InputError(
            f"{path}: {kind}, not weights; the download went wrong (a page about the file, a login, an error): "
            "download the file itself, on Hugging Face by the address with /resolve/ instead of /blob/"
        )
    if start.startswith((b"{", b"[")) and b"\x00" not in head:
        raise InputError(
            f"{path}: JSON text, not weights; give the weights file (a list of shards must be called *.index.json)"
        )


def _refuse_protobuf(head: bytes, path: Path) -> None:
    """Name ONNX, TensorFlow and MindIR graphs, which are protobuf messages without a magic number."""
    # ModelProto of ONNX: ir_version = 1 (a number), producer_name = 2 or opset_import, graph
    if head[:1] == b"\x08" and 1 < head[1] < 32 and head[2:3] in (b"\x12", b"\x1a", b"\x3a", b"\x42"):
        raise InputError(
            f"{path}: an ONNX graph, not a checkpoint; give the checkpoint that it was exported from (its names and "
            "layouts are not the model's any more)"
        )
    if head[:3] == b"\x08\x01\x12":
        raise InputError(f"{path}: a TensorFlow SavedModel; {_CONVERT}")
    if re.match(rb"\x0a[\x03-\x10]\d+(\.\d+)+\x12.MindSpore", head, re.DOTALL):
        raise InputError(
            f"{path}: a MindIR graph, not a checkpoint; give the checkpoint (.ckpt) that it was exported from"
        )


def _refuse_named(file: MappedFile, head: bytes) -> None:
    """Raise InputError for what has a name and is no weights file that is read here."""
    path = file.path
    for magic, what, fix in _MAGIC:
        if head.startswith(magic):
            raise InputError(f"{path}: {what}, not a checkpoint; {fix}")
    if head[257:262] == b"ustar":
        raise InputError(f"{path}: a tar archive, not a checkpoint; {_UNPACK} (tar -xf)")
    if head[4:8] == b"TFL3":
        raise InputError(f"{path}: a TensorFlow Lite model; {_CONVERT}")
    if _LEGACY_TORCH in head[:64]:
        raise InputError(
            f"{path}: not a torch checkpoint of torch 1.6 or later (a zip file); re-save it with a current torch: "
            f"{_RE_SAVE}"
        )
    if head[:1] == b"\x80" and head[1] in range(1, 6):
        raise InputError(
            f"{path}: a Python pickle that torch.save did not write; it was not run; if you trust it, load it in "
            "Python and write its tensors with torch.save"
        )
    if re.match(rb"([\x81-\x8f]|\xde..|\xdf....)([\xa1-\xbf]|\xd9.|\xda..)[ -~]", head, re.DOTALL):
        raise InputError(f"{path}: msgpack data, as Flax writes its weights; {_CONVERT}")
    _refuse_text(head, path)
    _refuse_protobuf(head, path)
    if re.search(r"\.data-\d{5}-of-\d{5}$|\.ckpt-\d+\.index$", path.name):
        raise InputError(f"{path}: a part of a TensorFlow checkpoint; {_CONVERT}")


def _is_safetensors(file: MappedFile, head: bytes) -> bool:
    length = int.from_bytes(head[:8], "little")
    return len(head) > 8 and head[8:9] == b"{" and length <= min(file.size - 8, _MAX_SAFETENSORS_HEADER)


def _varint(data: bytes) -> int:
    return sum((byte & 0x7F) << (7 * place) for place, byte in enumerate(data))


def _is_mindspore(file: MappedFile, head: bytes) -> bool:
    """Whether the first field is a message that begins with a name which fits into it: 0A length 0A length text."""
    match = re.match(rb"\x0a([\x80-\xff]{0,9}[\x00-\x7f])\x0a([\x80-\xff]?[\x01-\x7f])[^\x00-\x20\x7f]", head)
    return match is not None and _varint(match[2]) < _varint(match[1]) <= file.size


def file_format(path: Path) -> str:
    """The format of a weights file by its content: "torch", "safetensors" or "mindspore".

    Raises:
        InputError: it is missing, empty or something else, which the message names with the way to fix it.
    """
    file = MappedFile(path)
    head = file.bytes(0, min(file.size, _HEAD))
    if head.startswith(b"PK\x03\x04"):
        return _zip_kind(path)
    if _is_safetensors(file, head):
        return SAFETENSORS
    if _is_mindspore(file, head):
        return MINDSPORE
    _refuse_named(file, head.ljust(2, b"\0"))
    # Nothing known: a damaged file of a format whose reader can tell what is wrong, by the suffix at last.
    if path.suffix == ".safetensors":
        return SAFETENSORS
    if path.suffix == ".ckpt":
        return MINDSPORE
    begins = repr(head[:20].decode("ascii")) if re.match(rb"[\t\r\n -~]+$", head[:20]) else head[:8].hex(" ")
    raise InputError(
        f"{path}: no weights file: its content is none of torch's zip, safetensors or a MindSpore checkpoint (it "
        f"begins with {begins}); if it was cut off or damaged, download or save it again"
    )


def refuse_folder(folder: Path) -> None:
    """Raise InputError for a folder that holds a checkpoint in pieces which another program must join first."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror or error}") from error
    if any(name.endswith(".distcp") for name in names):
        lost = "" if ".metadata" in names else " (its .metadata file is missing: copy it, too)"
        raise InputError(
            f"{folder}: a distributed torch checkpoint (DCP){lost}; join it to one file: "
            f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {folder} coca.pt"
        )
    if any(re.fullmatch(r"(bf16_)?zero_pp_rank_\d+_mp_rank_\d+_model_states\.pt", name) for name in names):
        raise InputError(f"{folder}: {ZERO_PARTS}")
    if "saved_model.pb" in names:
        raise InputError(f"{folder}: a TensorFlow SavedModel; {_CONVERT}")
    if "_METADATA" in names or "manifest.ocdbt" in names:
        raise InputError(f"{folder}: an Orbax checkpoint of JAX; {_CONVERT}")


ZERO_PARTS = (
    "a DeepSpeed ZeRO checkpoint in pieces, one for each rank; join them with the script that DeepSpeed puts beside "
    "them: python zero_to_fp32.py CHECKPOINT_FOLDER OUTPUT_FOLDER"
)
