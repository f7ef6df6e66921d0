"""A process that captions groups of files for a driver elsewhere: what Ray runs as an actor. It does not import Ray.

Only plain data goes in and out: paths in, records out; never frames.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindone_coca import __version__
from mindone_coca.collection.plan import reading_threads
from mindone_coca.errors import InputError
from mindone_coca.files import atomic_path, user_cache

if TYPE_CHECKING:
    from mindone_coca.collection.work import Done, GroupCaptioner, Work


@dataclass(frozen=True)
class Device:
    """Arguments of `device.configure` for a process that sees its own device alone."""

    target: Any = "auto"
    mode: Any = "graph"
    jit_level: Any = None
    max_memory: str | None = None
    kernels: Any = "auto"
    deterministic: bool = False


@dataclass(frozen=True)
class Order:
    """What a worker needs to know.

    Attributes:
        folder: the working directory, which paths count from; None: none does.
        versions: of this package and of MindSpore, which must be the driver's.
        threads: that read; None: half of the worker's cores, at most 8.
    """

    work: "Work"
    device: Device
    folder: str | None
    versions: tuple[str, str]
    threads: int | None = None


def versions() -> tuple[str, str]:
    """Of this package and of MindSpore here."""
    import mindspore

    return __version__, mindspore.__version__


class Worker:
    """Holds the compiled captioner and the threads that read for it.

    Args:
        cores: its share of the machine's.
    """

    def __init__(self, cores: int) -> None:
        self._cores = max(1, cores)
        os.environ["OMP_NUM_THREADS"] = str(self._cores)  # before MindSpore is imported
        # one thread has the model: contexts of MindSpore are a thread's own
        self._model_thread = ThreadPoolExecutor(1, "model")
        self._captioner: GroupCaptioner | None = None

    def start(self, order: Order, shipped: Any = None) -> str | None:
        """Get ready. Returns what this machine lacks, None where it has all.

        Args:
            shipped: the weights, as an array of bytes, where they are no file that all machines see.
        """
        try:
            self._model_thread.submit(self._start, order, shipped).result()
        except InputError as error:
            return str(error)
        return None

    def _start(self, order: Order, shipped: Any) -> None:
        for name, here, there in zip(("mindone_coca", "MindSpore"), versions(), order.versions):
            if here != there:
                raise InputError(f"{name} {here} is installed there, the run was begun with {there}")
        if order.folder is not None:
            try:
                os.chdir(order.folder)
            except OSError as error:
                raise InputError(
                    f"{order.folder}: the working directory is not there ({error.strerror}); put it on a file system "
                    "that all nodes see, or give absolute paths"
                ) from error
        from mindone_coca import device
        from mindone_coca.captioning.captioner import VideoCaptioner
        from mindone_coca.collection.work import GroupCaptioner

        device.configure(**asdict(order.device))
        work = replace(order.work, weights=_weights(order.work, shipped))
        options = work.options
        captioner = VideoCaptioner(work.config, work.weights, work.dtype, options.num_frames, options.fusion)
        self._captioner = GroupCaptioner(captioner, work, order.threads or reading_threads(self._cores))
        self._captioner.__enter__()

    def caption(self, group: Sequence[str], without: Mapping[str, str]) -> "Done":
        """Caption a group of files, once those of earlier calls are; reading begins at once."""
        captioner = self._captioner
        assert captioner is not None  # `start` went well
        files = captioner.read(path for path in group if path not in without)
        return self._model_thread.submit(captioner.caption, group, files, without).result()


def _weights(work: "Work", shipped: Any) -> Path:
    """The weights on this machine. Raises InputError where they are not there, or others."""
    from mindone_coca.weights.fingerprint import model_name

    path = work.weights
    if shipped is not None:
        path = user_cache() / "shipped" / work.model.split()[-1] / work.weights.name
        if not (path.is_file() and path.stat().st_size == shipped.nbytes):
            with atomic_path(path) as partial:
                shipped.tofile(partial)
    if not path.is_file():
        raise InputError(f"{path}: no weights there; put them where all nodes see them, or give --ray_ship_weights")
    if (found := model_name(work.config, path)) != work.model:
        raise InputError(f"{path}: other weights there, {found} in place of {work.model}; replace them")
    return path
