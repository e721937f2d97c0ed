"""Spectra of DESI: coadd files with the redshifts of the redrock file beside them.

Data model: https://desidatamodel.readthedocs.io (coadd-*.fits, redrock-*.fits); wavelengths are in
vacuum and heliocentric.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from warte.core.errors import InputError
from warte.spectra.read.failure import Failure, failure
from warte.spectra.read.sdss import redshift, unit_of, with_redshift_flags
from warte.spectra.spectrum import C_KM_S, FloatArray, Spectrum, make_spectrum

_GRID_DIGITS = 3  # wavelengths of two arms are the same pixel when they agree to 0.001 Angstrom

Redshifts = dict[int, tuple[float, int]]  # target -> z and ZWARN


@dataclass(frozen=True)
class _Arm:
    """What one camera measured: (m,) wavelengths, and for each of t targets (t, m) pixels."""

    wavelength: FloatArray
    flux: FloatArray
    ivar: FloatArray  # 0 where masked
    sigma2: FloatArray  # square of the profile's sigma, Angstrom^2; NaN where not known


def is_coadd(hdus: fits.HDUList) -> bool:
    """Whether there are arms with wavelengths, flux and inverse variance for a table of fibres."""
    names = {hdu.name for hdu in hdus}
    return "FIBERMAP" in names and bool(_arms(names))


def _arms(names: set[str]) -> list[str]:
    every = [name.removesuffix("_WAVELENGTH") for name in names if name.endswith("_WAVELENGTH")]
    return sorted(arm for arm in every if {f"{arm}_FLUX", f"{arm}_IVAR"} <= names)


def read_redshifts(hdus: fits.HDUList, name: str) -> Redshifts:
    """Redshift and warning of each target of a redrock file.

    Raises:
        InputError: the file has no table of redshifts.
    """
    if "REDSHIFTS" not in hdus:
        raise InputError(
            f"{name}: no table REDSHIFTS; give the redrock file of the coadd, or remove it"
        )
    rows = hdus["REDSHIFTS"].data
    return {
        int(target): (redshift(z), int(warning))
        for target, z, warning in zip(rows["TARGETID"], rows["Z"], rows["ZWARN"], strict=True)
    }


def read_coadd(
    hdus: fits.HDUList, redshifts: Redshifts, name: str
) -> tuple[list[Spectrum], list[Failure]]:
    """All targets of a coadd, sky fibres left out; those without a measured pixel are failures.

    Where arms overlap, fluxes are joined by their inverse variances. Names are "file:TARGETID".

    Raises:
        InputError: there is no fibre on a target.
    """
    fibres = hdus["FIBERMAP"].data
    kept = np.arange(len(fibres))
    if "OBJTYPE" in fibres.names:
        kept = np.flatnonzero(np.char.strip(np.asarray(fibres["OBJTYPE"], dtype=str)) == "TGT")
    if not kept.size:
        raise InputError(f"{name}: {len(fibres)} fibres, none on a target; give another coadd")
    arms = _arms({hdu.name for hdu in hdus})
    wavelength, flux, ivar, sigma_km_s = _join([_read_arm(hdus, arm, kept) for arm in arms])
    unit = unit_of(hdus[f"{arms[0]}_FLUX"].header.get("BUNIT"))
    targets = [int(target) for target in fibres["TARGETID"][kept]]
    spectra: list[Spectrum] = []
    failures: list[Failure] = []
    for row, label in enumerate(_labels(targets, name)):
        z, warning = redshifts.get(targets[row], (float("nan"), 0))
        try:
            spectrum = make_spectrum(
                label, wavelength, flux[row], ivar[row], z=z, resolution_km_s=sigma_km_s[row],
                unit=unit, ra_deg=float(fibres["TARGET_RA"][kept[row]]),
                dec_deg=float(fibres["TARGET_DEC"][kept[row]]),
            )  # fmt: skip
        except InputError as problem:
            failures.append(failure(label, problem))
        else:
            spectra.append(with_redshift_flags(spectrum, warning))
    return spectra, failures


def _labels(targets: list[int], name: str) -> list[str]:
    """A name for each target; those observed more than once are numbered."""
    many = Counter(targets)
    seen: Counter[int] = Counter()
    labels = []
    for target in targets:
        seen[target] += 1
        number = f".{seen[target]}" if many[target] > 1 else ""
        labels.append(f"{name}:{target}{number}")
    return labels


def _read_arm(hdus: fits.HDUList, arm: str, kept: npt.NDArray[np.intp]) -> _Arm:
    wavelength = np.asarray(hdus[f"{arm}_WAVELENGTH"].data, dtype=np.float64)
    flux = np.asarray(hdus[f"{arm}_FLUX"].data[kept], dtype=np.float64)
    ivar = np.asarray(hdus[f"{arm}_IVAR"].data[kept], dtype=np.float64)
    good = (ivar > 0) & np.isfinite(ivar) & np.isfinite(flux)
    if f"{arm}_MASK" in hdus:
        good &= hdus[f"{arm}_MASK"].data[kept] == 0
    sigma2 = np.full(flux.shape, np.nan)
    if f"{arm}_RESOLUTION" in hdus:
        step = np.gradient(wavelength)
        sigma2 = second_moment(hdus[f"{arm}_RESOLUTION"].data[kept]) * step**2
    return _Arm(wavelength, np.where(good, flux, 0.0), np.where(good, ivar, 0.0), sigma2)


def second_moment(diagonals: npt.NDArray[Any]) -> FloatArray:
    """Square of the profile's sigma (t, m), in pixels, from a resolution matrix (t, d, m).

    Its d diagonals are stored as scipy.sparse.dia_matrix has them, the highest first, so that
    [:, :, i] is column i: how the light of pixel i is spread over its d neighbours.
    """
    count = diagonals.shape[1]
    weight = np.asarray(diagonals, dtype=np.float64)
    offset = (count // 2 - np.arange(count, dtype=np.float64))[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        total = weight.sum(axis=1)
        mean = (weight * offset).sum(axis=1) / total
        return np.asarray((weight * offset**2).sum(axis=1) / total - mean**2)


def _join(arms: list[_Arm]) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Wavelengths (n,) of all arms, and flux, inverse variance and sigma in km/s (t, n)."""
    places = [np.round(arm.wavelength, _GRID_DIGITS) for arm in arms]
    grid = np.unique(np.concatenate(places))
    shape = (len(arms[0].flux), grid.size)
    light, ivar, spread, weight = (np.zeros(shape) for _ in range(4))
    for arm, place in zip(arms, places, strict=True):
        at = np.searchsorted(grid, place)
        light[:, at] += arm.flux * arm.ivar
        ivar[:, at] += arm.ivar
        # A mixture of profiles has the mean of their second moments; where nothing was measured
        # the arms count alike.
        share = np.where(arm.sigma2 > 0, np.maximum(arm.ivar, np.finfo(np.float64).tiny), 0.0)
        spread[:, at] += np.where(share > 0, arm.sigma2, 0.0) * share
        weight[:, at] += share
    with np.errstate(divide="ignore", invalid="ignore"):
        sigma_km_s = np.sqrt(spread / weight) / grid * C_KM_S
        return grid, light / ivar, ivar, sigma_km_s
