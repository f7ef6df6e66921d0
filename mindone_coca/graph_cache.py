"""Compiled graphs kept on disk, so that the next process starts faster.

MindSpore's own compile cache numbers graphs by the order in which a process compiles them and hardly checks what it
loads: another model, option or order meets another model's graph. So its cache is pointed at a private folder of this
process, and each graph is put there, under the number that MindSpore will ask for, from a store where it lies under a
hash of all that shapes it: the cell and its model, the arguments, the device settings, the sources, the versions.

The store is `$MINDONE_COCA_CACHE`, else on the CPU `mindone_coca` in the user's cache folder. It may be deleted at any
time, and shared by any number of processes. Who sets MS_COMPILER_CACHE_ENABLE keeps MindSpore's own behaviour.
"""

import atexit
import contextlib
import ctypes
import functools
import gc
import hashlib
import importlib
import os
import platform
import shutil
import tempfile
import threading
import warnings
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn

from mindone_coca import device
from mindone_coca.files import atomic_path, user_cache
from mindone_coca.interrupts import TEMPORARY
from mindone_coca.waiting import Wait

# MindSpore walks through the imports of the running program, which fails where there is no file (python -c, notebooks)
# and says nothing about a graph; it is given a file that imports nothing instead.
_ENTRY_SCRIPT = str(Path(__file__).with_name("errors.py"))


def _private_api() -> Any:
    """MindSpore's module that walks through those imports, and the one private name that is used here: its place is
    another in each release. None where it is not known."""
    for name in ("mindspore.graph.api", "mindspore.common.api"):  # since 2.10; before
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        if hasattr(module, "entry_script_path"):
            return module
    return None


_graph_api = _private_api()
_seen: "weakref.WeakKeyDictionary[nn.Cell, set]" = weakref.WeakKeyDictionary()
_lock = threading.RLock()
_compiling = Wait("compiling graphs")  # where none are kept


def tag_cell(cell: nn.Cell, tag: str) -> None:
    """Allow a cell's graphs to be kept. `tag` must name all that its graph depends on besides sources and arguments."""
    cell.graph_tag = tag


def model_tag(model: nn.Cell, config: str) -> str:
    """A tag for cells of one model: its config, its cells, and its parameters' names, shapes and types."""
    parameters = [(p.name, tuple(p.shape), str(p.dtype)) for p in model.get_parameters()]
    return hashlib.sha256(f"{config}\n{model!r}\n{parameters}".encode()).hexdigest()


def call(cell: nn.Cell, *arguments: Any) -> Any:
    """Call a cell; where that compiles a new graph, take it from the store or add it there."""
    return _with_store(cell, cell, arguments)


def compile_ahead(cell: nn.Cell, *arguments: Any) -> None:
    """Compile a cell for such arguments, or take its graph from the store, without running it."""
    _with_store(cell, cell.compile, arguments)


def compile_aside(cell: nn.Cell, make_twin: Callable[[], nn.Cell], *arguments: Any) -> None:
    """Before a large cell is called with such arguments: compile a twin of it, keep the graph, give back the memory.

    What MindSpore holds of a compilation goes with the twin, and the cell then loads the graph from the store: 2 GiB
    less at the first start of a training of ViT-L/14, as at any later one. Nothing is done where the graph is known,
    in the store already, or not to be kept.

    Args:
        make_twin: returns a cell of the same graph and the same parameters.
    """
    signature = tuple(_describe(a) for a in arguments)
    if signature in _seen.setdefault(cell, set()) or not _storable(cell):
        return
    with _lock:
        session = _session()
        if session is None or session.kept(_key(cell, signature)).exists():
            return
        twin = make_twin()
        tag_cell(twin, cell.graph_tag)
        compile_ahead(twin, *arguments)
        del twin
        gc.collect()
        give_back_memory()


def give_back_memory() -> None:
    """Return what this process has freed to the system, which glibc does by itself only at the end of its heap."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _storable(cell: nn.Cell) -> bool:
    return getattr(cell, "graph_tag", None) is not None and ms.get_context("mode") == ms.GRAPH_MODE


def _key(cell: nn.Cell, signature: tuple) -> str:
    return hashlib.sha256(
        f"{_environment()}\n{type(cell).__name__}\n{cell.graph_tag}\n{signature}".encode()
    ).hexdigest()


def _with_store(cell: nn.Cell, run: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    signature = tuple(_describe(a) for a in arguments)
    known = _seen.setdefault(cell, set())
    if signature in known or not _storable(cell):
        return run(*arguments)
    with _lock:
        known.add(signature)
        session = _session()
        if session is None:
            with _compiling:
                return run(*arguments)
        with session.graph(_key(cell, signature)) as wait, wait:
            return run(*arguments)


def _describe(argument: Any) -> Any:
    if isinstance(argument, Tensor):
        return ("tensor", tuple(argument.shape), str(argument.dtype))
    return argument


@functools.cache
def _sources() -> str:
    """A hash of this package's sources: graphs are compiled from them."""
    digest = hashlib.sha256()
    package = Path(__file__).parent
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _environment() -> str:
    settings = [f"{name}={ms.get_context(name)}" for name in ("device_target", "jit_level", "deterministic")]
    flags = sorted(f"{k}={v}" for k, v in os.environ.items() if k.startswith("MS_") and "COMPILER_CACHE" not in k)
    where = [ms.__version__, platform.python_version(), platform.machine(), *_chip()]
    return "\n".join([*where, _sources(), *settings, f"kernels={device.chosen_kernels()}", *flags])


