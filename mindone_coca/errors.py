"""The exception for mistakes that a user can mend."""


class InputError(ValueError):
    """A bad file, config or argument, told in one line that names it and says what to do.

    The command-line programs print the message without a traceback and exit with code 2.
    """


class UnknownArgumentError(InputError, TypeError):
    """A keyword argument that a function does not have: the TypeError that Python raises too, with the right name."""
