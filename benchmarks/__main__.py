"""`python -m benchmarks NAME [--quick]`: this program and its peers in one run."""

import argparse
import sys
from collections.abc import Sequence

from benchmarks.earth import cli as earth
from benchmarks.nmf import cli as nmf
from benchmarks.scale import cli as scale
from benchmarks.sky import cli as sky
from benchmarks.spectra import cli as spectra


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the named benchmark; 0 when every part ran."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = parser.add_subparsers(required=True, metavar="NAME")
    for name, part in (
        ("sky", sky),
        ("nmf", nmf),
        ("spectra", spectra),
        ("earth", earth),
        ("scale", scale),
    ):
        one = names.add_parser(name, help=part.__doc__)
        part.add_arguments(one)
        one.set_defaults(run=part.run)
    chosen = parser.parse_args(arguments)
    return int(chosen.run(chosen))


if __name__ == "__main__":
    sys.exit(main())
