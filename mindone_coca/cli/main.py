"""`mindone-coca COMMAND ...`: all programs under one name."""

import sys
from collections.abc import Sequence

from mindone_coca.cli import caption, convert, curves, demo, evaluate, export, models, train
from mindone_coca.cli.common import Command, Parser, run_cli

COMMANDS: dict[str, Command] = {
    "caption": caption.COMMAND,
    "train": train.COMMAND,
    "evaluate": evaluate.COMMAND,
    "convert": convert.COMMAND,
    "export": export.COMMAND,
    "curves": curves.COMMAND,
    "models": models.COMMAND,
    "demo": demo.COMMAND,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names. Returns its exit code."""
    parser = Parser("CoCa (Contrastive Captioner) for MindSpore", prog="mindone-coca")
    parsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    of_command = {}
    for name, command in COMMANDS.items():
        of_command[name] = parsers.add_parser(name, help=command.summary, description=command.description)
        command.add_options(of_command[name])
    arguments = parser.parse_args(argv)
    command = COMMANDS[arguments.command]
    return run_cli(lambda: command.run(of_command[arguments.command], arguments))


if __name__ == "__main__":
    sys.exit(main())
