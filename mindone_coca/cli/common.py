"""What the command-line programs share: groups of options, mistakes told in one line, and the exit codes."""

import argparse
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

from mindone_coca.errors import InputError


class Parser(argparse.ArgumentParser):
    """Shows the program's docstring as it is written, and tells a usage error in one line."""

    def __init__(self, description: str | None = None, **options: Any) -> None:
        super().__init__(
            description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options
        )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see --help\n")


def add_model_options(parser: Parser) -> None:
    """`-c` and `--model_path`, for `mindone_coca.factory.find_config_and_weights`."""
    add = parser.add_argument
    add("-c", "--config", help="model config, YAML or JSON; may be left out if one lies beside the weights")
    add("--model_path", help="weights file or folder (default: the config's checkpoint, else models/coca_model.*)")


def add_generation_options(parser: Parser) -> argparse._ArgumentGroup:
    """How to caption, for `generation_options`. Returns the group."""
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
    return group


GENERATION = (
    "generation_type", "seq_len", "max_seq_len", "min_seq_len", "temperature", "top_p", "top_k", "repetition_penalty",
    "fixed_output_length", "pad_token_id", "eos_token_id", "sot_token_id", "diversity_penalty", "normalize_scores",
    "length_penalty", "seed",
)  # fmt: skip


def generation_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `CoCa.generate` that `add_generation_options` stands for."""
    options = {name: getattr(arguments, name) for name in GENERATION}
    beams, groups = arguments.num_beams, arguments.num_beam_groups
    if beams is not None:
        options["num_beams"] = beams
        options["num_beam_groups"] = 1 if groups is None else groups
    elif groups is not None:
        options["num_beam_groups"] = groups
    return options


def add_device_options(parser: Parser) -> None:
    """Where and how to run, for `configure_device`; `--dtype` is an argument of `create_model`."""
    add = parser.add_argument_group("device").add_argument
    add("--device_target", default="auto", choices=("auto", "CPU", "GPU", "Ascend"))
    add("--device_id", type=int)
    add("--mode", default="graph", choices=("graph", "pynative"))
    add("--dtype", default="float32", choices=("float32", "float16", "bfloat16"))
    add("--jit_level", choices=("O0", "O1", "O2"))
    add("--max_device_memory", help="such as 30GB")


def configure_device(arguments: argparse.Namespace) -> None:
    """Set up MindSpore as `add_device_options` says. Raises InputError."""
    from mindone_coca import device  # heavy: only once the usage is right

    device.configure(
        arguments.device_target, arguments.device_id, arguments.mode, arguments.jit_level, arguments.max_device_memory
    )


def default_workers() -> int:
    """Reading threads: half the cores, at most 8."""
    return min(8, max(1, (os.cpu_count() or 1) // 2))


def run_cli(program: Callable[[], int | None]) -> int:
    """Run a program whose arguments are parsed. Returns its exit code: its own (None: 0), or 2 after an InputError,
    which is printed in one line, as warnings are."""
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    os.environ.setdefault("GLOG_v", "3")  # MindSpore's log: errors only, unless the user wants more
    try:
        return program() or 0
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