@functools.cache
def _chip() -> list[str]:
    """The chip and the version of CANN, off the CPU."""
    if ms.get_context("device_target") != "Ascend":
        return []
    home = os.environ.get("ASCEND_TOOLKIT_HOME") or os.environ.get("ASCEND_HOME_PATH") or "/usr/local/Ascend/latest"
    described = sorted(Path(home).glob("*/ascend_toolkit_install.info"))
    return [ms.hal.get_device_name(), home, *(path.read_text(errors="replace") for path in described)]


@functools.cache
def _session() -> "_Session | None":
    """This process's session, or None where nothing can be kept or the user takes care of it."""
    if "MS_COMPILER_CACHE_ENABLE" in os.environ:
        return None
    if ms.get_context("device_target") != "CPU" and "MINDONE_COCA_CACHE" not in os.environ:
        return None  # nobody has tried it there
    if _graph_api is None:
        reason = f"MindSpore {ms.__version__} keeps its own in another way"
        warnings.warn(f"compiled graphs cannot be kept ({reason}): slower start-up", stacklevel=2)
        return None
    home = user_cache()
    try:
        home.mkdir(parents=True, exist_ok=True)
        return _Session(home)
    except OSError as error:
        warnings.warn(f"{home}: compiled graphs cannot be kept ({error.strerror}): slower start-up", stacklevel=2)
        return None


class _Session:
    """A private folder for MindSpore's cache, filled from and emptied into the store, one graph at a time."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self.folder = Path(tempfile.mkdtemp(prefix="mindone_coca_graphs_"))
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        TEMPORARY.add(self.folder)
        self.count = 0  # graphs compiled so far with the cache enabled: MindSpore's number for the next one
        self.waits = {
            False: Wait(f"compiling graphs, once; they are kept in {store}"),
            True: Wait(f"loading compiled graphs from {store}"),
        }

    def graph(self, key: str) -> "_Graph":
        return _Graph(self, self.kept(key))

    def kept(self, key: str) -> Path:
        """Where a graph lies in the store, or will."""
        return self.store / f"{key}.mindir"


class _Graph:
    """Enables MindSpore's cache for the one compilation within. Then the folder is empty again: should MindSpore number
    its graphs otherwise than is thought here, it finds none, and never another one."""

    def __init__(self, session: _Session, kept: Path) -> None:
        rank = os.environ.get("RANK_ID", "0")
        self.session, self.kept = session, kept
        self.place = session.folder / f"rank_{rank}" / "graph_cache"
        self.file = self.place / f"compile_cache_{session.count}.mindir"

    def __enter__(self) -> Wait:
        """Returns what says why it takes long."""
        self.variables = {"MS_COMPILER_CACHE_ENABLE": "1", "MS_COMPILER_CACHE_PATH": str(self.session.folder)}
        try:
            self.place.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.kept, self.file)
            self.found = True
            # its own check is of the program's files, not of the graph; the key is the check here
            self.variables["MS_DEV_FORCE_USE_COMPILE_CACHE"] = "1"
        except OSError:  # not in the store, or just deleted: compile
            self.found = False
        os.environ.update(self.variables)
        self.entry_script, _graph_api.entry_script_path = _graph_api.entry_script_path, _ENTRY_SCRIPT
        return self.session.waits[self.found]

    def __exit__(self, kind: type | None, *_: object) -> None:
        _graph_api.entry_script_path = self.entry_script
        for name in self.variables:
            os.environ.pop(name, None)
        made = [path for path in self.place.glob("compile_cache_*.mindir") if not self.found or path != self.file]
        if made:  # by MindSpore, under its own number
            self.session.count = int(made[0].stem.rpartition("_")[2])
            if kind is None:
                self._keep(made[0])
        self.session.count += 1
        shutil.rmtree(self.place, ignore_errors=True)

    def _keep(self, file: Path) -> None:
        try:
            with atomic_path(self.kept) as partial:
                shutil.copyfile(file, partial)
        except OSError as error:
            warnings.warn(f"{self.kept.parent}: a compiled graph was not kept ({error.strerror})", stacklevel=2)
