"""Starts near planted lines, gains against least squares, and the lowest of many random fits."""

import numpy as np
import pytest
import torch
from torch import Tensor

from warte.spectra.fit.layout import Layout, blue_layout, layout_for
from warte.spectra.fit.profile import model, polynomials
from warte.spectra.fit.project import Bounds, Lines, orthonormal, without
from warte.spectra.fit.solve import solve
from warte.spectra.fit.start import _bank, _bins, _gains, starts
from warte.spectra.lines import WAVELENGTH, Group

C_KM_S = 299_792.458


def spectra(
    layout: Layout, nonlinear: list[list[float]], linear: list[list[float]], seed: int, noise: float
) -> Lines:
    """White noise on SDSS's grid, instrument 65 km/s."""
    rng = np.random.default_rng(seed)
    grids = [
        low * 10 ** np.arange(0, np.log10(high / low) - 1e-4, 1e-4) for low, high in layout.windows
    ]
    grid = np.concatenate(grids) * 10 ** rng.uniform(0, 0.9e-4, (len(nonlinear), 1))
    wavelength = torch.tensor(grid)
    instrument = torch.full((len(grid), len(layout.lines)), 65.0, dtype=torch.float64)
    values = [torch.tensor(part, dtype=torch.float64) for part in (nonlinear, linear)]
    level = torch.full((len(grid), len(layout.windows)), 10.0, dtype=torch.float64)
    flux = model(layout, values[0], values[1], wavelength, instrument, level)
    flux += noise * torch.tensor(rng.normal(size=grid.shape))
    return Lines(wavelength, flux, torch.full_like(flux, noise**-2), instrument)


def doubles(count: int, seed: int) -> tuple[Lines, Tensor]:
    """Pairs of all kinds, peaks of the brighter 5 to 50 times the noise, and where they are."""
    rng = np.random.default_rng(seed)
    velocity = rng.normal(0, 60, count)
    apart = rng.uniform(50, 700, count) * rng.choice([-1, 1], count)
    widths = rng.uniform(60, 300, (2, count))
    widths[1] *= rng.choice([1, 2.5], count, p=[0.7, 0.3])
    nonlinear = np.array([velocity, widths[0], velocity + apart, widths[1]]).T
    peak = 10 ** rng.uniform(np.log10(5), np.log10(50), count)
    oiii = peak * np.sqrt(2 * np.pi) * np.hypot(widths[0], 65) * 5008.24 / C_KM_S
    second = oiii * 10 ** rng.uniform(-1.3, 0, count)
    balmer = 10 ** rng.uniform(-1.2, 0.3, count)
    ones = np.ones(count)
    linear = np.array([balmer * oiii, oiii, balmer * second, second, 5 * ones, 0 * ones]).T
    lines = spectra(blue_layout(2), nonlinear.tolist(), linear.tolist(), seed, 1.0)
    return lines, torch.tensor(nonlinear)


@pytest.mark.parametrize(("velocity", "sigma"), [(0, 60), (-640, 120), (875, 300), (130, 600)])
@pytest.mark.parametrize("windows", [(True, False), (False, True), (True, True)])
def test_one_line_is_found(windows: tuple[bool, bool], velocity: float, sigma: float) -> None:
    layout = layout_for(windows, 1, order=1)
    fluxes = [300.0, 200.0, 80.0, 60.0] if windows == (False, True) else [60.0, 200.0]
    fluxes = [60.0, 200.0, 300.0, 200.0, 80.0, 60.0] if all(windows) else fluxes
    linear = [*fluxes, 1.0, *[10.0, 0.0] * sum(windows)]
    lines = spectra(layout, [[velocity, sigma]], [linear], 1, 1.0)
    found = starts(layout, lines)
    assert found.shape == (1, 3, 2)
    best = solve(layout, lines, found)
    assert float(best.nonlinear[0, 0]) == pytest.approx(velocity, abs=20)
    assert float(best.nonlinear[0, 1]) == pytest.approx(sigma, rel=0.1)
    if sigma <= 120:  # broader lines run into each other
        assert abs(float(found[0, 0, 0]) - velocity) <= 75
        assert sigma / 2 <= float(found[0, 0, 1]) <= 2 * sigma


def test_gain_is_what_least_squares_gains() -> None:
    name = "[O III] 5007"
    layout = Layout(((4780.0, 5100.0),), (Group(name, ((name, 1.0),)),))
    lines = spectra(layout, [[120.0, 110.0]] * 3, [[40.0, 10.0, 0.5]] * 3, 2, 0.8)
    lines.weight[:, 5::11] = 0
    frame = orthonormal(polynomials(layout, lines.wavelength) * lines.weight.sqrt()[:, None])
    data = without(frame, lines.flux * lines.weight.sqrt())
    bank = _bank(layout, Bounds(), lines.flux.device)
    gains = _gains(_bins(layout, lines, bank), bank, frame.float(), data.float())
    gains = gains.unflatten(1, (len(bank.width), -1))
    for row in range(3):
        root = lines.weight[row].sqrt().numpy()
        wavelength, flux = lines.wavelength[row].numpy(), lines.flux[row].numpy()
        columns = [np.ones_like(wavelength), wavelength - 4940]
        for w, v in ((1, 22), (2, 22), (3, 20), (5, 25)):
            offset = (wavelength / WAVELENGTH[name] - 1) * C_KM_S - float(bank.velocity[v])
            profile = np.exp(-0.5 * (offset / np.hypot(float(bank.width[w]), 65)) ** 2)
            falls = []
            for used in (columns, [*columns, profile]):
                matrix = np.stack(used, 1) * root[:, None]
                fit = np.linalg.lstsq(matrix, flux * root, rcond=None)[0]
                falls.append(np.sum((flux * root - matrix @ fit) ** 2))
            assert float(gains[row, w, v]) == pytest.approx(falls[0] - falls[1], rel=0.02)


