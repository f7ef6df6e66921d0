"""Caption videos and images: one file, or a whole collection.

python inference.py -c configs/coca_vit-l-14.yaml --video_path VIDEO
python inference.py --model_path models/ --video_path VIDEO --frame_type multi_frames --fusion pool
python inference.py --model_path models/ --video_path FOLDER --frame_type segments --output_dir OUT --output_format all
python inference.py --model_path models/ --output_dir OUT --query "a dog on a beach"

Standard output carries results only: for one file the caption, one line; for several "path<TAB>caption". Messages go to
standard error. Exit code 0: done; 1: some of several files failed, each named; 2: bad usage, config, checkpoint or the
only input, told in one line.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindone_coca.cli.common import (
    Parser,
    add_device_options,
    add_generation_options,
    add_model_options,
    configure_device,
    default_workers,
    generation_options,
    run_cli,
)
from mindone_coca.errors import InputError
from mindone_coca.outputs.schema import FORMATS

if TYPE_CHECKING:
    from mindone_coca.collection.inputs import Inputs
    from mindone_coca.config import ModelConfig


def build_parser() -> Parser:
    parser = Parser(__doc__)
    add = parser.add_argument
    add_model_options(parser)
    add("--video_path", nargs="+", metavar="PATH",
        help="video or image files, folders (with all in them), patterns such as 'a/**/*.mp4', text lists of files "
        "(.txt), or - for a list on standard input")  # fmt: skip
    add("--frame_type", default="middle", choices=("middle", "multi_frames", "mutil_frames", "segments"),
        help="what a caption is made from: the middle frame (default), several frames, or a frame for each segment "
        "of the video")  # fmt: skip
    add("--num_frames", type=int, default=16, help="frames that multi_frames takes, first to last (default 16)")
    add("--fusion", default="mean", choices=("mean", "pool"), help="how multi_frames become one (default mean)")
    add("--segment_seconds", type=float, help="length of segments (default: from one scene change to the next)")
    add("--scene_threshold", type=float, default=3.0,
        help="how much a frame must stand out to begin a scene; lower finds more (default 3)")  # fmt: skip
    add("--merge_similarity", type=float, default=0.95,
        help="segments whose images have this cosine similarity with the one before become part of it (default 0.95; "
        "1 merges none)")  # fmt: skip
    add("--prompt", help="text that the caption continues")

    group = parser.add_argument_group("collections")
    add = group.add_argument
    add("--output_dir", type=Path, help="folder for results; a run that was stopped goes on there")
    add("--output_format", nargs="+", choices=(*FORMATS, "all"), metavar="FORMAT",
        help=f"files to write in --output_dir: {', '.join(FORMATS)} or all (default json)")  # fmt: skip
    add("--save_features", action="store_true", help="also write image and text features, for --query and other tools")
    add("--shard", metavar="I/N", help="do part I (from 0) of N; under msrun each process does its part by itself")
    add("--retry_failed", action="store_true", help="read files again that failed in an earlier run")
    add("--num_workers", type=int, help="reading threads (default: half the cores, at most 8)")
    add("--query", metavar="TEXT", help="print the moments in --output_dir (made with --save_features) that fit best")
    add("--top", type=int, default=10, help="how many moments --query prints (default 10)")

    add = add_generation_options(parser).add_argument
    add("--num_return_sequences", type=int, default=1, help="captions of each image, best first (default 1)")
    add_device_options(parser)
    return parser


def all_generation_options(arguments: argparse.Namespace) -> dict[str, Any]:
    return {**generation_options(arguments), "num_return_sequences": arguments.num_return_sequences}


def check_usage(parser: Parser, arguments: argparse.Namespace) -> None:
    """Refuse options that do not go together."""
    to_folder = arguments.output_dir is not None
    if arguments.query is not None:
        if arguments.video_path is not None or not to_folder:
            parser.error("--query searches a folder of results: give that with --output_dir, and no --video_path")
        if arguments.top < 1:
            parser.error(f"--top: must be at least 1, got {arguments.top}")
        return
    if arguments.video_path is None:
        parser.error("--video_path: give files to caption")
    for name in ("output_format", "save_features", "shard"):
        if getattr(arguments, name) and not to_folder:
            parser.error(f"--{name}: give a folder for the files with --output_dir")
    if arguments.segment_seconds is not None and arguments.frame_type != "segments":
        parser.error("--segment_seconds: goes with --frame_type segments")
    if arguments.num_workers is not None and arguments.num_workers < 1:
        parser.error(f"--num_workers: must be at least 1, got {arguments.num_workers}")


def run(arguments: argparse.Namespace) -> int | None:
    # heavy imports only once the usage is right
    from mindone_coca.factory import find_config_and_weights

    configure_device(arguments)
    config, weights = find_config_and_weights(arguments.config, arguments.model_path)
    if arguments.query is not None:
        return search(arguments, config, weights)
    from mindone_coca.collection.inputs import list_inputs

    inputs = list_inputs(arguments.video_path)
    if inputs.single and arguments.output_dir is None and arguments.frame_type != "segments":
        return caption_one(arguments, config, weights)
    return caption_collection(arguments, inputs, config, weights)


def caption_one(arguments: argparse.Namespace, config: "ModelConfig", weights: Path) -> None:
    from mindone_coca.captioning.captioner import VideoCaptioner, one_line
    from mindone_coca.video.frames import read_frames

    # the file first: a wrong name should not cost the time to load a model
    frames = read_frames(arguments.video_path[0], arguments.frame_type, arguments.num_frames)
    captioner = VideoCaptioner(config, weights, arguments.dtype, arguments.num_frames, arguments.fusion)
    for caption in captioner.captions_of_frames(frames, arguments.prompt, **all_generation_options(arguments)):
        print(one_line(caption))


def caption_collection(arguments: argparse.Namespace, inputs: "Inputs", config: "ModelConfig", weights: Path) -> int:
    from mindone_coca.captioning.captioner import VideoCaptioner
    from mindone_coca.captioning.options import CaptionOptions
    from mindone_coca.collection.plan import Shard
    from mindone_coca.collection.run import CollectionRun, Output
    from mindone_coca.video.frames import open_video

    shard = Shard.parse(arguments.shard) if arguments.shard else Shard.from_msrun()
    if shard.count > 1 and arguments.output_dir is None:
        raise InputError("several processes: their parts meet in a folder; give one with --output_dir")
    if inputs.single:
        open_video(inputs.paths[0])  # a wrong name should not cost the time to load a model
    names = ("frame_type", "num_frames", "fusion", "segment_seconds", "scene_threshold", "merge_similarity", "prompt")
    options = CaptionOptions(
        **{name: getattr(arguments, name) for name in names}, generation=all_generation_options(arguments)
    )
    formats = arguments.output_format or ["json"]
    code = CollectionRun(
        inputs.paths, options,
        Output(arguments.output_dir, FORMATS if "all" in formats else formats, arguments.save_features, inputs.single),
        config, weights,
        lambda: VideoCaptioner(config, weights, arguments.dtype, arguments.num_frames, arguments.fusion),
        arguments.dtype, shard, arguments.num_workers or default_workers(),
        arguments.retry_failed,
    ).run()  # fmt: skip
    return 2 if code and inputs.single else code


def search(arguments: argparse.Namespace, config: "ModelConfig", weights: Path) -> None:
    from mindone_coca.captioning.batches import encode_texts
    from mindone_coca.captioning.captioner import VideoCaptioner
    from mindone_coca.collection.run import model_name
    from mindone_coca.collection.search import best_moments, features_folder

    folder = features_folder(arguments.output_dir, model_name(config, weights))
    query = encode_texts(VideoCaptioner(config, weights, arguments.dtype), [arguments.query])[0]
    for moment in best_moments(folder, query, arguments.top):
        print(moment.line())


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    check_usage(parser, arguments)
    if os.environ.get("MS_ROLE") == "MS_SCHED":
        return 0  # msrun's scheduler connects processes, but these need no connection
    return run_cli(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
