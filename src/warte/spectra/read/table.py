"""Columns of binary FITS tables, taken straight from the bytes of their rows.

The summary table of an SDSS file has one row and some 200 columns, of which four are wanted;
astropy spends ten times longer on them all than on everything else in the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from warte.core.errors import InputError

# Letter of TFORM -> type of one entry and its bytes (FITS standard 4.0, table 18); bits apart.
_TYPES = {
    "L": ("i1", 1), "B": ("u1", 1), "A": ("S1", 1), "I": (">i2", 2), "J": (">i4", 4),
    "K": (">i8", 8), "E": (">f4", 4), "D": (">f8", 8), "C": (">c8", 8), "M": (">c16", 16),
    "P": (">i4", 8), "Q": (">i8", 16),
}  # fmt: skip


def table_at(hdus: fits.HDUList, place: int) -> Any:
    """The binary table at a place, None where there is no such HDU or it is no table.

    Later HDUs are not looked at, as `len(hdus)` would.
    """
    try:
        hdu = hdus[place]
    except IndexError:
        return None
    return hdu if isinstance(hdu, fits.BinTableHDU) else None


def has_columns(hdu: Any, names: Sequence[str]) -> bool:
    """Whether a binary table has columns of all these names (upper case), in any case."""
    wanted = set(names)
    for _, name, *_ in _columns(hdu):
        wanted.discard(name)
        if not wanted:
            return True
    return False


def columns(hdu: Any, names: Sequence[str], file: str) -> dict[str, npt.NDArray[Any]]:
    """The columns of a binary table that it has of `names` (upper case), one entry per row.

    Strings and arrays within a cell are not read. `file` is named where rows are missing.

    Raises:
        InputError: the file ends before the table does.
    """
    header = hdu.header
    width, rows = int(header["NAXIS1"]), int(header["NAXIS2"])
    offsets: dict[str, int] = {}
    kinds: dict[str, str] = {}
    scales: dict[str, tuple[float, float]] = {}
    for number, name, kind, count, offset in _columns(hdu):
        if name in names and count == 1 and kind in "BIJKED":
            offsets[name], kinds[name] = offset, _TYPES[kind][0]
            scales[name] = (header.get(f"TSCAL{number}", 1), header.get(f"TZERO{number}", 0))
        if len(offsets) == len(names):
            break
    row = np.dtype(
        {
            "names": list(offsets),
            "formats": [kinds[name] for name in offsets],
            "offsets": list(offsets.values()),
            "itemsize": width,
        }
    )
    cells = np.frombuffer(_bytes(hdu, width * rows, file), dtype=row)
    found = {}
    for name, (scale, zero) in scales.items():
        plain = cells[name]
        found[name] = plain if (scale, zero) == (1, 0) else plain.astype(float) * scale + zero
    return found


def _columns(hdu: Any) -> Iterator[tuple[int, str, str, int, int]]:
    """Number, name in upper case, letter, entries and first byte of each column of a row."""
    place = hdu.fileinfo()
    place["file"].seek(place["hdrLoc"])
    head = place["file"].read(place["datLoc"] - place["hdrLoc"]).decode("latin-1")
    names = dict(re.findall(r"TTYPE(\d+) *= *'([^']*)'", head))
    forms = dict(re.findall(r"TFORM(\d+) *= *'([^']*)'", head))
    offset = 0
    for number in range(1, int(hdu.header["TFIELDS"]) + 1):
        form = re.match(r"\s*(\d*)([A-Z])", forms[str(number)])
        if form is None or form[2] not in (*_TYPES, "X"):
            raise ValueError(f"TFORM{number} is {forms[str(number)]!r}")
        count = int(form[1] or 1)
        yield number, names.get(str(number), "").strip().upper(), form[2], count, offset
        offset += -(-count // 8) if form[2] == "X" else count * _TYPES[form[2]][1]


def _bytes(hdu: Any, size: int, file: str) -> bytes:
    place = hdu.fileinfo()
    place["file"].seek(place["datLoc"])
    found: bytes = place["file"].read(size)
    if len(found) < size:
        raise InputError(
            f"{file}: the file ends after {len(found)} of the {size} bytes of {hdu.name or 'HDU'}; "
            "it is cut short: fetch it again"
        )
    return found
