"""The program that measures."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from mindone_coca.captioning.options import CaptionOptions
from mindone_coca.cli import common
from mindone_coca.cli.common import Command, Parser
from mindone_coca.errors import InputError
from mindone_coca.files import check_output
from mindone_coca.launcher import find_launch
from mindone_coca.tasks.spec import TASKS, TaskSpec
from mindone_coca.video.pictures import DEFAULT_RULES, PictureRules

if TYPE_CHECKING:
    from mindone_coca.captioning.captioner import VideoCaptioner
    from mindone_coca.data.settings import SourceConfig
    from mindone_coca.evaluation.samples import Samples

DESCRIPTION = """Measure what a CoCa can do.

python evaluate.py zeroshot -c configs/coca_vit-l-14.yaml --data FOLDER_WITH_A_FOLDER_PER_CLASS
python evaluate.py retrieval -c configs/coca_vit-l-14.yaml --data captions_val2014.json --image_root val2014
python evaluate.py captioning -c configs/coca_vit-l-14.yaml --data captions.csv --output_dir OUT
python evaluate.py classification -c RUN/final.yaml --data test.csv --output_dir OUT
python evaluate.py video_classification -c RUN/final.yaml --data test.csv --views 3
    and vqa, entailment, nlvr2: what train.py trained for that task

