"""What the programs share: groups of options, mistakes reported in one line, and the exit codes."""

import argparse
import dataclasses
import os
import sys
import types
import typing
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from mindone_coca.config import DeviceTarget, Dtype, JitLevel, Mode
from mindone_coca.errors import InputError
from mindone_coca.generation.settings import GenerationOptions


class Parser(argparse.ArgumentParser):
    """Shows the program's description as it is written, and reports a usage error in one line."""

    def __init__(self, description: str | None = None, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(description=description, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see --help\n")


@dataclass(frozen=True)
class Command:
    """One program.

    Attributes:
        description: the text of its help, of which the first line says what it does.
        add_options: adds its options to a parser.
        run: does what they ask; returns the exit code, None for 0. Its mistakes in usage are `parser.error`'s.
    """

    description: str
    add_options: Callable[[Parser], None]
    run: Callable[[Parser, argparse.Namespace], int | None]

    @property
    def summary(self) -> str:
        """What it does, in a line."""
        return self.description.splitlines()[0].rstrip(".")

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run it alone. Returns the exit code."""
        parser = Parser(self.description)
        self.add_options(parser)
        arguments = parser.parse_args(argv)
        return run_cli(lambda: self.run(parser, arguments))


def add_dataclass_options(parser: Any, cls: type, skip: Collection[str] = ()) -> None:
    """An option for each field of a dataclass, of its type, with its help; those not given stay out of the namespace.

    Args:
        parser: or a group of one.
    """
    hints = typing.get_type_hints(cls)
    for spec in dataclasses.fields(cls):
        if spec.name in skip:
            continue
        hint = hints[spec.name]
        if typing.get_origin(hint) in (typing.Union, types.UnionType):  # X | None
            hint = next(part for part in typing.get_args(hint) if part is not types.NoneType)
        text = spec.metadata.get("help", "")
        settings: dict[str, Any] = {"default": argparse.SUPPRESS}
        if hint is bool:
            settings["action"] = "store_true"
        elif typing.get_origin(hint) is typing.Literal:
            settings["choices"] = typing.get_args(hint)
        else:
            settings["type"] = hint
        if hint is not bool and spec.default is not None:
            text = f"{text} (default {spec.default})".strip()
        parser.add_argument(f"--{spec.name}", help=text, **settings)


def given_options(arguments: argparse.Namespace, cls: type) -> dict[str, Any]:
    """What was given of `add_dataclass_options`, by field."""
    names = [spec.name for spec in dataclasses.fields(cls)]
    return {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}


def add_model_options(parser: Parser) -> None:
    """`-c` and `--model_path`, for `mindone_coca.factory.find_config_and_weights`."""
    add = parser.add_argument
    add("-c", "--config", help="model config, YAML or JSON; may be left out if one lies beside the weights")
    add(
        "--model_path",
        help="weights file or folder, or published ones: hf:OWNER/NAME[@REVISION][/FILE] or a name from `mindone-coca "
        "models` (default: the config's checkpoint, else models/coca_model.*)",
    )


def add_generation_options(parser: Parser, skip: Collection[str] = ()) -> None:
    """How to caption, for `generation_options`."""
    group = parser.add_argument_group("generation (open_clip's arguments and defaults, then ours)")
    add_dataclass_options(group, GenerationOptions, skip)


def generation_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `CoCa.generate` that `add_generation_options` stands for; beams without groups are one group."""
    given = given_options(arguments, GenerationOptions)
    if "num_beams" in given:
        given.setdefault("num_beam_groups", 1)
    return dataclasses.asdict(GenerationOptions(**given))


def add_device_options(parser: Parser) -> None:
    """Where and how to run, for `configure_device`; `--dtype` is an argument of `create_model`."""
    add = parser.add_argument_group("device").add_argument
    add("--device_target", default="auto", choices=typing.get_args(DeviceTarget))
    add("--device_id", type=int)
    add("--mode", default="graph", choices=typing.get_args(Mode))
    add("--dtype", choices=typing.get_args(Dtype), help="of weights and activations (default: the config's, float32)")
    add("--jit_level", choices=typing.get_args(JitLevel))
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


def positive(text: str) -> int:
    """A whole number above 0, as the type of an option."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, got {text}")
    return int(text)


def run_cli(program: Callable[[], int | None]) -> int:
    """Run a program whose arguments are parsed. Returns its exit code: its own (None: 0), or 2 after an InputError,
    which is printed in one line, as warnings are."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the terminal's encoding lacks is written with escapes
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    os.environ.setdefault("GLOG_v", "3")  # MindSpore's log: errors only, unless the user wants more
    try:
        return program() or 0
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
