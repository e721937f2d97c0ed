"""`python -m warte` is the same as the command `warte`."""

import sys

from warte.cli import main

if __name__ == "__main__":
    sys.exit(main())