Standard output carries the metrics, a name and a value a line; --output_dir gets a report. Messages go to standard
error. Exit code 0: done; 2: bad usage, config, checkpoint or data, reported in one line.
"""

Metrics = dict[str, float | int]
SEGMENT_OPTIONS = ("segment_seconds", "scene_threshold", "merge_similarity")  # a file that is measured is one stretch


@dataclass(frozen=True)
class Evaluation:
    """A sub-command: its line in the help, its options, and what it does with them."""

    help: str
    add_options: Callable[[Parser], None]
    run: Callable[[argparse.Namespace], Metrics]


def _add_data_options(parser: Parser, *, data: str, formats: str, readers: str) -> Callable[..., argparse.Action]:
    """The options of all sub-commands for what is measured. Returns what adds more of them."""
    add = parser.add_argument_group("data").add_argument
    add("--data", required=True, metavar="PATH", help=data)
    add("--format", help=f"{formats} (default: by the path)")
    add("--image_root", help="where relative paths in a list start (default: the list's folder)")
    add(
        "--num_workers",
        type=common.positive,
        default=common.default_workers(),
        help=f"reading {readers} (default: half the cores)",
    )
    return add


def add_common_options(parser: Parser, text_key: str, meaning: str) -> None:
    """The options of the tasks that need no training; `text_key` is the option for the column with the text."""
    common.add_model_options(parser)
    add = parser.add_argument
    add("--output_dir", type=common.local_path, help="folder for the report: metrics.json, examples.html and more")
    add = _add_data_options(
        parser,
        data="a list (CSV, TSV, JSONL, COCO captions), shards or a folder",
        formats="csv, tsv, jsonl, coco, webdataset, mindrecord or folder",
        readers="threads",
    )
    add("--image_key", help="column with the image's or video's path (default filepath)")
    add(f"--{text_key}", help=meaning)
    add("--separator", help="between the columns of a table (default: by the header line)")
    add(
        "--open_clip_pictures",
        action="store_true",
        help="read pictures as open_clip does, for its numbers: not turned by EXIF data, 16 bits clipped",
    )
    common.add_dataclass_options(parser, CaptionOptions, skip=(*SEGMENT_OPTIONS, "prompt", "generation"))


def add_zeroshot_options(parser: Parser) -> None:
    add_common_options(parser, "label_key", "column with the class (default label; cls in webdataset)")
    add = parser.add_argument_group("classes").add_argument
    add(
        "--templates",
        default="zeroshot_templates",
        help="YAML file: `templates`, a list of sentences with {} for the class (default: packaged ones)",
    )
    add("--class_names", metavar="JSON", help="file {folder or label: name}; all in it are classes to choose from")


def add_retrieval_options(parser: Parser) -> None:
    add_common_options(parser, "caption_key", "column with the caption (default title)")
    add = parser.add_argument_group("a folder of pictures").add_argument
    add("--caption_extension", help="of the caption files beside the pictures, such as .txt")
    add("--caption_lines", action="store_true", default=None, help="each line of these is a caption")


def add_captioning_options(parser: Parser) -> None:
    add_retrieval_options(parser)
    parser.add_argument("--prompt", help="text that the captions continue")
    common.add_generation_options(parser, skip=("num_return_sequences",))


def add_task_options(parser: Parser, spec: TaskSpec) -> None:
    """The options of a task that train.py trains a model for."""
    add = parser.add_argument
    add("-c", "--config", required=True, help="the training run's final.yaml or best.yaml")
    add("--model_path", help="weights file (default: the one that the config names)")
    common.add_lora_option(parser)
    add(
        "--output_dir",
        type=common.local_path,
        help="folder for the report: metrics.json, predictions.csv, examples.html and more",
    )
    add("--batch_size", type=int, default=32)
    _add_data_options(
        parser,
        data="rows with the training data's columns: CSV, TSV or JSONL",
        formats="csv, tsv, jsonl or folder",
        readers="processes",
    )
    if spec.video:
        parser.add_argument("--views", type=int, default=1, help="clips of each video to average over (default 1)")


def run_task(arguments: argparse.Namespace) -> Metrics:
    from mindone_coca.tasks.evaluate import evaluate_task

    given = {key: getattr(arguments, key) for key in ("format", "image_root")}
    source = {"path": arguments.data, **{key: value for key, value in given.items() if value is not None}}
    return evaluate_task(
        arguments.task,
        arguments.config,
        source,
        arguments.output_dir,
        model_path=arguments.model_path,
        lora=arguments.lora,
        dtype=arguments.dtype,
        batch_size=arguments.batch_size,
        views=getattr(arguments, "views", 1),
        num_workers=arguments.num_workers,
    )


def source_config(arguments: argparse.Namespace) -> "SourceConfig":
    """The settings of --data. Labels without a name for their column have the usual one."""
    from mindone_coca.data import sources

    keys: tuple[str, ...] = ("format", "image_root", "image_key", "caption_key", "label_key", "separator")
    keys += ("caption_extension", "caption_lines")
    given = {key: getattr(arguments, key, None) for key in keys}
    settings = {"path": arguments.data, **{key: value for key, value in given.items() if value is not None}}
    config = sources.source_config(settings, "--data")
    kind = sources.source_format(config)
    if arguments.task == "zeroshot" and kind != "folder" and config.label_key is None:
        if kind == "coco":
            raise InputError(f"{arguments.data}: it holds captions, no labels; give a folder per class, or a table")
        config.label_key = "cls" if kind == "webdataset" else "label"
    if arguments.task != "zeroshot" and kind == "folder" and config.caption_extension is None:
        raise InputError(
            f"{arguments.data}: a folder of images has no captions; give a list, such as a CSV or COCO's, or "
            "--caption_extension if there are caption files beside the pictures"
        )
    return config


def run_zeroshot(arguments: argparse.Namespace) -> Metrics:
    from mindone_coca.evaluation.zeroshot import evaluate_zeroshot, open_classes, read_templates

    data = open_classes(source_config(arguments), arguments.class_names, picture_rules(arguments))
    templates = read_templates(arguments.templates)
    if len(data.names) <= 5:
        print("top5 is left out: among five classes or fewer it cannot fail", file=sys.stderr)
    captioner, options, notes = load_model(arguments)
    notes["templates"] = f"{len(templates)} of {arguments.templates}"
    return evaluate_zeroshot(captioner, data, templates, options, arguments.num_workers, arguments.output_dir, notes)


def run_retrieval(arguments: argparse.Namespace) -> Metrics:
    from mindone_coca.evaluation.retrieval import evaluate_retrieval

    samples = captioned_samples(arguments)
    captioner, options, notes = load_model(arguments)
    return evaluate_retrieval(captioner, samples, options, arguments.num_workers, arguments.output_dir, notes)


def run_captioning(arguments: argparse.Namespace) -> Metrics:
    from mindone_coca.evaluation.captioning import evaluate_captioning

    samples = captioned_samples(arguments)
    captioner, options, notes = load_model(arguments, **common.generation_options(arguments))
    return evaluate_captioning(captioner, samples, options, arguments.num_workers, arguments.output_dir, notes)


def picture_rules(arguments: argparse.Namespace) -> PictureRules:
    return PictureRules(False, False) if arguments.open_clip_pictures else DEFAULT_RULES


def captioned_samples(arguments: argparse.Namespace) -> "Samples":
    from mindone_coca.evaluation.samples import open_samples

    return open_samples(source_config(arguments), picture_rules(arguments))[1]


def load_model(
    arguments: argparse.Namespace, **generation: object
) -> tuple["VideoCaptioner", CaptionOptions, dict[str, str]]:
    """The model, how it is to be used, and what the report is to say of it."""
    options = CaptionOptions(**common.given_options(arguments, CaptionOptions), generation=generation)
    if options.in_segments:
        raise InputError("--frame_type segments: what is measured is one caption a file; give middle or multi_frames")
    from mindone_coca.captioning.captioner import VideoCaptioner
    from mindone_coca.factory import find_config_and_weights
    from mindone_coca.weights.fingerprint import model_name

    config, weights = find_config_and_weights(arguments.config, arguments.model_path, arguments.lora)
    captioner = VideoCaptioner(config, weights, arguments.dtype, options.num_frames, options.fusion)
    notes = {"model": model_name(config, weights), "data": arguments.data}
    if arguments.open_clip_pictures:
        notes["pictures"] = "as open_clip reads them"
    return captioner, options, notes


EVALUATIONS = {
    "zeroshot": Evaluation("classify images by the names of classes", add_zeroshot_options, run_zeroshot),
    "retrieval": Evaluation("find captions for images and images for captions", add_retrieval_options, run_retrieval),
    "captioning": Evaluation("caption images and compare with references", add_captioning_options, run_captioning),
    **{task: Evaluation(spec.help, partial(add_task_options, spec=spec), run_task) for task, spec in TASKS.items()},
}


def add_options(parser: Parser) -> None:
    tasks = parser.add_subparsers(dest="task", metavar="TASK", required=True)
    for name, evaluation in EVALUATIONS.items():
        command = tasks.add_parser(name, help=evaluation.help, description=evaluation.help)
        evaluation.add_options(command)
        common.add_device_options(command)


def run(parser: Parser, arguments: argparse.Namespace) -> None:
    if launch := find_launch(os.environ):  # each would write the same report
        raise InputError(f"one process evaluates, but {launch.promise}; start one")
    if arguments.output_dir is not None:
        check_output(arguments.output_dir, "give another --output_dir")
    common.configure_device(arguments)
    metrics = EVALUATIONS[arguments.task].run(arguments)
    from mindone_coca.evaluation.reports import show

    for name, value in metrics.items():
        print(name, show(value))
    if arguments.output_dir is not None:
        common.say_written("the report", arguments.output_dir)


COMMAND = Command(DESCRIPTION, add_options, run)


def main(argv: Sequence[str] | None = None) -> int:
    return COMMAND.main(argv)
