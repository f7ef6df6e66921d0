"""Conversion of a checkpoint: planned from names and shapes alone, then written one tensor at a time."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isqrt, prod
from pathlib import Path

import numpy as np
import yaml

from mindone_coca.conversion.resize import resize_positions
from mindone_coca.errors import InputError
from mindone_coca.files import atomic_path, check_output
from mindone_coca.model.families import family_of, load_model_config
from mindone_coca.model.family import Family, FamilyConfig, ResizableConfig
from mindone_coca.weights.adapters import merged, read_adapters
from mindone_coca.weights.entry_names import refuse_parts
from mindone_coca.weights.formats.dtypes import WEIGHT_DTYPES, cast, count_nonfinite
from mindone_coca.weights.formats.entry import Entry, Weights
from mindone_coca.weights.infer import config_beside, infer_config
from mindone_coca.weights.names import recognise
from mindone_coca.weights.save import save_weights
from mindone_coca.weights.shapes import check_shapes
from mindone_coca.weights.source import TORCH_SUFFIXES, open_weights
from mindone_coca.weights.tied import derived_entry, without_derived

_TARGETS = (".ckpt", ".safetensors")
_REVERSE_TARGETS = (*TORCH_SUFFIXES, ".safetensors")
_SPARE_DISK = 16 << 20  # for headers and the config beside the weights


@dataclass(frozen=True)
class Options:
    """What to convert and how; the fields are the converter's command-line options."""

    source: Path
    target: Path
    config: str | None = None
    dtype: str | None = None
    reverse: bool = False
    ema: bool = False
    key: str | None = None
    image_size: tuple[int, int] | None = None
    patch_grid: tuple[int, int] | None = None
    allow_nan: bool = False
    force: bool = False
    dry_run: bool = False
    lora: Sequence[str] = ()


@dataclass
class Plan:
    """A checked conversion: everything is known but the numbers.

    Attributes:
        entries: the result's tensors under the result's names; reading one converts it.
        config: the result's model config.
        texts: the config files to write beside the weights.
        notes: what was left out, chosen, assumed or changed.
        progress: called with the bytes of each tensor as it is converted.
    """

    source: Weights
    target: Path
    entries: dict[str, Entry]
    config: FamilyConfig
    texts: dict[Path, str]
    metadata: dict[str, str]
    notes: list[str]
    progress: Callable[[int], object] = field(default=lambda count: None)

    @property
    def nbytes(self) -> int:
        return sum(entry.nbytes for entry in self.entries.values())

    @property
    def parameters(self) -> int:
        return sum(prod(entry.shape) for entry in self.entries.values())


def target_file(target: Path, reverse: bool, family: Family) -> Path:
    """The weights file that `--target` means: the file itself, or the usual name in a folder."""
    allowed = _REVERSE_TARGETS if reverse else _TARGETS
    if target.suffix in allowed:
        if target.is_dir():
            raise InputError(f"{target}: is a folder; name a file in it or a folder without that suffix")
        return target
    if target.suffix in (*_TARGETS, *_REVERSE_TARGETS):
        other = "without" if reverse else "with"
        raise InputError(f"{target}: {target.suffix} is written {other} --reverse; here it can be {', '.join(allowed)}")
    if target.exists() and not target.is_dir():
        raise InputError(f"{target}: is a file of another kind; give a folder or a name ending in {', '.join(allowed)}")
    return target / (family.torch_file if reverse else "coca_model.ckpt")


def _source_config(
    options: Options, weights: Weights, entries: dict[str, Entry], family: Family
) -> tuple[FamilyConfig, str]:
    if options.config is not None:
        return load_model_config(options.config), f"config {options.config}"
    beside = config_beside(weights.path)
    if beside is not None:
        return load_model_config(beside), f"config {beside}"
    return infer_config({name: entry.shape for name, entry in entries.items()}, family, weights.path)


def _new_image_size(options: Options, config: ResizableConfig) -> tuple[int, int] | None:
    if options.patch_grid is not None:
        (rows, columns), (height, width) = options.patch_grid, config.patch_hw
        return rows * height, columns * width
    return options.image_size


def _resized(
    entries: dict[str, Entry], config: ResizableConfig, size: tuple[int, int], positions: str, path: Path
) -> tuple[dict[str, Entry], ResizableConfig, str]:
    """Entries and config for another image size, and a note that says what was resampled."""
    if positions not in entries or len(entries[positions].shape) != 2:
        raise InputError(f"{path}: has no {positions} to resize")
    old = entries[positions]
    grid, patches = config.grid_hw, old.shape[0] - 1
    if prod(grid) != patches:  # the config is already the new one
        grid = (isqrt(max(patches, 0)),) * 2
    if prod(grid) != patches or not patches:
        raise InputError(f"{path}: {patches} image patches are no square grid; give the old image size with --config")
    config = config.resized(size[0] if size[0] == size[1] else size)
    config.check()
    new_grid = config.grid_hw

    def read() -> np.ndarray:
        values = resize_positions(cast(old.read(), old.dtype, "float32"), grid, new_grid)
        return cast(values, "float32", old.dtype)

    shape = (prod(new_grid) + 1, old.shape[1])
    note = f"{positions} resized from {grid[0]}x{grid[1]} to {new_grid[0]}x{new_grid[1]} patches, bicubic, antialiased"
    return {**entries, positions: Entry(shape, old.dtype, read, old.check)}, config, note


