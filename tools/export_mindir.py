#!/usr/bin/env python
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for a checkout that is not installed

from mindone_coca.interrupts import watch_signals

watch_signals(__name__)  # before the imports that take long

from mindone_coca.cli.export import main

if __name__ == "__main__":
    sys.exit(main())
