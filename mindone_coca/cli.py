"""What the command-line programs share: usage errors and user mistakes in one line, and the exit codes."""

import argparse
import os
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn

from mindone_coca.errors import InputError


class Parser(argparse.ArgumentParser):
    """Shows the program's docstring as it is written, and tells a usage error in one line."""

    def __init__(self, description: str | None) -> None:
        super().__init__(
            description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
        )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see --help\n")


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
