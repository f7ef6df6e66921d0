import sys

from mindone_coca.interrupts import watch_signals

watch_signals(__name__)  # before the imports that take long

from mindone_coca.cli.caption import main

if __name__ == "__main__":
    sys.exit(main())
