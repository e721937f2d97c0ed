"""Spectra of SDSS, BOSS and eBOSS: spec-PLATE-MJD-FIBER.fits and the older spSpec files.

Data models: https://data.sdss.org/datamodel/files/BOSS_SPECTRO_REDUX/RUN2D/spectra/PLATE4/spec.html
and http://classic.sdss.org/dr7/dm/flatFiles/spSpec.html; wavelengths are in vacuum and
heliocentric.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from warte.core.errors import InputError
from warte.spectra.read.table import columns, has_columns, table_at
from warte.spectra.spectrum import C_KM_S, SDSS_UNIT, FloatArray, Spectrum, make_spectrum

COLUMNS = ("FLUX", "LOGLAM", "IVAR")  # without these a table is no spectrum
PIXEL_DEX = 1e-4  # log10 of the wavelength from one pixel to the next
WDISP_KM_S = PIXEL_DEX * np.log(10) * C_KM_S  # one pixel as a velocity

# Bits of SPPIXMASK (http://www.sdss3.org/dr10/algorithms/bitmask_sppixmask.php) that make a pixel
# missing when all exposures have them (the AND mask; the OR mask names pixels of which good
# exposures are left). The pipeline gives what is very bad no inverse variance anyway; these
# bits also hold where it did not.
MISSING_BITS = {
    "NOPLUG": 0,  # the fibre was on no target
    "BADTRACE": 1,  # the fibre's light was not found on the detector
    "BADFLAT": 2,  # the fibre let too little light through to be calibrated
    "BADARC": 3,  # no wavelengths
    "FULLREJECT": 18,  # no pixel left in the extraction
    "NOSKY": 22,  # the sky could not be subtracted
    "BADFLUXFACTOR": 26,  # no flux scale
    "BADSKYCHI": 27,  # sky lines leave residuals far above the stated error
    "REDMONSTER": 28,  # the same over a whole region
}
# Kept are all others, above all MANYBADCOLUMNS (4), which is set for half a spectrum at once
# though its residuals scatter as those of the other half, NEARBADPIXEL (16), and BRIGHTSKY (23)
# and COMBINEREJ (25), which strong narrow emission lines get too; NODATA (24) is deprecated in
# favour of the inverse variance.
NODATA_BIT = 24
_MISSING = sum(1 << bit for bit in MISSING_BITS.values())

_KNOWN_UNITS = {
    *("1e-17 erg/cm^2/s/ang", "1e-17 erg/cm/s/ang", "1e-17 erg/s/cm^2/ang"),
    *(SDSS_UNIT.lower(), "10**-17 erg/(s cm2 angstrom)"),
}


def is_spec(hdus: fits.HDUList) -> bool:
    """Whether the first extension is a table with flux, loglam and ivar."""
    table = table_at(hdus, 1)
    return table is not None and has_columns(table, COLUMNS)


def is_sp_spec(hdus: fits.HDUList) -> bool:
    """Whether the file's own picture has rows of log-linear wavelengths."""
    header = hdus[0].header
    return header.get("NAXIS") == 2 and "COEFF0" in header and "COEFF1" in header


def read_spec(hdus: fits.HDUList, name: str) -> Spectrum:
    """The coadded spectrum, with the redshift and the position of the summary table.

    Raises:
        InputError: the table is cut short or has no measured pixel.
    """
    pixels = columns(hdus[1], (*COLUMNS, "AND_MASK", "WDISP"), name)
    header = hdus[0].header
    facts = _facts(hdus, name)
    bits = pixels.get("AND_MASK")
    spectrum = make_spectrum(
        name,
        10 ** log_wavelength(pixels["LOGLAM"]),
        pixels["FLUX"],
        pixels["IVAR"],
        z=redshift(facts.get("Z")),
        missing=None if bits is None else (bits.astype(np.int64) & _MISSING) != 0,
        # sigma in pixels, 0 where it is not known
        resolution_km_s=pixels["WDISP"] * WDISP_KM_S if "WDISP" in pixels else np.nan,
        unit=unit_of(header.get("BUNIT")),
        ra_deg=_number(facts.get("PLUG_RA", header.get("PLUG_RA"))),
        dec_deg=_number(facts.get("PLUG_DEC", header.get("PLUG_DEC"))),
    )
    return with_redshift_flags(spectrum, int(facts.get("ZWARNING", 0)))


