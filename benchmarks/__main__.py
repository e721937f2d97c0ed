"""`python -m benchmarks sky [--quick]`."""

import argparse
import sys
from collections.abc import Sequence

from benchmarks.sky import cli as sky


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the named benchmark; 0 when every part ran."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = parser.add_subparsers(required=True, metavar="NAME")
    sky.add_arguments(names.add_parser("sky", help=sky.__doc__))
    chosen = parser.parse_args(arguments)
    return sky.run(chosen)


if __name__ == "__main__":
    sys.exit(main())
