"""Readers of command-line values that the benchmarks share."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def parts_of(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    """Reader of a list such as "faint,codec", whose names must be known."""

    def read(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(
                f"{unknown[0]!r} is no part; parts are {', '.join(known)}"
            )
        return names

    return read


def positive(text: str) -> int:
    """Read a whole number from 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number