def test_blended_lines_do_not_claim_the_same_light_twice() -> None:
    layout = layout_for((False, True), 1, order=1, absorption=False)
    rng = np.random.default_rng(3)
    nonlinear = np.array([rng.normal(0, 150, 60), rng.uniform(60, 300, 60)]).T
    fluxes = 10 ** rng.uniform(0.5, 2.3, (60, 1)) * 10 ** rng.normal(0, 0.35, (60, 4))
    linear = np.concatenate([fluxes, np.full((60, 1), 10.0), np.zeros((60, 1))], 1)
    lines = spectra(layout, nonlinear.tolist(), linear.tolist(), 3, 0.5)
    found = starts(layout, lines)
    strong = fluxes.sum(1) > 100
    away = (found[:, 0, 0] - torch.tensor(nonlinear[:, 0])).abs()[torch.tensor(strong)]
    assert (away > 100).double().mean() < 0.15
    planted = solve(layout, lines, torch.tensor(nonlinear)[:, None])
    assert (solve(layout, lines, found).chi2 <= planted.chi2 + 0.05).all()


def test_narrow_lines_are_found_on_a_broad_one() -> None:
    layout = layout_for((True, True), 1, broad=True, order=1, absorption=False)
    fluxes = [40.0, 120.0, 130.0, 90.0, 40.0, 30.0, 900.0, 3000.0]
    lines = spectra(layout, [[100.0, 120.0, 300.0, 2200.0]], [[*fluxes, 10.0, 0, 10.0, 0]], 4, 1.0)
    found = starts(layout, lines)
    assert found.shape[2] == 4
    assert (found[0, :, 0] - 100).abs().min() <= 75
    best = solve(layout, lines, found)
    assert float(best.nonlinear[0, 1]) == pytest.approx(120, rel=0.1)
    assert float(best.nonlinear[0, 3]) == pytest.approx(2200, rel=0.1)


def test_hardly_a_pair_ends_above_the_lowest_of_many_fits() -> None:
    layout = blue_layout(2)
    lines, planted = doubles(300, 5)
    found = solve(layout, lines, starts(layout, lines))
    rng = np.random.default_rng(6)
    velocity = rng.uniform(-1000, 1000, (300, 20, 2))
    width = np.exp(rng.uniform(np.log(20), np.log(900), (300, 20, 2)))
    others = torch.tensor(np.stack([velocity, width], 3)).flatten(2)
    others[:, :10, :2] = planted[:, None, :2]
    others[:, 0] = planted
    lowest = solve(layout, lines, others, margin=torch.inf)
    assert found.converged.all()
    assert float((found.chi2 > lowest.chi2 + 0.05).double().mean()) <= 0.01
    assert float((found.chi2 > lowest.chi2 + 2).double().mean()) <= 0.004
    assert float((found.chi2 < lowest.chi2 - 0.05).double().mean()) >= 0.005


def test_a_single_component_is_the_lowest_of_many_fits() -> None:
    layout = blue_layout(1)
    lines, _ = doubles(60, 7)
    found = solve(layout, lines, starts(layout, lines))
    grid = [[v, s] for v in range(-900, 901, 100) for s in (40.0, 130.0, 350.0)]
    lowest = solve(layout, lines, torch.tensor(grid, dtype=torch.float64), margin=torch.inf)
    assert (found.chi2 <= lowest.chi2 + 0.05).all()


def test_starts_of_a_spectrum_do_not_depend_on_others_and_none_are_wild() -> None:
    layout = blue_layout(2)
    lines, _ = doubles(6, 8)
    alone = starts(layout, lines.take(slice(2, 3)))
    broken = lines.flux.clone()
    broken[0] = torch.nan
    weight = lines.weight.clone()
    weight[1] = 0
    weight[3] = torch.inf
    found = starts(layout, Lines(lines.wavelength, broken, weight, lines.instrument))
    orders = [part[:, 2].argsort() for part in (found[2], alone[0])]  # peaks of one height
    torch.testing.assert_close(found[2, orders[0]], alone[0, orders[1]], rtol=1e-3, atol=0.5)
    assert torch.isfinite(found).all() and found.shape == (6, 6, 4)
    assert (found[:, :, 1::2] > 0).all()


def test_no_spectra_no_starts() -> None:
    lines, _ = doubles(2, 9)
    assert starts(blue_layout(2), lines.take(slice(0, 0))).shape == (0, 1, 4)
