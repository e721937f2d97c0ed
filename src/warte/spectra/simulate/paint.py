"""Emission lines as pixels see them: Gaussians integrated over each pixel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from warte.spectra.simulate.instrument import EDGES, FIRST, PIXELS, RESOLUTION_KM_S, STEP
from warte.spectra.simulate.instrument import WAVELENGTH as GRID
from warte.spectra.spectrum import C_KM_S, FloatArray

REACH = 5.0  # a line is drawn to this many sigma: 6e-7 of its flux lies beyond
GROUPS = 16  # lines of like widths are drawn together


def paint_lines(
    count: int,
    row: npt.NDArray[np.int64],
    rest: FloatArray,
    flux: FloatArray,
    velocity_km_s: FloatArray,
    sigma_km_s: FloatArray,
    z: FloatArray,
) -> npt.NDArray[np.float32]:
    """(N, P) flux density of M lines; `row` (M,) says which of the N spectra each belongs to.

    rest: (M,) rest wavelength, Angstrom. flux: (M,) flux density x Angstrom, observed frame.
    velocity_km_s: (M,) relative to z, c (wavelength in the frame of z / rest - 1).
    sigma_km_s: (M,) intrinsic; the instrument's own is added in quadrature. z: (M,).
    """
    scale = rest * (1 + z)
    centre = scale * (1 + velocity_km_s / C_KM_S)
    total = np.hypot(sigma_km_s, np.interp(centre, GRID, RESOLUTION_KM_S))
    sigma = scale * total / C_KM_S
    image = np.zeros(count * PIXELS)
    # One width of window for all would be that of the widest line.
    order = np.argsort(total, kind="stable")
    for part in np.array_split(order, GROUPS):
        if not len(part):
            continue
        pixel, share = _profiles(centre[part], sigma[part], float(total[part].max()))
        inside = (pixel >= 0) & (pixel < PIXELS)
        place = (row[part, None] * PIXELS + pixel)[inside]
        light = (flux[part, None] * share)[inside]
        image += np.bincount(place, light, minlength=image.size)
    return image.reshape(count, PIXELS).astype(np.float32)


def _profiles(
    centre: FloatArray, sigma: FloatArray, widest_km_s: float
) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Pixels (M, W) around each line, and the mean of a line of flux 1 over each, per Angstrom."""
    half = int(np.ceil(REACH * widest_km_s / (C_KM_S * STEP * np.log(10)))) + 1
    middle = np.rint((np.log10(centre) - FIRST) / STEP).astype(np.int64)
    edge = middle[:, None] + np.arange(-half, half + 2)
    wavelength = EDGES[np.clip(edge, 0, PIXELS)]
    below = ndtr((wavelength - centre[:, None]) / sigma[:, None])
    width = np.diff(wavelength, axis=1)
    # Beyond the grid the edges are equal; those pixels are dropped by the caller.
    share = np.diff(below, axis=1) / np.where(width > 0, width, 1.0)
    return edge[:, :-1], share
