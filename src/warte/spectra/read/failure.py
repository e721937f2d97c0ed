"""What can be wrong with a file, and how it is told."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from astropy.io import fits

from warte.core.errors import InputError

# What astropy and NumPy raise for files that are cut short or damaged.
DAMAGE: tuple[type[Exception], ...] = (
    *(OSError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError),
    *(RuntimeError, ArithmeticError, AssertionError, MemoryError, zlib.error, fits.VerifyError),
)


@dataclass(frozen=True)
class Failure:
    """A spectrum that could not be read, and why, in one line without its name."""

    name: str
    reason: str


def failure(name: str, problem: InputError) -> Failure:
    """The failure that an error about `name` stands for."""
    return Failure(name, str(problem).removeprefix(f"{name}: "))
