"""From observed spectra to what the network sees: the galaxy's frame, its lines one above another.

Spectra are moved by whole pixels, never interpolated, so that noise stays white and a missing pixel
stays one missing pixel. The network sees each line in a frame of velocity, all lines aligned, and
the whole spectrum in coarse bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from warte.spectra.lines import WAVELENGTH
from warte.spectra.spectrum import Spectrum

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

STEP = 1e-4  # of the grid, in log10 of the wavelength: 69 km/s, the pixel of SDSS
LOW = 3690.0  # rest Angstrom (vacuum) at the centre of the first cell
BIN = 8  # cells of a coarse bin: 550 km/s
BINS = 339  # coarse bins
CELLS = BIN * BINS  # cells of the grid, up to 6889 Angstrom
REACH = 24  # cells on both sides of a line that are seen: 1660 km/s

# Each line that is seen at full resolution, and the rest Angstrom whose median is its continuum.
LINES: tuple[tuple[str, tuple[float, float]], ...] = (
    ("[O II] 3727", (3690.0, 3850.0)),
    ("H-beta", (4780.0, 5100.0)),
    ("[O III] 4959", (4780.0, 5100.0)),
    ("[O III] 5007", (4780.0, 5100.0)),
    ("[O I] 6300", (6200.0, 6400.0)),
    ("[N II] 6548", (6450.0, 6850.0)),
    ("H-alpha", (6450.0, 6850.0)),
    ("[N II] 6583", (6450.0, 6850.0)),
    ("[S II] 6716", (6450.0, 6850.0)),
    ("[S II] 6731", (6450.0, 6850.0)),
)
LINE_CHANNELS = 3  # significance, strength, depth of the data
BIN_CHANNELS = 2  # shape, depth of the data
STRENGTH = 8.0  # a line of an eighth of the continuum is no longer weak


@dataclass(frozen=True)
class Inputs:
    """What the network sees of N spectra; all is 0 where nothing was measured.

    lines: (N, LINE_CHANNELS, lines, 2 REACH) around each of LINES. lines_seen: (N, 1, lines,
    2 REACH), 1 where a pixel was measured. bins: (N, BIN_CHANNELS, BINS). bins_seen: (N, 1, BINS).
    """

    lines: Tensor
    lines_seen: Tensor
    bins: Tensor
    bins_seen: Tensor

    def __len__(self) -> int:
        return len(self.bins)

    def to(self, device: str | torch.device) -> Inputs:
        """The same on another device."""
        parts = (self.lines, self.lines_seen, self.bins, self.bins_seen)
        return Inputs(*(part.to(device) for part in parts))


def cell_of(wavelength: float) -> int:
    """The cell of the grid nearest to a rest wavelength (Angstrom)."""
    return round(float(np.log10(wavelength / LOW)) / STEP)


def whole_steps(log_wavelength: FloatArray) -> IntArray | None:
    """Each pixel's distance from the first in cells, (n,), where all are whole; else None."""
    steps = (log_wavelength - log_wavelength[0]) / STEP
    whole = np.rint(steps)
    if np.abs(steps - whole).max() > 0.1 or (np.diff(whole) < 1).any():
        return None
    return whole.astype(np.int64)


def rest_frame(
    log_wavelength: FloatArray, flux: Float32Array, ivar: Float32Array, z: FloatArray
) -> tuple[Float32Array, Float32Array]:
    """Many spectra of one grid, moved by whole cells into the frame of their galaxies.

    log_wavelength: (n,) log10 of the observed vacuum Angstrom in steps of STEP. flux, ivar: (N, n);
    missing is NaN with 0. z: (N,), finite and above -1. Returns flux and ivar (N, CELLS) on the
    rest grid; cells out of range are missing.

    Raises ValueError for another grid: use `rest_frame_of`.
    """
    steps = whole_steps(log_wavelength)
    if steps is None or steps[-1] != steps.size - 1:
        raise ValueError(f"a grid in steps of {STEP} is needed; use rest_frame_of for others")
    start = np.rint((log_wavelength[0] - np.log10(LOW * (1 + z))) / STEP).astype(np.int64)
    light = np.full((len(flux), CELLS), np.nan, dtype=np.float32)
    weight = np.zeros((len(flux), CELLS), dtype=np.float32)
    for row, first in enumerate(start):
        low, high = max(0, -first), min(steps.size, CELLS - first)
        if high > low:
            light[row, first + low : first + high] = flux[row, low:high]
            weight[row, first + low : first + high] = ivar[row, low:high]
    return light, weight


