#!/usr/bin/env python
"""Write the images and captions of any training source into MindRecord files, which train.py reads as they are.

    python tools/make_mindrecord.py annotations/captions_train2017.json train.mindrecord --image_root train2017
    python tools/make_mindrecord.py "cc3m-{0000..0331}.tar" cc3m.mindrecord --shards 16

The encoded images are copied byte for byte. Exit code 0: all written; 1: some samples or rows cannot be read, as
standard error says; 2: bad usage or nothing to write.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for a checkout that is not installed

from mindone_coca.interrupts import watch_signals

watch_signals(__name__)  # before the imports that take long

from collections.abc import Sequence
from functools import partial

from mindone_coca.cli.common import Parser, run_cli, say_written, with_progress
from mindone_coca.data.mindrecord import write_mindrecord
from mindone_coca.data.settings import DataConfig
from mindone_coca.data.sources import open_sources
from mindone_coca.errors import InputError
from mindone_coca.files import check_output


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__)
    parser.add_argument("source", help="list file, folder of classes, or shards (a pattern such as x-{00..10}.tar)")
    parser.add_argument("target", type=Path, help="such as train.mindrecord; with --shards train.mindrecord0 and so on")
    parser.add_argument("--shards", type=int, default=1, help="number of files (default 1)")
    parser.add_argument(
        "--format", help="csv, tsv, jsonl, json, coco, webdataset, mindrecord or folder; default: by the name"
    )
    parser.add_argument("--image_root", help="where relative paths in a list start; default: the folder of the list")
    parser.add_argument("--image_key", help="column of the image (default filepath)")
    parser.add_argument("--caption_key", help="column of the caption or label (default title)")
    parser.add_argument("--separator", help="character between columns; default: by the header line")
    parser.add_argument("--caption_extension", help="of caption files beside the pictures in a folder, such as .txt")
    options = vars(parser.parse_args(arguments))
    path, target, shards = options.pop("source"), options.pop("target"), options.pop("shards")
    settings = {"path": path, **{key: value for key, value in options.items() if value is not None}}

    def run() -> int:
        if not 1 <= shards <= 1000:
            raise InputError(f"--shards {shards}: MindRecord takes 1 to 1000 files")
        check_output(target, "choose another target", folder=False)
        [source], _ = open_sources(settings, DataConfig(train=path), "make_mindrecord")
        shown = partial(with_progress, total=len(source), what=f"writing {target}")
        written, bad = write_mindrecord(source, target, shards, shown)
        for sample in bad:
            print(f"error: {sample.name} is left out: {sample.reason}", file=sys.stderr)
        numbers = [""] if shards == 1 else [f"{number:0{len(str(shards - 1))}}" for number in range(shards)]
        files = [target.with_name(target.name + number + suffix) for number in numbers for suffix in ("", ".db")]
        say_written(f"{written:,} samples", target, files)
        return 1 if bad or source.account.refused else 0

    return run_cli(run)


if __name__ == "__main__":
    sys.exit(main())