def _facts(hdus: fits.HDUList, name: str) -> dict[str, Any]:
    """What the one row of the summary table, the second extension, says; nothing where it lacks."""
    table = table_at(hdus, 2)
    if table is None or table.header["NAXIS2"] < 1:
        return {}
    found = columns(table, ("Z", "ZWARNING", "PLUG_RA", "PLUG_DEC"), name)
    return {key: cells[0] for key, cells in found.items()}


def read_sp_spec(hdus: fits.HDUList, name: str) -> Spectrum:
    """Rows of the picture: flux, flux less continuum, standard deviation, mask; others are unread.

    A standard deviation of 0 is a missing pixel. The mask has no AND and OR; only the bits that
    leave no data are taken from it, as for `read_spec`.

    Raises:
        InputError: there are fewer than three rows, or no measured pixel.
    """
    header, rows = hdus[0].header, np.asarray(hdus[0].data, dtype=np.float64)
    if len(rows) < 3:
        raise InputError(
            f"{name}: the picture has {len(rows)} rows; spSpec files have flux, flux less "
            "continuum, noise and mask: fetch it again"
        )
    place = header["COEFF0"] + header["COEFF1"] * np.arange(rows.shape[1])
    bits = np.nan_to_num(rows[3]).astype(np.int64) if len(rows) > 3 else None
    spectrum = make_spectrum(
        name,
        10**place,
        rows[0],
        inverse_variance(rows[2]),
        z=redshift(header.get("Z")),
        missing=None if bits is None else (bits & _MISSING) != 0,
        unit=unit_of(header.get("BUNIT")),
        ra_deg=_number(header.get("RAOBJ")),
        dec_deg=_number(header.get("DECOBJ")),
    )
    return with_redshift_flags(spectrum, 0)


def log_wavelength(loglam: npt.NDArray[Any]) -> FloatArray:
    """log10 of the wavelengths, put back onto the pixels of SDSS where float32 moved them off.

    These lie on multiples of 1e-4; float32 holds them to 0.08 km/s only.
    """
    place = np.asarray(loglam, dtype=np.float64)
    steps = np.round(place / PIXEL_DEX)
    if loglam.dtype.itemsize == 4 and np.all(np.abs(place / PIXEL_DEX - steps) < 0.005):
        return np.asarray(steps * PIXEL_DEX)
    return place


def inverse_variance(error: npt.ArrayLike) -> FloatArray:
    """1 / error^2, and 0 where the error is not a positive number."""
    sigma = np.asarray(error, dtype=np.float64)
    with np.errstate(divide="ignore", over="ignore", under="ignore", invalid="ignore"):
        return np.asarray(np.where(sigma > 0, sigma**-2.0, 0.0))


def redshift(value: Any) -> float:
    """The redshift as a number above -1, NaN where it is none."""
    z = _number(value)
    return z if z > -1 else float("nan")


def with_redshift_flags(spectrum: Spectrum, warning: int) -> Spectrum:
    """The spectrum with what is to be said about its redshift; 0 is no warning."""
    flags = spectrum.flags
    if warning:
        flags = (*flags, f"redshift warning {warning}")
    if np.isnan(spectrum.z):
        flags = (*flags, "no redshift")
    return replace(spectrum, flags=flags)


def unit_of(text: Any) -> str:
    """The unit a header gives, in one spelling where it is that of SDSS; that one where none is."""
    found = "" if text is None else str(text).strip()
    return SDSS_UNIT if found.lower() in {*_KNOWN_UNITS, ""} else found


def _number(value: Any) -> float:
    """A finite number, or NaN."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return float("nan")
    return number if np.isfinite(number) else float("nan")