def rest_frame_of(spectra: Sequence[Spectrum]) -> tuple[Float32Array, Float32Array]:
    """Spectra of any grids in the frame of their galaxies: flux and ivar (N, CELLS).

    The pixels of a cell are joined (weighted mean); a cell that holds no pixel's centre is missing.
    Fluxes are in units of each spectrum's median, so that any unit fits. A spectrum without a
    redshift is missing altogether.
    """
    light = np.full((len(spectra), CELLS), np.nan, dtype=np.float32)
    weight = np.zeros((len(spectra), CELLS), dtype=np.float32)
    for row, spectrum in enumerate(spectra):
        if spectrum.z > -1:
            light[row], weight[row] = _in_cells(spectrum)
    return light, weight


def _in_cells(spectrum: Spectrum) -> tuple[FloatArray, FloatArray]:
    place = np.log10(spectrum.wavelength)
    first = (place[0] - np.log10(LOW * (1 + spectrum.z))) / STEP
    steps = whole_steps(place)
    cell = (
        np.rint(first) + steps if steps is not None else np.rint(first + (place - place[0]) / STEP)
    )
    good = spectrum.good & (cell >= 0) & (cell < CELLS)
    at, flux, ivar = cell[good].astype(np.int64), spectrum.flux[good], spectrum.ivar[good]
    unit = float(np.median(np.abs(flux))) if good.any() else 1.0
    unit = unit if unit > 0 else 1.0
    total = np.bincount(at, ivar, CELLS).astype(np.float64)
    mean = np.full(CELLS, np.nan)
    np.divide(np.bincount(at, flux * ivar, CELLS), total, mean, where=total > 0)
    return mean / unit, total * unit**2


def look(flux: npt.ArrayLike | Tensor, ivar: npt.ArrayLike | Tensor) -> Inputs:
    """What the network sees of spectra on the rest grid, flux and ivar (N, CELLS).

    It does not depend on the unit of the flux, nor on any value where ivar is 0.
    """
    weight = torch.as_tensor(ivar, dtype=torch.float32)
    light = torch.as_tensor(flux, dtype=torch.float32)
    light = torch.where(weight > 0, light, torch.zeros((), device=light.device))
    bins, bin_weight = _coarse(light, weight)
    seen = bin_weight > 0
    level = _level(bins, bin_weight)[:, None]
    shape = compress(2.0 * (bins / level - 1.0)).nan_to_num_(0.0)
    depth = torch.log10(1.0 + level * bin_weight.sqrt())
    lines, lines_seen = _around_lines(light, weight, bins, level)
    return Inputs(
        lines, lines_seen, torch.stack([shape, depth], 1), seen[:, None].to(torch.float32)
    )


def compress(x: Tensor) -> Tensor:
    """sign(x) log(1 + |x|): linear for small values, logarithmic for large ones."""
    return torch.copysign(x.abs().log1p(), x)


def _coarse(light: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted means of coarse bins, NaN where nothing was measured, and their weights."""
    parts = weight.view(-1, BINS, BIN)
    total = parts.sum(-1)
    return (parts * light.view(-1, BINS, BIN)).sum(-1) / total, total


def _level(bins: Tensor, bin_weight: Tensor) -> Tensor:
    """(N,) median of the continuum; no less than the noise of a bin, so that it is above 0."""
    median = bins[:, ::3].nanmedian(-1).values  # a third is enough, and faster
    error = ((bin_weight > 0).sum(-1) / bin_weight.sum(-1)).sqrt()
    return torch.nan_to_num(torch.fmax(median, error), nan=1.0)


def _around_lines(
    light: Tensor, weight: Tensor, bins: Tensor, level: Tensor
) -> tuple[Tensor, Tensor]:
    count = len(light)
    cells = torch.tensor([cell_of(WAVELENGTH[name]) for name, _ in LINES])
    index = (cells[:, None] + torch.arange(-REACH, REACH)).flatten().to(light.device)
    medians = {
        ends: bins[:, cell_of(ends[0]) // BIN : cell_of(ends[1]) // BIN].nanmedian(-1).values
        for _, ends in LINES
    }
    base = torch.stack([medians[ends] for _, ends in LINES], 1)
    base = torch.where(base.isnan(), level, base)[..., None]
    weights = weight[:, index].view(count, len(LINES), -1)
    seen = (weights > 0).to(torch.float32)
    excess = (light[:, index].view(count, len(LINES), -1) - base) * seen
    root = weights.sqrt()
    channels = (
        compress(excess * root),
        compress(excess * (STRENGTH / level[..., None])),
        torch.log10(1.0 + level[..., None] * root),
    )
    return torch.stack(channels, 1), seen[:, None]
