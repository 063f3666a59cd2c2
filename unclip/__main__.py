"""`python -m unclip` is the command line."""

import sys

from unclip.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
