"""The network's view: exact shifts, missing pixels that stay missing, no dependence on units."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from warte.spectra.grid import (
    BIN,
    BINS,
    CELLS,
    LINES,
    LOW,
    REACH,
    STEP,
    cell_of,
    look,
    rest_frame,
    rest_frame_of,
)
from warte.spectra.lines import WAVELENGTH
from warte.spectra.spectrum import Spectrum, make_spectrum

LOGLAM = 3.5791 + STEP * np.arange(3850)  # the grid of SDSS


def noisy(
    count: int, *, missing: float = 0.1, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """flux, ivar (count, 3850) float32 with missing pixels, and redshifts."""
    rng = np.random.default_rng(seed)
    flux = rng.normal(20, 1, (count, LOGLAM.size)).astype(np.float32)
    ivar = rng.uniform(0.5, 2, flux.shape).astype(np.float32)
    gone = rng.random(flux.shape) < missing
    flux[gone], ivar[gone] = np.nan, 0
    return flux, ivar, rng.uniform(0, 0.35, count)


def as_spectrum(loglam: np.ndarray, flux: np.ndarray, ivar: np.ndarray, z: float) -> Spectrum:
    return make_spectrum("made", 10**loglam, flux, ivar, z=z)


def test_a_shift_by_whole_cells_keeps_every_pixel() -> None:
    flux, ivar, _ = noisy(1)
    # log10(1 + z) of a whole number of steps, and the first cell on a pixel
    shift = 321
    start = round((np.log10(LOW) - LOGLAM[0]) / STEP)
    grid = np.log10(LOW) + STEP * (np.arange(LOGLAM.size) - start)
    z = 10 ** (shift * STEP) - 1
    light, weight = rest_frame(grid, flux, ivar, np.array([z]))
    kept = slice(start + shift, start + shift + CELLS)
    np.testing.assert_array_equal(light[0], flux[0, kept])
    np.testing.assert_array_equal(weight[0], ivar[0, kept])


def test_pixels_land_within_half_a_cell() -> None:
    flux, ivar, z = noisy(20, missing=0)
    light, _ = rest_frame(LOGLAM, flux, ivar, z)
    for row in range(20):
        cell = (LOGLAM - np.log10(1 + z[row]) - np.log10(LOW)) / STEP
        for pixel in (800, 1500, 2500):
            if 0 <= cell[pixel] < CELLS - 1:
                around = light[row, [int(np.floor(cell[pixel])), int(np.ceil(cell[pixel]))]]
                assert flux[row, pixel] in around
    assert np.isnan(light[z > 0.3][:, 0]).sum() == 0
    assert np.isnan(light[z < 0.01][:, 0]).all()  # bluer than the first pixel


def test_one_by_one_is_as_all_at_once() -> None:
    flux, ivar, z = noisy(5)
    light, weight = rest_frame(LOGLAM, flux, ivar, z)
    spectra = [as_spectrum(LOGLAM, *row) for row in zip(flux, ivar, z, strict=True)]
    single, single_weight = rest_frame_of(spectra)
    unit = np.nanmedian(np.abs(light), axis=1)[:, None]
    np.testing.assert_allclose(single * unit, light, rtol=1e-5)
    np.testing.assert_allclose(single_weight / unit**2, weight, rtol=1e-5)
    for many, one in zip(vars(look(light, weight)).values(),
                         vars(look(single, single_weight)).values(), strict=True):  # fmt: skip
        torch.testing.assert_close(many, one, rtol=1e-4, atol=1e-4)


def test_phases_of_half_a_cell_leave_no_holes() -> None:
    flux, ivar, _ = noisy(1, missing=0)
    base = np.log10(LOW) + STEP * (np.arange(3850) - 500)
    for phase in (0.4999, 0.5, 0.5001):
        grid = base + STEP * (phase + 1e-3 * np.sin(np.arange(3850)))  # rounded, as in a file
        _, weight = rest_frame_of([as_spectrum(grid, flux[0], ivar[0], 0.0)])
        assert (weight > 0).all()


def test_dropped_pixels_leave_holes_where_they_were() -> None:
    flux, ivar, _ = noisy(1, missing=0)
    kept = np.delete(np.arange(3850), np.arange(1500, 1507))
    whole, _ = rest_frame_of([as_spectrum(LOGLAM, flux[0], ivar[0], 0.1)])
    less, weight = rest_frame_of([as_spectrum(LOGLAM[kept], flux[0, kept], ivar[0, kept], 0.1)])
    assert (weight == 0).sum() == 7
    ratio = (less / whole)[weight > 0]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)


def test_fine_pixels_are_joined_by_their_weights() -> None:
    rng = np.random.default_rng(3)
    wavelength = np.arange(3600.0, 9800.0, 0.4)  # linear, some cells hold four pixels
    flux, ivar = rng.normal(5, 1, wavelength.size), rng.uniform(0.1, 3, wavelength.size)
    light, weight = rest_frame_of([make_spectrum("fine", wavelength, flux, ivar, z=0.2)])
    cell = np.rint(np.log10(wavelength / (1.2 * LOW)) / STEP)
    unit = np.median(np.abs(flux[(cell >= 0) & (cell < CELLS)]))
    for at in (100, 1200, 2600):
        inside = cell == at
        assert inside.sum() > 1
        mean = np.average(flux[inside], weights=ivar[inside])
        assert light[0, at] * unit == pytest.approx(mean, rel=1e-5)
        assert weight[0, at] / unit**2 == pytest.approx(ivar[inside].sum(), rel=1e-5)


def test_coarse_pixels_are_not_filled_in() -> None:
    wavelength = np.arange(3800.0, 9200.0, 4.0)  # two to four cells each
    one = np.ones_like(wavelength)
    _, weight = rest_frame_of([make_spectrum("coarse", wavelength, one, one, z=0.05)])
    inside = ((wavelength / 1.05 > LOW) & (wavelength / 1.05 < 6889)).sum()
    assert abs((weight > 0).sum() - inside) <= 1


def test_no_redshift_or_no_overlap_is_missing() -> None:
    flux, ivar, _ = noisy(1)
    spectra = [as_spectrum(LOGLAM, flux[0], ivar[0], z) for z in (np.nan, -1.5, 3.0, 0.1)]
    light, weight = rest_frame_of(spectra)
    assert (weight[:3] == 0).all() and np.isnan(light[:3]).all()
    assert (weight[3] > 0).any()
    inputs = look(light, weight)
    assert all(torch.isfinite(part).all() for part in vars(inputs).values())
    assert float(inputs.lines_seen[:3].sum() + inputs.bins_seen[:3].sum()) == 0


def test_another_grid_is_refused() -> None:
    flux, ivar, z = noisy(2)
    for grid in (np.log10(np.linspace(3800, 9200, 3850)), 2 * LOGLAM):
        with pytest.raises(ValueError, match="steps of"):
            rest_frame(grid, flux, ivar, z)


def test_values_of_missing_pixels_change_nothing() -> None:
    flux, ivar, z = noisy(6, missing=0.3)
    light, weight = rest_frame(LOGLAM, flux, ivar, z)
    clean = look(light, weight)
    for value in (0.0, 1e30, -1e30, np.inf):
        other = look(np.where(weight > 0, light, np.float32(value)), weight)
        for a, b in zip(vars(clean).values(), vars(other).values(), strict=True):
            assert torch.equal(a, b)
    assert (clean.lines.movedim(1, -1)[clean.lines_seen[:, 0] == 0] == 0).all()
    assert (clean.bins.movedim(1, -1)[clean.bins_seen[:, 0] == 0] == 0).all()


def test_units_do_not_matter() -> None:
    flux, ivar, _ = noisy(1)
    spectrum = as_spectrum(LOGLAM, flux[0], ivar[0], 0.12)
    cgs = replace(spectrum, flux=spectrum.flux * 1e-17, ivar=spectrum.ivar * 1e34)
    a, b = (look(*rest_frame_of([one])) for one in (spectrum, cgs))
    for one, other in zip(vars(a).values(), vars(b).values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_lines_lie_in_the_middle_one_above_another() -> None:
    cells = np.arange(CELLS)
    flux = np.ones((1, CELLS))
    for name, _ in LINES:
        at = np.log10(WAVELENGTH[name] / LOW) / STEP
        flux[0] += 5 * np.exp(-0.5 * ((cells - at) / 1.2) ** 2)
    inputs = look(flux, np.full((1, CELLS), 100.0))
    assert inputs.lines.shape == (1, 3, len(LINES), 2 * REACH)
    assert inputs.bins.shape == (1, 2, BINS) and BINS * BIN == CELLS
    middle = inputs.lines[0, 0, :, REACH - 4 : REACH + 5]
    assert (middle.argmax(1) == 4).all()
    # significance, with the continuum taken off: log(1 + 10 x 5)
    at = [name for name, _ in LINES].index("[O III] 5007")
    offset = np.log10(WAVELENGTH["[O III] 5007"] / LOW) / STEP - cell_of(WAVELENGTH["[O III] 5007"])
    peak = 5 * np.exp(-0.5 * (offset / 1.2) ** 2)
    assert float(inputs.lines[0, 0, at, REACH]) == pytest.approx(np.log1p(10 * peak), rel=1e-3)
    assert float(inputs.lines[0, 1, at, REACH]) == pytest.approx(np.log1p(8 * peak), rel=1e-3)
    assert float(inputs.lines[0, 2, at, REACH]) == pytest.approx(np.log10(11), rel=1e-5)


def test_bins_are_weighted_means() -> None:
    rng = np.random.default_rng(5)
    flux, ivar = rng.normal(10, 1, (1, CELLS)), rng.uniform(0.5, 2, (1, CELLS))
    flux[0, 800:803], ivar[0, 800:803] = np.nan, 0
    inputs = look(flux, ivar)
    means = np.array(
        [
            np.average(np.nan_to_num(flux[0, a : a + BIN]), weights=ivar[0, a : a + BIN])
            for a in range(0, CELLS, BIN)
        ]
    )
    level = np.median(means[::3])
    found = inputs.bins[0, 0].numpy()
    expected = np.sign(means - level) * np.log1p(2 * np.abs(means / level - 1))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_few_pixels_or_a_negative_continuum_are_no_trouble() -> None:
    flux = np.random.default_rng(0).normal(-0.5, 1, (3, CELLS))
    ivar = np.ones((3, CELLS))
    ivar[1, :] = 0
    ivar[1, 2000:2003] = 1  # in a bin that the level does not look at
    few, scaled = look(flux, ivar), look(flux * 7, ivar / 49)
    for a, b in zip(vars(few).values(), vars(scaled).values(), strict=True):
        assert torch.isfinite(a).all()
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert float(few.bins[1].abs().max()) < 10
