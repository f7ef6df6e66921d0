"""Outputs of a frozen model on disk, so that each sample is encoded once."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Parameter

import mindone_coca
from mindone_coca.errors import InputError
from mindone_coca.files import atomic_path

KEY_BYTES = 32


def weights_key(parameters: Iterable[Parameter], settings: str) -> str:
    """A name for all that the outputs depend on besides the input: the weights bit for bit, the settings, the device
    and this package's version."""
    settings = f"{mindone_coca.__version__}\n{ms.get_context('device_target')} {settings}\n"
    digest = hashlib.blake2b(settings.encode(), digest_size=KEY_BYTES)
    for parameter in parameters:
        array = np.ascontiguousarray(parameter.asnumpy())
        digest.update(f"{parameter.name} {array.shape} {array.dtype}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


class FeatureCache:
    """Outputs by the content of what was encoded: a changed picture, sentence or transform is another input, changed
    weights have another folder, so nothing stale is ever found.

    Each file holds the outputs that one batch added, and is read through a memory map. Any number of processes may
    share the folder. An image of a ViT-L/14 takes 1 MB.

    Args:
        folder: where the folders of all models are. key: `weights_key`.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder.expanduser() / key[:32]
        self.rows: dict[bytes, np.ndarray] = {}  # key -> the sample's output, mapped
        for path in sorted(self.folder.glob("[!.]*.npy")):
            self._add(path)

    def _add(self, path: Path) -> None:
        try:
            records = np.load(path, mmap_mode="r")
            self.rows.update(zip((key.tobytes() for key in records["key"]), records["features"]))
        except (OSError, ValueError, IndexError) as error:
            raise InputError(f"{path}: not a file of cached features ({error}); delete {self.folder}") from error

    def __call__(self, encode: Callable[[], np.ndarray], images: np.ndarray, text: np.ndarray) -> np.ndarray:
        """Outputs (B, ...) for images (B, n, 3, S, S) and ids (B, T); `encode()`, which gives those of the whole
        batch, is called only if one of them is new."""
        keys = [sample_key(image, ids) for image, ids in zip(images, text)]
        new = {key: place for place, key in enumerate(keys) if key not in self.rows}
        if new:
            features = encode()[list(new.values())]
            records = np.empty(len(new), [("key", f"V{KEY_BYTES}"), ("features", features.dtype, features.shape[1:])])
            records["key"], records["features"] = [np.void(key) for key in new], features
            path = self.folder / f"{hashlib.blake2b(b''.join(new), digest_size=16).hexdigest()}.npy"
            with atomic_path(path) as partial, open(partial, "wb") as file:
                np.save(file, records)
            self._add(path)
        return np.stack([self.rows[key] for key in keys])


def sample_key(images: np.ndarray, text: np.ndarray) -> bytes:
    digest = hashlib.blake2b(repr((images.shape, text.shape)).encode(), digest_size=KEY_BYTES)
    digest.update(np.ascontiguousarray(images).view(np.uint8).reshape(-1).data)
    digest.update(np.ascontiguousarray(text).view(np.uint8).reshape(-1).data)
    return digest.digest()