def _converted(plan: Plan, name: str, entry: Entry, shape: tuple[int, ...], dtype: str, allow_nan: bool) -> Entry:
    """The entry of the result: checksum, finiteness and type are seen to as it is read."""
    origin = plan.source.path

    def read() -> np.ndarray:
        plan.source.release()  # drop the pages of the tensor before
        entry.check()
        array = entry.read()
        bad = count_nonfinite(array, entry.dtype)
        if bad and not allow_nan:
            raise InputError(
                f"{origin}: {name} holds {bad} values that are NaN or infinite; pass --allow_nan to convert it anyway"
            )
        result = cast(array, entry.dtype, dtype)
        if dtype != entry.dtype and count_nonfinite(result, dtype) > bad:
            raise InputError(f"{origin}: {name} holds values too large for {dtype}; use bfloat16 or float32")
        plan.progress(prod(shape) * result.itemsize)
        return result.reshape(shape)

    return Entry(shape, dtype, read)


def _result_dtype(entry: Entry, name: str, dtype: str | None, path: Path) -> str:
    if entry.dtype not in (*WEIGHT_DTYPES, "float64"):
        raise InputError(f"{path}: {name} holds {entry.dtype}, weights are one of {', '.join(WEIGHT_DTYPES)}")
    if dtype is None and entry.dtype == "float64":
        raise InputError(f"{path}: {name} holds float64; pass --dtype float32 to convert it")
    return dtype or entry.dtype


def _config_texts(target: Path, config: FamilyConfig, notes: list[str], reverse: bool) -> dict[Path, str]:
    config = config.without_weights()  # it named the source's place
    comment = "".join(f"# {note}\n" for note in notes)
    texts = {target.with_suffix(".yaml"): comment + yaml.safe_dump(config.to_dict(), sort_keys=False)}
    return {**texts, **family_of(config).config_files(config, target)} if reverse else texts


def _holds(file: Path, config: FamilyConfig) -> bool:
    """Whether a config file is there already and says the same, so that it can stay."""
    try:
        return file.is_file() and load_model_config(file) == config.without_weights()
    except InputError:
        return False


def plan_conversion(options: Options) -> Plan:
    """Open the source and check all that can be checked without reading a tensor.

    Names and shapes against the config (given, found beside the weights, or inferred), element types, an existing
    target, free disk space. In a dry run existing files are noted, not refused.

    Raises:
        InputError: one line naming what is wrong and the mend.
    """
    source = open_weights(options.source, ema=options.ema, key=options.key)
    path = source.path
    refuse_parts(source, path)
    family, ours = recognise(source, str(path))
    if ours:
        entries = {family.to_original(name) or name: entry for name, entry in source.items()}
    else:
        entries = without_derived(source.entries, family, path)
    config, origin = _source_config(options, source, entries, family)
    family = family_of(config)
    target = target_file(options.target, options.reverse, family)
    notes = [f"converted from {path.name}", *source.notes, origin]
    if options.lora:
        entries = merged(entries, [read_adapters(text, family) for text in options.lora], family.to_mindspore, None)
        notes.append(f"merged {', '.join(options.lora)}")
    metadata = {"format": "pt" if options.reverse else "ms", "source": path.name}
    if family.positions is not None and isinstance(config, ResizableConfig):
        size = _new_image_size(options, config)
        if size is not None:
            entries, config, note = _resized(entries, config, size, family.positions, path)
            notes.append(note)
            metadata["positions"] = note
    elif options.patch_grid or options.image_size:
        raise InputError(f"{path}: a {family.original} model; only open_clip's position embeddings can be resized")
    parameters = family.parameter_shapes(config)
    check_shapes(parameters, {name: entry.shape for name, entry in entries.items()}, path)

    texts = _config_texts(target, config, notes, options.reverse)
    texts = {file: text for file, text in texts.items() if not _holds(file, config)}
    for file in (target, *texts):
        if file.exists() and options.dry_run:
            notes.append(f"{file} exists already and {'is overwritten' if options.force else 'needs --force'}")
        elif file.exists() and not options.force:
            raise InputError(f"{file}: exists already; pass --force to overwrite it")
    check_output(target, "choose another --target", folder=False)
    plan = Plan(source, target, {}, config, texts, metadata, notes)
    for name, shape in (family.shapes(config) if options.reverse else parameters).items():
        entry = entries[name] if name in parameters else derived_entry(name, shape, entries, family)
        dtype = _result_dtype(entry, name, options.dtype, path)
        written = name if options.reverse else family.to_mindspore(name) or name
        plan.entries[written] = _converted(plan, name, entry, shape, dtype, options.allow_nan)
    _check_disk(plan)
    return plan


def _check_disk(plan: Plan) -> None:
    folder = plan.target.parent
    while not folder.exists():
        folder = folder.parent
    free, needed = shutil.disk_usage(folder).free, plan.nbytes + _SPARE_DISK
    if free < needed:
        raise InputError(f"{plan.target}: needs {needed >> 20} MiB of disk space, {free >> 20} MiB are free")


@contextmanager
def _no_new_folder_on_failure(folder: Path) -> Iterator[None]:
    """Remove the target folder again if this run made it and failed."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        for path in missing:
            if path.exists() and not any(path.iterdir()):
                path.rmdir()
        raise


def write(plan: Plan) -> None:
    """Carry a plan out: the weights, then the config files beside them, each atomically.

    Raises:
        InputError: a tensor is damaged, holds NaN or does not fit its new type, or the disk is full (OutputError);
            nothing is left behind.
    """
    with _no_new_folder_on_failure(plan.target.parent):
        save_weights(plan.target, plan.entries, plan.metadata)
        for path, text in plan.texts.items():
            with atomic_path(path) as partial:
                partial.write_text(text, encoding="utf-8")
