"""Spectra as text: a line per pixel, columns parted by blanks or commas."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from warte.core.errors import InputError
from warte.spectra.read.sdss import inverse_variance, redshift, with_redshift_flags
from warte.spectra.spectrum import FloatArray, Spectrum, make_spectrum, vacuum_from_air

UNIT = "unit of the file"
_COMMENT = ("#", "%", "!")
_EMPTY = frozenset({"", "--", "na", "n/a", "null", "none", "..."})  # a cell without a number
_REDSHIFT = re.compile(r"\W*(?:z|redshift)\s*[=:]\s*([-+.\deE]+)\s*$", re.IGNORECASE)
_AIR = re.compile(r"\bair\b(?!\s*mass)", re.IGNORECASE)
_VACUUM = re.compile(r"\bvac(uum)?\b", re.IGNORECASE)
# A unit of length that is not part of a unit of flux (per nm, nm^-1).
_UNIT = r"(?<![/\w])(?:{})\b(?!\s*(?:\^|\*\*)?\s*\(?-)"
_NM = re.compile(_UNIT.format("nm|nanomet(?:er|re)s?"), re.IGNORECASE)
_UM = re.compile(_UNIT.format("um|µm|μm|microns?|micromet(?:er|re)s?"), re.IGNORECASE)


@dataclass
class _Page:
    """What the lines of a text hold."""

    head: list[str] = field(default_factory=list)  # comments and the line of names
    rows: list[list[float]] = field(default_factory=list)  # wavelength, flux, further columns
    numbers: list[int] = field(default_factory=list)  # the line of each row, from 1


def read_text(data: bytes, name: str, *, air: bool = False) -> Spectrum:
    """A spectrum of two or three columns: wavelength, flux and the flux's standard deviation.

    An error that is 0, negative or not a number marks a missing pixel (programs write 0 where
    nothing was measured). A heading (a comment or the first line) with as many names as there
    are columns, the first of them a wavelength, may place the error elsewhere (a name with err,
    sig, noise, unc or std) or give inverse variances (ivar, invvar); without such a name the
    errors are unknown. Further columns are not read. Where no errors are given, one is
    estimated for the whole spectrum (`noise_of`) and the flags say so.

    The heading also says what wavelengths are: "nm", "um" or "micron", else Angstrom; "air" for
    wavelengths in air, else vacuum; and "# z = 0.1" gives the redshift. Fluxes stay as they are.

    Args:
        data: the file's bytes.
        air: wavelengths are in air, whatever the heading says.

    Raises:
        InputError: the text is not a table of numbers, or has no measured pixel.
    """
    page = _lines(_decoded(data, name), name)
    count = len(page.rows[0])
    if count < 2:
        raise InputError(
            f"{name}: one column; two or three are needed: wavelength, flux and its error"
        )
    place, inverse = _error_column(page.head, count)
    table = _table(page, max(1, place or 0) + 1, name)
    wavelength, flux = table[:, 0], table[:, 1]
    flags = []
    if place is None:
        ivar = np.full(flux.shape, inverse_variance(noise_of(flux, name)))
        flags.append("errors estimated from the scatter (DER_SNR)")
    else:
        ivar = table[:, place] if inverse else inverse_variance(table[:, place])
    wavelength, told = _in_vacuum(wavelength, "\n".join(page.head), air)
    spectrum = make_spectrum(name, wavelength, flux, ivar, z=_redshift(page.head), unit=UNIT)
    return with_redshift_flags(replace(spectrum, flags=(*spectrum.flags, *flags, *told)), 0)


def noise_of(flux: npt.ArrayLike, name: str) -> float:
    """Standard deviation of the noise, from the pixels two apart (DER_SNR).

    Stoehr et al. 2008 (ASP Conf. Ser. 394, 505): 1.482602 / sqrt(6) times the median of
    |2 f(i) - f(i-2) - f(i+2)|, over pixels that are numbers.

    Raises:
        InputError: there are fewer than 5 pixels, or they do not scatter.
    """
    values = np.asarray(flux, dtype=np.float64)
    values = values[np.isfinite(values)]
    sigma = 0.0
    if values.size >= 5:
        second = 2 * values[2:-2] - values[:-4] - values[4:]
        sigma = float(1.482602 / math.sqrt(6) * np.median(np.abs(second)))
    if not (sigma > 0 and math.isfinite(sigma)):
        raise InputError(
            f"{name}: no column of errors, and none can be estimated from {values.size} pixels "
            "that are numbers; add the errors as a third column"
        )
    return sigma


def _decoded(data: bytes, name: str) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    if re.search(r"[\x00-\x08\x0e-\x1b\x7f]", text):
        raise InputError(f"{name}: neither FITS nor text; give a spectrum as .fits, .txt or .csv")
    return text


def _lines(text: str, name: str) -> _Page:
    page = _Page()
    for number, line in enumerate(text.splitlines(), start=1):
        bare = line.strip()
        if not bare:
            continue
        if bare.startswith(_COMMENT):
            page.head.append(bare.lstrip("".join(_COMMENT)).strip())
            continue
        cells = _cells(bare)
        numbers = [_number(cell) for cell in cells]
        known = [value for value in numbers[:2] if value is not None]
        if not page.rows and not any(value is not None for value in numbers):
            page.head.append(bare)
        elif len(known) < min(2, len(cells)):
            raise InputError(
                f"{name}: line {number} is {bare[:30]!a}; numbers are needed after the heading"
            )
        else:
            page.rows.append([math.nan if value is None else value for value in numbers])
            page.numbers.append(number)
    if not page.rows:
        raise InputError(
            f"{name}: no line with numbers; a line per pixel is needed: wavelength, flux, error"
        )
    return page


def _cells(line: str) -> list[str]:
    for mark in (",", ";"):
        if mark in line:
            return [cell.strip() for cell in line.split(mark)]
    return line.split()


def _number(cell: str) -> float | None:
    """The number of a cell, NaN where it is empty, None where it is a word."""
    if cell.lower() in _EMPTY:
        return math.nan
    try:
        return float(cell)
    except ValueError:
        return None


def _table(page: _Page, width: int, name: str) -> FloatArray:
    """The first columns (n, width) as numbers."""
    short = next((at for at, row in enumerate(page.rows) if len(row) < width), None)
    if short is not None:
        raise InputError(
            f"{name}: line {page.numbers[short]} has {len(page.rows[short])} columns and the first "
            f"line {len(page.rows[0])}; every line needs as many: mend or fetch it again"
        )
    return np.array([row[:width] for row in page.rows], dtype=np.float64)


def _error_column(head: list[str], count: int) -> tuple[int | None, bool]:
    """Index of the column of errors (None: there is none), and whether it holds 1 / error^2."""
    for line in head:
        names = [cell.lower() for cell in _cells(line)]
        if len(names) == count and re.match(r"wave|lam|wl|angstrom", names[0]):
            for place, title in enumerate(names[2:], start=2):
                if re.search(r"ivar|inv_?var", title):
                    return place, True
                if re.search(r"err|sig|noise|unc|std", title):
                    return place, False
            return None, False
    return (2 if count > 2 else None), False


def _in_vacuum(wavelength: FloatArray, head: str, air: bool) -> tuple[FloatArray, list[str]]:
    """Vacuum wavelengths in Angstrom, and what was done to get them."""
    told = []
    if _NM.search(head):
        wavelength = wavelength * 10
        told.append("wavelengths from nm")
    elif _UM.search(head):
        wavelength = wavelength * 1e4
        told.append("wavelengths from micron")
    if air or (_AIR.search(head) and not _VACUUM.search(head)):
        wavelength = vacuum_from_air(wavelength)
        told.append("wavelengths from air")
    return wavelength, told


def _redshift(head: list[str]) -> float:
    found = (_REDSHIFT.match(line) for line in head)
    return redshift(next((match[1] for match in found if match), None))
