"""What the programs share: groups of options, mistakes reported in one line, and the exit codes."""

import argparse
import dataclasses
import errno
import os
import signal
import sys
import types
import typing
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from tqdm import tqdm

from mindone_coca import waiting
from mindone_coca.account import number_of
from mindone_coca.collection.plan import reading_threads
from mindone_coca.config import DeviceTarget, Dtype, JitLevel, Kernels, Mode
from mindone_coca.errors import InputError
from mindone_coca.generation.settings import GenerationOptions
from mindone_coca.interrupts import Stopped, end_by
from mindone_coca.progress import progress
from mindone_coca.storage import is_url, shown
from mindone_coca.typed_mapping import nearest_name

Item = TypeVar("Item")


class Parser(argparse.ArgumentParser):
    """Shows the program's description as it is written, and reports a usage error in one line."""

    def __init__(self, description: str | None = None, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(description=description, allow_abbrev=False, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse, but an option that does not exist is an error, with the nearest one that does; and values may
        stand between options wherever any number of them may stand."""
        args = list(sys.argv[1:] if args is None else args)
        self._refuse_unknown(args)
        parsed, rest = super().parse_known_args(args, namespace)
        free = [action for action in self._get_positional_actions() if action.nargs == "*"]
        if rest and free and not any(value.startswith("-") for value in rest):
            setattr(parsed, free[0].dest, [*getattr(parsed, free[0].dest), *rest])
            rest = []
        return parsed, rest

    def _refuse_unknown(self, args: Sequence[str]) -> None:
        known = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
        for value in args:
            name = value.partition("=")[0]
            if value == "--" or (self._subparsers is not None and not value.startswith("-")):
                return  # values only from here on, or a command with options of its own
            if name.startswith("--") and name not in known and " " not in name:
                close = nearest_name(name[2:].replace("-", "_"), (option[2:] for option in known))
                self.error(f"{name}: no such option" + (f"; did you mean --{close}?" if close else ""))

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
    add_lora_option(parser)


def add_lora_option(parser: Parser) -> None:
    """`--lora`, for `find_config_and_weights` and the converter."""
    parser.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="DIR[=WEIGHT]",
        help="merge the LoRA adapters of a folder, ours or peft's, into the weights, WEIGHT times; may be given again",
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
    add(
        "--kernels",
        default="auto",
        choices=typing.get_args(Kernels),
        help="the fastest forms of operations that the device has, or those that all devices have (default auto)",
    )
    add("--deterministic", action="store_true", help="the same digits each time also on Ascend, more slowly")


def start_mindspore() -> None:
    """Import MindSpore: only once the usage is right, as it takes seconds."""
    with waiting.Wait("starting MindSpore"):
        import mindspore  # noqa: F401


def device_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `device.configure`, but for the number of the device."""
    return {
        "target": arguments.device_target,
        "mode": arguments.mode,
        "jit_level": arguments.jit_level,
        "max_memory": arguments.max_device_memory,
        "kernels": arguments.kernels,
        "deterministic": arguments.deterministic,
    }


def configure_device(arguments: argparse.Namespace) -> None:
    """Set up MindSpore as `add_device_options` says. Raises InputError."""
    start_mindspore()
    from mindone_coca import device

    device.configure(device_id=arguments.device_id, **device_settings(arguments))


def default_workers() -> int:
    """Reading threads: half the cores, at most 8."""
    return reading_threads(os.cpu_count() or 1)


def local_path(text: str) -> Path:
    """A path of this machine, as the type of an option for what is written there alone."""
    if is_url(text):
        raise argparse.ArgumentTypeError(f"{shown(text)}: written on this machine only; give a path, and copy it there")
    return Path(text)


def positive(text: str) -> int:
    """A whole number above 0, as the type of an option."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, got {text}")
    return int(text)


def with_progress(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    """The items, `total` of them, with a bar on a terminal; elsewhere a line says `what` if they take long."""
    shown = progress(items, total, what, "")
    if sys.stderr.isatty():
        yield from shown
    else:
        with waiting.Wait(what):
            yield from shown


def say_written(what: str, place: Path, files: Iterable[Path] | None = None) -> None:
    """Say on standard error what a program wrote where, and how much it is.

    Args:
        place: a file, or a folder that may have held more.
        files: those written; None: the file, or all in the folder.
    """
    if files is None:
        files = [place] if place.is_file() else place.rglob("*")
    sizes = [file.stat().st_size for file in files if file.is_file()]
    size = tqdm.format_sizeof(sum(sizes), "B")
    print(f"wrote {what} to {place}: {number_of(len(sizes), 'file')}, {size}", file=sys.stderr)


def _discard_stdout() -> None:
    """Let what is left for standard output go nowhere: Python would try to write it again at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run_cli(program: Callable[[], int | None]) -> int:
    """Run a program whose arguments are parsed. Returns its exit code: its own (None: 0), 2 after an InputError, or 130
    and 143 where SIGINT and SIGTERM stopped it (`interrupts`), or 141 where nobody reads its results any more. These,
    but for the last, and warnings are printed in one line."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the terminal's encoding lacks is written with escapes
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    waiting.show()
    try:
        code = program() or 0
        sys.stdout.flush()
        return code
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # who reads the results has what he wants, as `head` has
        _discard_stdout()
        return 128 + signal.SIGPIPE
    except OSError as error:
        # files are written through files.py, which names them; what has no name is standard output
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        _discard_stdout()
        print(f"error: standard output cannot be written ({error.strerror})", file=sys.stderr)
        return 2
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return end_by(stopped.number)
