"""`python -m mindone_coca COMMAND ...`, as the installed command `mindone-coca`."""

import sys

from mindone_coca.cli.main import main

sys.exit(main())
