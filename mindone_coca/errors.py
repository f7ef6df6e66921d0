"""The exception for mistakes that a user can mend."""


class InputError(ValueError):
    """A bad file, config or argument, told in one line that names it and says what to do.

    The command-line programs print the message without a traceback and exit with code 2.
    """


class UnknownArgumentError(InputError, TypeError):
    """A keyword argument that a function does not have: the TypeError that Python raises too, with the right name."""


class OutputError(OSError, InputError):
    """A result that could not be written, as a full disk refuses it: the system's OSError, told in one line.

    Args:
        line: the message. error: of the system, whose `errno` and `strerror` this has.
    """

    def __init__(self, line: str, error: OSError) -> None:
        super().__init__(error.errno, error.strerror or str(error))
        self.line = line

    def __str__(self) -> str:
        return self.line
