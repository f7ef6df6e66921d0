"""Caption a video or an image.

python inference.py -c configs/coca_vit-l-14.yaml --video_path VIDEO
python inference.py --model_path models/ --video_path VIDEO --frame_type multi_frames --fusion pool

Standard output carries the caption alone, one line; messages go to standard error. Exit code 0: done; 2: bad usage,
config, checkpoint or input, told in one line.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from mindone_coca.errors import InputError


class Parser(argparse.ArgumentParser):
    """Tells a usage error in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see --help\n")


def build_parser() -> Parser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    add = parser.add_argument
    add("-c", "--config", help="model config, YAML or JSON; may be left out if one lies beside the weights")
    add("--model_path", help="weights file or folder (default: the config's checkpoint, else models/coca_model.*)")
    add("--video_path", required=True, help="video or image file")
    add("--frame_type", default="middle", choices=("middle", "multi_frames", "mutil_frames"))
    add("--num_frames", type=int, default=16, help="frames that multi_frames takes, first to last (default 16)")
    add("--fusion", default="mean", choices=("mean", "pool"), help="how multi_frames become one (default mean)")
    add("--prompt", help="text that the caption continues")

    group = parser.add_argument_group("generation (open_clip's arguments and defaults, then ours)")
    add = group.add_argument
    add("--generation_type", default="beam_search", choices=("beam_search", "top_k", "top_p"))
    add("--seq_len", type=int, default=30, help="longest caption in tokens, start and end included (default 30)")
    add("--max_seq_len", type=int, default=77, help="sampling sees the last tokens only (default 77)")
    add("--min_seq_len", type=int, default=5, help="no end before this many tokens (default 5)")
    add("--temperature", type=float, default=1.0)
    add("--top_p", type=float, default=0.1)
    add("--top_k", type=int, default=1, help="1 is greedy (default 1)")
    add("--num_beams", type=int, help="default 6, in 3 groups")
    add("--num_beam_groups", type=int, help="default 3; 1 when only --num_beams is given")
    add("--repetition_penalty", type=float, default=1.0)
    add("--fixed_output_length", action="store_true", help="pad to seq_len (the text is the same)")
    add("--pad_token_id", type=int)
    add("--eos_token_id", type=int)
    add("--sot_token_id", type=int)
    add("--diversity_penalty", type=float, default=0.0, help="between beam groups, which are alike without it")
    add("--normalize_scores", action="store_true", help="textbook beam search: add log-probabilities, not logits")
    add("--length_penalty", type=float, default=1.0)
    add("--seed", type=int, help="makes sampling reproducible")

    group = parser.add_argument_group("device")
    add = group.add_argument
    add("--device_target", default="auto", choices=("auto", "CPU", "GPU", "Ascend"))
    add("--device_id", type=int)
    add("--mode", default="graph", choices=("graph", "pynative"))
    add("--dtype", default="float32", choices=("float32", "float16", "bfloat16"))
    add("--jit_level", choices=("O0", "O1", "O2"))
    add("--max_device_memory", help="such as 30GB")
    return parser


GENERATION = (
    "generation_type", "seq_len", "max_seq_len", "min_seq_len", "temperature", "top_p", "top_k", "repetition_penalty",
    "fixed_output_length", "pad_token_id", "eos_token_id", "sot_token_id", "diversity_penalty", "normalize_scores",
    "length_penalty", "seed",
)  # fmt: skip


def generation_options(arguments: argparse.Namespace) -> dict:
    options = {name: getattr(arguments, name) for name in GENERATION}
    beams, groups = arguments.num_beams, arguments.num_beam_groups
    if beams is not None:
        options["num_beams"] = beams
        options["num_beam_groups"] = 1 if groups is None else groups
    elif groups is not None:
        options["num_beam_groups"] = groups
    return options


def run(arguments: argparse.Namespace) -> None:
    os.environ.setdefault("GLOG_v", "3")  # MindSpore's log: errors only, unless the user wants more
    # heavy imports only once the usage is right
    from mindone_coca import device
    from mindone_coca.captioner import VideoCaptioner
    from mindone_coca.data.video import read_frames
    from mindone_coca.factory import find_config_and_weights

    device.configure(
        arguments.device_target, arguments.device_id, arguments.mode, arguments.jit_level, arguments.max_device_memory
    )
    config, weights = find_config_and_weights(arguments.config, arguments.model_path)
    # the file first: a wrong name should not cost the time to load a model
    frames = read_frames(arguments.video_path, arguments.frame_type, arguments.num_frames)
    captioner = VideoCaptioner(config, weights, arguments.dtype, arguments.num_frames, arguments.fusion)
    caption = captioner.caption_frames(frames, arguments.prompt, **generation_options(arguments))
    print(" ".join(caption.split()))


def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    try:
        run(arguments)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
