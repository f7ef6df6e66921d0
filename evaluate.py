import sys

from mindone_coca.cli.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
