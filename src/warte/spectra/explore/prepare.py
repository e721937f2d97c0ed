"""Spectra made comparable: one rest-frame grid, one level, weights that no spectrum rules."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from warte.core.errors import InputError
from warte.spectra.grid import CELLS, LOW, STEP, rest_frame_of
from warte.spectra.spectrum import FloatArray, Spectrum

Bools = npt.NDArray[np.bool_]

LEAST_PIXELS = 50  # of the common grid


def on_one_grid(
    spectra: Sequence[Spectrum], join: int, coverage: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Bring spectra to the rest wavelengths that most of them reach.

    Args:
        spectra: those without redshift come out as missing altogether.
        join: cells of `warte.spectra.grid` that make one pixel (inverse-variance mean).
        coverage: share of the spectra with redshifts that must reach a pixel, 0 to 1; a pixel is
            reached when it lies between the first and the last one measured.

    Returns:
        wavelength: (m,) rest vacuum Angstrom, even in log10.
        flux: (n, m), each spectrum in its own unit, 0 where missing.
        ivar: (n, m) in that unit, 0 where missing.

    Raises:
        InputError: no spectrum has a redshift, or too few pixels are reached.
    """
    known = np.array([one.z > -1 for one in spectra], dtype=bool)
    if not known.any():
        raise InputError(
            f"none of {len(spectra)} spectra has a redshift; a map is made in the rest frame: "
            "give spectra with redshifts"
        )
    flux, ivar = _joined(*rest_frame_of(spectra), join)
    good = ivar[known] > 0
    after = np.logical_or.accumulate(good, axis=1)
    before = np.logical_or.accumulate(good[:, ::-1], axis=1)[:, ::-1]
    kept = (after & before).mean(axis=0) >= coverage
    if kept.sum() < LEAST_PIXELS:
        raise InputError(
            f"{known.sum()} spectra with redshifts have {kept.sum()} pixels that {coverage:.0%} "
            f"of them reach between {LOW:.0f} and {LOW * 10 ** (STEP * CELLS):.0f} rest Angstrom; "
            f"at least {LEAST_PIXELS} are needed: give spectra with more alike redshifts"
        )
    wavelength = LOW * 10 ** (STEP * (join * np.arange(flux.shape[1]) + (join - 1) / 2))
    return wavelength[kept], flux[:, kept], ivar[:, kept]


def _joined(
    flux: npt.NDArray[np.floating], ivar: npt.NDArray[np.floating], join: int
) -> tuple[FloatArray, FloatArray]:
    """Inverse-variance means of groups of pixels; pixels left over at the end are dropped."""
    n, whole = len(flux), flux.shape[1] // join * join
    weight = ivar[:, :whole].astype(np.float64).reshape(n, -1, join)
    light = np.where(weight > 0, flux[:, :whole].reshape(weight.shape), 0.0)
    total = weight.sum(axis=2)
    mean = np.divide((light * weight).sum(axis=2), total, out=np.zeros_like(total), where=total > 0)
    return mean, total


def normalised(
    flux: FloatArray, ivar: FloatArray, least_pixels: float, least_snr: float
) -> tuple[FloatArray, FloatArray, list[str]]:
    """Divide each spectrum by the median of its measured pixels.

    Args:
        flux, ivar: (n, m), ivar 0 where a pixel is missing.
        least_pixels: share of the pixels that a spectrum must have measured, 0 to 1.
        least_snr: median flux over its error that it must exceed.

    Returns:
        Flux with 0 and ivar with 0 where missing, both in units of the level; and for each
        spectrum "" or the reason why it cannot be compared.
    """
    good = ivar > 0
    level, noise = _median_of(flux, good), _median_of(ivar, good) ** -0.5
    reasons = []
    for share, height, error in zip(good.mean(axis=1), level, noise, strict=True):
        reason = ""
        if share < least_pixels:
            reason = f"only {share:.0%} of the common wavelengths were measured"
        elif not height > least_snr * error:
            reason = f"the continuum is only {height / error:.1f} times its noise"
        reasons.append(reason)
    scale = np.where([reason == "" for reason in reasons], level, 1.0)[:, None]
    return np.where(good, flux, 0.0) / scale, ivar * scale**2, reasons


def _median_of(values: FloatArray, good: Bools) -> FloatArray:
    """(n,) median of the good entries of each row, NaN where there is none."""
    rows = zip(values, good, strict=True)
    return np.array([np.median(row[use]) if use.any() else np.nan for row, use in rows])


def softened(ivar: FloatArray, floor: float) -> FloatArray:
    """Weights (n, m) of normalised flux with an error `floor` of each pixel added in quadrature.

    Without it a few spectra with very small errors would rule the components, and seem odd for the
    least difference. 0 stays 0.
    """
    return ivar / (1 + ivar * floor**2)
