"""The program that captions videos and images."""

import argparse
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mindone_coca.captioning.options import CaptionOptions
from mindone_coca.cli import common
from mindone_coca.cli.common import Command, Parser
from mindone_coca.config import LOCAL_CLUSTER
from mindone_coca.launcher import find_launch
from mindone_coca.outputs.formats import ALL, FORMATS, go_beside_inputs
from mindone_coca.storage import is_url

if TYPE_CHECKING:
    from mindone_coca.model.family import FamilyConfig

_ADDRESS = re.compile(r"auto|local|[\w.-]+:\d+")
DESCRIPTION = """Caption videos and images: one file, or a whole collection.

python inference.py -c configs/coca_vit-l-14.yaml VIDEO
python inference.py --model_path models/ --video_path VIDEO --frame_type multi_frames --fusion pool
python inference.py --model_path models/ --video_path FOLDER --frame_type segments --output_dir OUT --output_format all
python inference.py --model_path models/ --video_path FOLDER --output_format sidecar
python inference.py --output_dir OUT --query "a dog on a beach"

Standard output carries results only: for one file the caption, one line; for several "path<TAB>caption". Messages go to
standard error. Exit code 0: done; 1: some of several files failed or could not be written, each named; 2: bad usage,
config, checkpoint or the only input, reported in one line; 130: stopped by Ctrl-C after the files at hand (143 by
SIGTERM), and the same command goes on.

In results, higher is better: `score` is the mean log-probability of a caption's tokens, at most 0, which is certain;
`rank_score` orders the captions of one image; the similarity that --query prints is a cosine, at most 1.
"""


def place(text: str) -> Path | str:
    """A path, or a URL as it is."""
    return text if is_url(text) else Path(text)


def add_options(parser: Parser) -> None:
    parser.add_argument(
        "files",
        nargs="*",
        metavar="PATH",
        help="video or image files, folders (with all in them), patterns such as 'a/**/*.mp4', text lists of files "
        "(.txt), URLs of any of these, or - for a list on standard input",
    )
    parser.add_argument("--video_path", nargs="+", metavar="PATH", help="the same; with both, all are captioned")
    common.add_model_options(parser)
    common.add_dataclass_options(parser, CaptionOptions, skip=("generation",))
    add = parser.add_argument_group("collections").add_argument
    add(
        "--output_dir",
        type=place,
        help="folder for results, or its URL; a run that was stopped goes on there",
    )
    add(
        "--output_format",
        nargs="+",
        choices=(*FORMATS, ALL),
        metavar="FORMAT",
        help=f"files to write in --output_dir: {', '.join(FORMATS)} (default json), or all but sidecar, which is "
        "img.txt for img.jpg, beside it where there is no --output_dir",
    )
    add("--force", action="store_true", help="let sidecar overwrite files that exist, which it skips otherwise")
    add("--save_features", action="store_true", help="also write image and text features, for --query and other tools")
    add("--shard", metavar="I/N", help="do part I (from 0) of N; under msrun each process does its part by itself")
    add("--merge", action="store_true", help="write the output files from the journals of all shards; caption nothing")
    add("--retry_failed", action="store_true", help="read files again that failed in an earlier run")
    add("--num_workers", type=int, help="reading threads of a worker (default: half its cores, at most 8; 32 for URLs)")
    add("--dry_run", action="store_true", help="print how many files, groups and workers there would be; do nothing")
    add(
        "--query",
        metavar="TEXT",
        help="print the moments in --output_dir (made with --save_features) that fit best, highest similarity first, "
        "with the model that made them unless another place of it is given",
    )
    add("--top", type=int, default=10, help="how many moments --query prints (default 10)")
    add = parser.add_argument_group("many machines").add_argument
    add(
        "--ray",
        nargs="?",
        const=LOCAL_CLUSTER,
        metavar="ADDRESS",
        help="work on a Ray cluster: auto joins the one that runs here, HOST:PORT that one; without a value, on all "
        "devices of this machine",
    )
    add("--ray_workers", type=common.positive, metavar="N", help="of that cluster, at most (default: all devices)")
    add(
        "--ray_ship_weights",
        action="store_true",
        help="send the weights to the nodes, which otherwise have to see them under the same path",
    )
    common.add_generation_options(parser)
    common.add_device_options(parser)


def paths(arguments: argparse.Namespace) -> list[str]:
    """What to caption, in the order of the command: files by themselves, then those of --video_path."""
    return [*arguments.files, *(arguments.video_path or ())]


