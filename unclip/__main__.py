"""`python -m unclip` is the command line."""

import sys

from unclip.cli import main

if __name__ == "__main__":
    sys.exit(main())
