"""The one exception for mistakes that a user can mend."""


class InputError(ValueError):
    """A bad file, config or argument, told in one line that names it and says what to do.

    The command-line programs print the message without a traceback and exit with code 2.
    """