def check_usage(parser: Parser, arguments: argparse.Namespace) -> None:
    """Refuse options that do not go together."""
    to_folder = arguments.output_dir is not None
    if arguments.query is not None:
        if paths(arguments) or not to_folder:
            parser.error("--query searches a folder of results: give that with --output_dir, and no files")
        if arguments.ray is not None:
            parser.error("--ray: goes without --query, which is a matter of seconds")
        if arguments.top < 1:
            parser.error(f"--top: must be at least 1, got {arguments.top}")
        return
    if not paths(arguments):
        parser.error("give files to caption, as in inference.py VIDEO")
    beside = go_beside_inputs(arguments.output_format or ())
    for name in ("output_format", "save_features", "shard", "merge"):
        if getattr(arguments, name) and not to_folder and (name in ("save_features", "merge") or not beside):
            parser.error(f"--{name}: give a folder for the files with --output_dir")
    if arguments.force and "sidecar" not in (arguments.output_format or ()):
        parser.error("--force: goes with --output_format sidecar")
    given = common.given_options(arguments, CaptionOptions)
    if "segment_seconds" in given and given.get("frame_type") != "segments":
        parser.error("--segment_seconds: goes with --frame_type segments")
    check_ray_usage(parser, arguments)
    if arguments.num_workers is not None and arguments.num_workers < 1:
        parser.error(f"--num_workers: must be at least 1, got {arguments.num_workers}")


def check_ray_usage(parser: Parser, arguments: argparse.Namespace) -> None:
    """Refuse what does not go together with `--ray`, or not without."""
    if arguments.ray is None:
        for name in ("ray_workers", "ray_ship_weights"):
            if getattr(arguments, name):
                parser.error(f"--{name}: goes with --ray")
        return
    if not _ADDRESS.fullmatch(arguments.ray):
        parser.error(f"--ray {arguments.ray}: give auto or HOST:PORT, or no value; files stand before it")
    for name in ("shard", "merge", "device_id"):
        if getattr(arguments, name) not in (None, False):
            parser.error(f"--{name}: goes without --ray, which has one journal and chooses devices itself")
    if launch := find_launch(os.environ):
        parser.error(f"--ray: goes without a launcher, but {launch.promise}; start one")


def run(parser: Parser, arguments: argparse.Namespace) -> int | None:
    check_usage(parser, arguments)
    if os.environ.get("MS_ROLE") == "MS_SCHED":
        return 0  # msrun's scheduler connects processes, but these need no connection
    if not is_url(arguments.output_dir):
        return start(arguments)
    from mindone_coca.collection.mirror import Mirror

    mirror = Mirror(arguments.output_dir)
    here = argparse.Namespace(**{**vars(arguments), "output_dir": mirror.folder})
    if arguments.query is not None:
        mirror.pull("features")
        return start(here)
    with mirror.open():
        return start(here, mirror.sync)


def start(arguments: argparse.Namespace, sync: Callable[[], object] | None = None) -> int | None:
    """Caption or search. Returns the exit code.

    Args:
        sync: called now and then, where the output folder stands for one elsewhere.
    """
    options = CaptionOptions(
        **common.given_options(arguments, CaptionOptions), generation=common.generation_options(arguments)
    )
    if arguments.ray is None:
        common.configure_device(arguments)
    else:  # this process needs no device
        common.start_mindspore()
    if arguments.query is not None and arguments.config is None and arguments.model_path is None:
        from mindone_coca.collection.search import model_of_features

        search(arguments, *model_of_features(arguments.output_dir))
        return None
    from mindone_coca.factory import find_config_and_weights  # heavy

    config, weights = find_config_and_weights(arguments.config, arguments.model_path, arguments.lora)
    if arguments.query is not None:
        search(arguments, config, weights)
        return None
    from mindone_coca.cli.collections import caption

    return caption(arguments, paths(arguments), options, config, weights, sync)


def search(arguments: argparse.Namespace, config: "FamilyConfig", weights: Path) -> None:
    """Print the moments of a finished collection that fit a text best."""
    from mindone_coca.captioning.batches import encode_texts
    from mindone_coca.captioning.captioner import VideoCaptioner
    from mindone_coca.collection.search import best_moments, features_folder
    from mindone_coca.weights.fingerprint import model_name

    folder = features_folder(arguments.output_dir, model_name(config, weights))
    captioner = VideoCaptioner(config, weights, arguments.dtype)
    query = encode_texts(captioner.model, captioner.tokenizer, [arguments.query])[0]
    for moment in best_moments(folder, query, arguments.top):
        print(moment.line())


COMMAND = Command(DESCRIPTION, add_options, run)


def main(argv: Sequence[str] | None = None) -> int:
    return COMMAND.main(argv)
