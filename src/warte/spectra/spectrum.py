"""The data that flow through the domain: one spectrum with its noise, its gaps and its redshift."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from warte.core.errors import InputError

FloatArray = npt.NDArray[np.float64]

C_KM_S = 299_792.458  # speed of light, exact
SDSS_UNIT = "1e-17 erg/s/cm2/Angstrom"


@dataclass(frozen=True)
class Spectrum:
    """One observed spectrum, wavelengths rising, missing pixels NaN with inverse variance 0.

    wavelength: (n,) vacuum, observed frame, Angstrom, strictly rising.
    flux: (n,) per Angstrom, in `unit`; NaN where the pixel is missing.
    ivar: (n,) inverse variance of the flux; 0 where the pixel is missing.
    resolution_km_s: (n,) sigma of the instrument's profile, km/s; NaN where it is not known.
    z: redshift; NaN where it is not known.
    object_id: the same text for repeated observations of one object, whatever the file.
    """

    name: str  # the file's name, or the file's and the row's
    wavelength: FloatArray
    flux: FloatArray
    ivar: FloatArray
    resolution_km_s: FloatArray
    z: float
    unit: str = SDSS_UNIT
    object_id: str = ""
    ra_deg: float = float("nan")
    dec_deg: float = float("nan")
    flags: tuple[str, ...] = ()  # what the reader mended, a few words each

    def __post_init__(self) -> None:
        shapes = {
            array.shape for array in (self.wavelength, self.flux, self.ivar, self.resolution_km_s)
        }
        if len(shapes) != 1 or self.wavelength.ndim != 1:
            raise ValueError(f"{self.name}: arrays of one length are needed, found {shapes}")
        if not np.all(np.diff(self.wavelength) > 0):
            raise ValueError(f"{self.name}: wavelengths must rise")
        if not np.array_equal(np.isnan(self.flux), self.ivar == 0) or (self.ivar < 0).any():
            raise ValueError(f"{self.name}: missing pixels must be NaN with inverse variance 0")

    @property
    def good(self) -> npt.NDArray[np.bool_]:
        """(n,) which pixels were measured."""
        return self.ivar > 0

    @property
    def rest_wavelength(self) -> FloatArray:
        """(n,) wavelengths in the frame of the galaxy, Angstrom (vacuum)."""
        return self.wavelength / (1 + self.z)


def make_spectrum(
    name: str,
    wavelength: npt.ArrayLike,
    flux: npt.ArrayLike,
    ivar: npt.ArrayLike,
    *,
    z: float,
    missing: npt.ArrayLike | None = None,
    resolution_km_s: npt.ArrayLike = np.nan,
    unit: str = SDSS_UNIT,
    object_id: str = "",
    ra_deg: float = float("nan"),
    dec_deg: float = float("nan"),
) -> Spectrum:
    """A sound `Spectrum` from arrays as they stand in files.

    Descending wavelengths are turned round, doubled pixels are joined (weighted means), and what
    is not finite, has no positive inverse variance or is marked in `missing` becomes missing.

    Raises:
        InputError: lengths differ, no wavelength is positive, or no pixel is left.
    """
    lam = np.atleast_1d(np.asarray(wavelength, dtype=np.float64))
    values = np.atleast_1d(np.asarray(flux, dtype=np.float64))
    weight = np.array(np.atleast_1d(np.asarray(ivar, dtype=np.float64)))
    if lam.ndim != 1 or values.shape != lam.shape or weight.shape != lam.shape:
        raise InputError(
            f"{name}: wavelength, flux and inverse variance have {lam.size}, {values.size} and "
            f"{weight.size} entries; they must have the same number"
        )
    width = np.array(np.broadcast_to(np.asarray(resolution_km_s, dtype=np.float64), lam.shape))
    bad = ~np.isfinite(values) | ~np.isfinite(weight) | ~(weight > 0)
    if missing is not None:
        bad |= np.asarray(missing, dtype=bool)
    placed = np.isfinite(lam) & (lam > 0)
    if not (placed & ~bad).any():
        raise InputError(
            f"{name}: no pixel has a wavelength, a flux and a positive inverse variance; "
            "give a spectrum with measured pixels"
        )
    flags = []
    if (np.diff(lam[placed]) < 0).any():
        flags.append("wavelengths sorted")
    weight[bad] = 0.0
    order = np.flatnonzero(placed)[np.argsort(lam[placed], kind="stable")]
    lam, values, weight, width = lam[order], values[order], weight[order], width[order]
    if (np.diff(lam) == 0).any():
        flags.append("doubled pixels joined")
        lam, values, weight, width = _joined(lam, values, weight, width)
    values = np.where(weight > 0, values, np.nan)
    width = np.where(width > 0, width, np.nan)
    return Spectrum(
        name, lam, values, weight, width, float(z), unit, object_id, ra_deg, dec_deg, tuple(flags)
    )


def _joined(
    lam: FloatArray, values: FloatArray, weight: FloatArray, width: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    places, first, group = np.unique(lam, return_index=True, return_inverse=True)
    total = np.bincount(group, weight).astype(np.float64)
    light = np.bincount(group, np.where(weight > 0, values, 0.0) * weight)
    mean = np.divide(light, total, out=np.full(places.size, np.nan), where=total > 0)
    return places, mean, total, width[first]


def vacuum_from_air(wavelength: npt.ArrayLike) -> FloatArray:
    """Vacuum wavelengths of air wavelengths, both Angstrom.

    Inverse of Ciddor 1996 (Applied Optics 35, 1566) as published by N. Piskunov for VALD3; below
    2000 Angstrom nothing changes, by convention.
    """
    air = np.asarray(wavelength, dtype=np.float64)
    s2 = (1e4 / np.where(air > 0, air, np.nan)) ** 2
    index = (
        1
        + 8.336624212083e-5
        + 2.408926869968e-2 / (130.1065924522 - s2)
        + 1.599740894897e-4 / (38.92568793293 - s2)
    )
    return np.asarray(np.where(air > 2000, air * index, air))
