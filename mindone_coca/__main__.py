"""`python -m mindone_coca COMMAND ...`, and the installed command `mindone-coca`."""

import sys

from mindone_coca.interrupts import watch_signals


def main() -> int:
    watch_signals("__main__")  # before the imports that take long
    from mindone_coca.cli.main import main

    return main()


if __name__ == "__main__":
    sys.exit(main())
