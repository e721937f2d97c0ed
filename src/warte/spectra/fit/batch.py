"""From spectra to the solver's tensors: windows cut, rest frame, like with like.

Flux densities are multiplied by (1 + z) and inverse variances divided by its square, so that a
line's area over rest wavelength is its flux as observed, in the file's unit times Angstrom.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from warte.spectra.fit.layout import Layout, layout_for, rest_wavelengths
from warte.spectra.fit.solve import Lines
from warte.spectra.lines import BLUE_WINDOW, RED_WINDOW, WAVELENGTH
from warte.spectra.spectrum import C_KM_S, FloatArray, Spectrum

REACH = 400.0  # km/s on either side of a line: its pixels
LEAST_COVERED = 0.5  # share of its lines' pixels that a window needs
LEAST_PIXELS = 40  # good ones in all windows; the largest model has 27 parameters
ASSUMED_RESOLUTION = 65.0  # km/s, sigma: SDSS at 6000 Angstrom, where a file does not say
WINDOWS = (BLUE_WINDOW, RED_WINDOW)


@dataclass(frozen=True)
class Batch:
    """Spectra that share their windows.

    rows: (N,) places of the spectra in the sequence they came from.
    windows: whether the blue and the red window are fitted.
    lines: the solver's tensors, N rows.
    covered: (N, L) share 0..1 of each line's pixels that were measured, lines as in the layout.
    assumed: (N,) whether the instrument's width was not known and ASSUMED_RESOLUTION stands in.
    """

    rows: npt.NDArray[np.int64]
    windows: tuple[bool, bool]
    lines: Lines
    covered: FloatArray
    assumed: npt.NDArray[np.bool_]

    def take(self, rows: npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> Batch:
        """Some of the spectra."""
        lines = self.lines.take(torch.from_numpy(rows).to(self.lines.flux.device))
        return Batch(self.rows[rows], self.windows, lines, self.covered[rows], self.assumed[rows])


@dataclass(frozen=True)
class _Cut:
    """The pixels of one spectrum in the windows that can be fitted."""

    row: int
    windows: tuple[bool, bool]
    wavelength: FloatArray
    flux: FloatArray
    weight: FloatArray
    instrument: FloatArray
    covered: FloatArray
    assumed: bool


def batches(
    spectra: Sequence[Spectrum], *, device: str = "cpu"
) -> tuple[list[Batch], dict[int, str]]:
    """The spectra as batches of one layout each, and why the others cannot be fitted.

    A window is fitted when at least half of the pixels within 400 km/s of its lines are good.

    Returns
    -------
    The batches, and the reason in one line for each place of the sequence that is in none.
    """
    # Spectra of very different length would only be padding to each other.
    groups: dict[tuple[tuple[bool, bool], int], list[_Cut]] = {}
    failed: dict[int, str] = {}
    for row, spectrum in enumerate(spectra):
        cut = _cut(row, spectrum)
        if isinstance(cut, str):
            failed[row] = cut
        else:
            groups.setdefault((cut.windows, cut.wavelength.size.bit_length()), []).append(cut)
    return [_batch(groups[kind], device) for kind in sorted(groups)], failed


def _cut(row: int, spectrum: Spectrum) -> _Cut | str:
    """The pixels to fit, or the reason why there are none."""
    if not np.isfinite(spectrum.z) or spectrum.z <= -1:
        return "no redshift; give one"
    rest = spectrum.rest_wavelength
    ends = [np.searchsorted(rest, window) for window in WINDOWS]
    covers = [
        _covered(spectrum, rest, slice(*end), layout_for((blue, not blue)))
        for end, blue in zip(ends, (True, False), strict=True)
    ]
    taken = (bool(covers[0].mean() >= LEAST_COVERED), bool(covers[1].mean() >= LEAST_COVERED))
    if not any(taken):
        seen = rest[spectrum.good]
        return (
            f"no window is covered: good pixels lie between {seen[0]:.0f} and {seen[-1]:.0f} "
            f"Angstrom at rest (z = {spectrum.z:g}), the lines between "
            f"{WAVELENGTH['H-beta']:.0f} and {WAVELENGTH['[S II] 6731']:.0f}"
        )
    pixels = np.concatenate([np.arange(*end) for end, use in zip(ends, taken, strict=True) if use])
    weight = spectrum.ivar[pixels] / (1 + spectrum.z) ** 2
    if (good := int(np.count_nonzero(weight))) < LEAST_PIXELS:
        return f"{good} good pixels in the windows of the lines, at least {LEAST_PIXELS} are needed"
    flux = np.where(weight > 0, spectrum.flux[pixels] * (1 + spectrum.z), 0.0)
    instrument, assumed = _instrument(spectrum, rest, layout_for(taken))
    covered = np.concatenate([part for part, use in zip(covers, taken, strict=True) if use])
    return _Cut(row, taken, rest[pixels], flux, weight, instrument, covered, assumed)


def _covered(spectrum: Spectrum, rest: FloatArray, window: slice, layout: Layout) -> FloatArray:
    """(L,) share of the width of each line of a window that good pixels cover, 0..1."""
    places = np.array(rest_wavelengths(layout))
    inside = rest[window]
    if inside.size < 2:
        return np.zeros(places.size)
    steps = np.diff(inside)
    # A pixel beside a hole in the grid is no wider than the others.
    width = np.minimum(np.append(steps, steps[-1]), 2 * np.median(steps))
    width = np.where(spectrum.ivar[window] > 0, width, 0.0)
    reach = places * (REACH / C_KM_S)
    near = np.abs(inside - places[:, None]) < reach[:, None]
    return np.asarray(np.minimum((near @ width) / (2 * reach), 1.0))


def _instrument(spectrum: Spectrum, rest: FloatArray, layout: Layout) -> tuple[FloatArray, bool]:
    """(L,) sigma of the instrument at each line, km/s, and whether it had to be assumed."""
    known = np.isfinite(spectrum.resolution_km_s)
    places = np.array(rest_wavelengths(layout))
    if not known.any():
        return np.full(places.size, ASSUMED_RESOLUTION), True
    return np.interp(places, rest[known], spectrum.resolution_km_s[known]), False


def _batch(cuts: list[_Cut], device: str) -> Batch:
    longest = max(cut.wavelength.size for cut in cuts)
    wavelength = np.empty((len(cuts), longest))
    flux, weight = np.zeros_like(wavelength), np.zeros_like(wavelength)
    for row, cut in enumerate(cuts):
        size = cut.wavelength.size
        wavelength[row, :size], wavelength[row, size:] = cut.wavelength, cut.wavelength[-1]
        flux[row, :size], weight[row, :size] = cut.flux, cut.weight
    instrument = np.stack([cut.instrument for cut in cuts])
    arrays = (wavelength, flux, weight, instrument)
    return Batch(
        rows=np.array([cut.row for cut in cuts]),
        windows=cuts[0].windows,
        lines=Lines(*(torch.from_numpy(array).to(device) for array in arrays)),
        covered=np.stack([cut.covered for cut in cuts]),
        assumed=np.array([cut.assumed for cut in cuts]),
    )
