"""From the options of `caption` to a run over one file, a collection or a long list, here or on a cluster."""

import argparse
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mindone_coca.account import number_of
from mindone_coca.captioning.options import CaptionOptions
from mindone_coca.cli import common
from mindone_coca.errors import InputError
from mindone_coca.generation.settings import GenerationOptions
from mindone_coca.outputs.formats import ALL, MANY, PAGES, expand_formats, go_beside_inputs
from mindone_coca.places import local_copy
from mindone_coca.storage import is_url, shown

WAITING_THREADS = 32  # that read what is behind URLs: they wait for answers more than they work

if TYPE_CHECKING:
    from mindone_coca.collection.cluster import Cluster
    from mindone_coca.collection.long_run import LongRun
    from mindone_coca.collection.run import CollectionRun
    from mindone_coca.collection.work import Engine, Work
    from mindone_coca.model.family import FamilyConfig


def caption(
    arguments: argparse.Namespace,
    names: Sequence[str],
    options: CaptionOptions,
    config: "FamilyConfig",
    weights: Path,
    sync: Callable[[], object] | None,
) -> int:
    """Caption all inputs. Returns the exit code.

    Args:
        names: files, folders, patterns, lists.
        sync: called now and then, where the output folder stands for one elsewhere.
    """
    with ExitStack() as joined:
        run = plan(arguments, names, lambda: with_batch_of_workers(options, arguments, joined), config, weights, sync)
        if arguments.dry_run:
            run.dry_run()
            return 0
        return run.merge() if arguments.merge else run.run()


def with_batch_of_workers(options: CaptionOptions, arguments: argparse.Namespace, joined: ExitStack) -> CaptionOptions:
    """The options; on a cluster with the usual batch of the workers' devices, which this process may lack.

    Args:
        joined: what ends a cluster that had to be asked for these; until then it stays joined.
    """
    if arguments.ray is None or options.batch_size is not None:
        return options
    from mindone_coca import batch_sizes

    cluster = make_cluster(arguments)
    if arguments.device_target == "auto":
        joined.enter_context(cluster.joined())
    return replace(options, batch_size=batch_sizes.usual(on_cpu=cluster.resource() == "CPU"))


def plan(
    arguments: argparse.Namespace,
    names: Sequence[str],
    options: Callable[[], CaptionOptions],
    config: "FamilyConfig",
    weights: Path,
    sync: Callable[[], object] | None,
) -> "CollectionRun | LongRun":
    """The run over all inputs. `options` are asked for once the inputs are known."""
    from mindone_coca.collection.inputs import is_list, list_inputs
    from mindone_coca.collection.long_list import LONG, LongList, is_long
    from mindone_coca.collection.long_run import LongRun
    from mindone_coca.collection.plan import Shard
    from mindone_coca.collection.run import CollectionRun, Output, work_of
    from mindone_coca.video.frames import open_video

    shard = Shard.parse(arguments.shard) if arguments.shard else Shard.from_launcher()
    given = {name for cls in (CaptionOptions, GenerationOptions) for name in common.given_options(arguments, cls)}
    features, dtype = arguments.save_features, arguments.dtype
    listing = names[0] if len(names) == 1 and is_list(names[0]) else ""
    if is_url(listing) and not set(listing) & set("*["):
        listing = str(local_copy(listing))
    if os.path.isfile(listing) and is_long(listing):
        formats = expand_long_formats(arguments.output_format)
        if arguments.retry_failed:
            raise InputError(
                f"--retry_failed: not for a list as long as {shown(names[0])}; list what failed, by the outputs"
            )
        output = Output(arguments.output_dir, formats, features, taken=names, sync=sync)
        work = work_of(config, weights, dtype, options(), output)
        listed = LongList(listing, names[0])
        return LongRun(listed, work, output, make_engine(arguments, work, listed.entries(0)), shard, given)
    inputs = list_inputs(names)
    if len(inputs.paths) >= LONG:
        raise InputError(
            f"{number_of(len(inputs.paths), 'file')}: so many are taken from one list alone; write their paths to "
            "a file, one a line (find FOLDER -type f > list.txt), and give that"
        )
    formats = expand_formats(arguments.output_format or ["json"])
    formats = without_pages(arguments.output_format or (), formats, len(inputs.paths))
    if shard.count > 1 and arguments.output_dir is None and not go_beside_inputs(formats):
        raise InputError("several processes: their parts meet in a folder; give one with --output_dir")
    if arguments.output_dir is None and go_beside_inputs(formats) and any(map(is_url, inputs.paths)):
        raise InputError("--output_format sidecar: beside URLs nothing is written; give a folder with --output_dir")
    if inputs.single:
        open_video(inputs.paths[0])  # a wrong name should not cost the time to load a model
    output = Output(arguments.output_dir, formats, features, inputs.single, arguments.force, names, sync)
    work = work_of(config, weights, dtype, options(), output)
    engine = make_engine(arguments, work, inputs.paths)
    return CollectionRun(inputs.paths, work, output, engine, shard, arguments.retry_failed, given)


def expand_long_formats(names: Sequence[str] | None) -> tuple[str, ...]:
    """The formats for a long list: those that are written in parts."""
    from mindone_coca.collection.parts import WRITERS

    if not names:
        return ("jsonl",)
    return tuple(WRITERS) if ALL in names else expand_formats(names)


def without_pages(names: Sequence[str], formats: tuple[str, ...], files: int) -> tuple[str, ...]:
    """The formats without those that are for people, where there are too many files. Raises InputError where one of
    those was asked for by its name."""
    if files < MANY:
        return formats
    for name in set(names) & set(PAGES):
        raise InputError(f"--output_format {name}: below {MANY:,} files only, and there are {files:,}; leave it out")
    return tuple(name for name in formats if name not in PAGES)


def make_engine(arguments: argparse.Namespace, work: "Work", inputs: Sequence[str]) -> "Engine":
    """What does the work: this process, or a Ray cluster. Relative paths among the inputs count from here there too."""
    from mindone_coca.captioning.captioner import VideoCaptioner
    from mindone_coca.collection.work import LocalEngine

    threads = arguments.num_workers or (WAITING_THREADS if any(map(is_url, inputs)) else None)
    if arguments.ray is None:
        return LocalEngine(
            lambda: VideoCaptioner(work.config, work.weights, work.dtype, work.options.num_frames, work.options.fusion),
            threads or common.default_workers(),
        )
    from mindone_coca.collection.ray import IN_FLIGHT, IN_FLIGHT_OF_URLS, RayEngine
    from mindone_coca.collection.worker import Device

    return RayEngine(
        make_cluster(arguments),
        Device(**common.device_settings(arguments)),
        threads,
        os.getcwd() if any(not (os.path.isabs(path) or is_url(path)) for path in inputs) else None,
        IN_FLIGHT_OF_URLS if any(map(is_url, inputs)) else IN_FLIGHT,
        arguments.ray_ship_weights,
    )


def make_cluster(arguments: argparse.Namespace) -> "Cluster":
    """Where `--ray` says that workers are."""
    from mindone_coca.collection.cluster import Cluster

    return Cluster(arguments.ray, arguments.device_target, arguments.ray_workers)
