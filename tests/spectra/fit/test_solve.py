"""The batched fit against scipy and lmfit, finite differences, and planted truth."""

from dataclasses import replace
from itertools import product

import lmfit
import numpy as np
import pytest
import torch
from scipy.optimize import least_squares, lsq_linear, nnls
from torch import Tensor

from warte.spectra.fit.layout import Layout, blue_layout, layout_for
from warte.spectra.fit.profile import model, parts
from warte.spectra.fit.project import bounded, derivatives, evaluate, normal, prepare
from warte.spectra.fit.solve import Bounds, Lines, Solution, solve
from warte.spectra.fit.start import starts
from warte.spectra.lines import WAVELENGTH

FULL = layout_for((True, True), 2, broad=True, order=2)
LAYOUTS = {
    "one": blue_layout(1),
    "two": blue_layout(2),
    "broad": layout_for((True, False), 1, broad=True, absorption=False),
    "absorption": layout_for((True, False), 2),
    "windows": layout_for((True, True), 1),
    "everything": FULL,
}
LEVEL = 10.0


def truth(layout: Layout, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Velocities and widths (count, K) and linear parameters (count, M), well separated."""
    nonlinear, linear = [], []
    for rank in range(layout.components):
        nonlinear += [(2 * rank - 1) * rng.uniform(100, 300, count), rng.uniform(80, 160, count)]
    if layout.broad:
        nonlinear += [rng.uniform(-200, 200, count), rng.uniform(1500, 2500, count)]
    fluxes = layout.components * len(layout.groups)
    linear += list(rng.uniform(40, 160, (fluxes, count)))
    linear += list(rng.uniform(300, 600, (len(layout.broad), count)))
    linear += list(rng.uniform(1, 3, (int(layout.absorption), count)))
    for _ in layout.windows:
        linear += [rng.uniform(8, 12, count), *rng.normal(0, 0.5, (layout.order, count))]
    return torch.tensor(np.array(nonlinear).T), torch.tensor(np.array(linear).T)


def draw(
    layout: Layout, count: int, seed: int, noise: float = 0.5, missing: float = 0.0
) -> tuple[Lines, Tensor, Tensor]:
    """Spectra on SDSS's grid, each at its own phase, white noise, and what is in them."""
    rng = np.random.default_rng(seed)
    nonlinear, linear = truth(layout, count, rng)
    grids = [
        low * 10 ** np.arange(0, np.log10(high / low) - 1e-4, 1e-4) for low, high in layout.windows
    ]
    grid = np.concatenate(grids) * 10 ** rng.uniform(0, 0.9e-4, (count, 1))
    wavelength = torch.tensor(grid)
    instrument = torch.tensor(rng.uniform(58, 72, (count, len(layout.lines))))
    level = torch.full((count, len(layout.windows)), LEVEL)
    flux = model(layout, nonlinear, linear, wavelength, instrument, level)
    flux = flux + noise * torch.tensor(rng.normal(size=grid.shape))
    weight = torch.full_like(flux, 1 / noise**2 if noise else 1.0)
    weight[torch.tensor(rng.random(grid.shape) < missing)] = 0.0
    return (
        Lines(wavelength, torch.where(weight > 0, flux, 0.0), weight, instrument),
        nonlinear,
        linear,
    )


def best(layout: Layout, lines: Lines, **settings: float) -> Solution:
    return solve(layout, lines, starts(layout, lines), **settings)


def curve(layout: Layout, lines: Lines, solution: Solution, row: int, values: Tensor) -> Tensor:
    """The model of one spectrum for all its parameters in one vector."""
    cut, here = layout.nonlinear, slice(row, row + 1)
    return model(
        layout,
        values[None, :cut],
        values[None, cut:],
        lines.wavelength[here],
        lines.instrument[here],
        solution.level[here],
    )[0]


def chi2_of(lines: Lines, curves: Tensor) -> Tensor:
    return ((lines.flux - curves) ** 2 * lines.weight).sum(1)


def test_profile_integrates_to_the_flux_and_has_the_width_of_both() -> None:
    layout = blue_layout(1, order=0)
    wavelength = torch.linspace(4600, 5200, 60_001, dtype=torch.float64)[None]
    nonlinear = torch.tensor([[150.0, 120.0]], dtype=torch.float64)
    linear = torch.tensor([[0.0, 7.0, 0.0]], dtype=torch.float64)
    instrument = torch.full((1, 3), 50.0, dtype=torch.float64)
    lines, continuum = parts(layout, nonlinear, linear, wavelength, instrument)
    x, y = wavelength[0], lines[0, 0]
    assert float(y.sum() * 0.01) == pytest.approx(7 * (1 + 1 / 2.98), rel=1e-9)
    assert not continuum.any()
    strong = torch.where(x > 4985, y, 0.0)
    mean = float((strong * x).sum() / strong.sum())
    spread = float(((strong * (x - mean) ** 2).sum() / strong.sum()).sqrt())
    rest = WAVELENGTH["[O III] 5007"]
    assert mean == pytest.approx(rest * (1 + 150 / 299_792.458), abs=1e-6)
    assert spread == pytest.approx(rest * 130 / 299_792.458, rel=1e-6)


@pytest.mark.parametrize("name", LAYOUTS)
def test_slopes_are_those_of_finite_differences(name: str) -> None:
    layout = LAYOUTS[name]
    lines, nonlinear, _ = draw(layout, 3, 1, missing=0.1)
    task = prepare(layout, lines, Bounds())
    theta = task.inside(nonlinear + 20)
    point = evaluate(task, theta)
    found = derivatives(task, point).clone()
    linear = point.linear[:, task.order]
    curves = task.rows[:, task.curves].clone()
    assert (linear[:, : layout.fluxes] > 0).all()
    for k in range(layout.nonlinear):
        moved = []
        for sign in (1, -1):
            shifted = theta.clone()
            shifted[:, k] += sign * 1e-3
            evaluate(task, shifted)
            moved.append((point.linear[:, None] @ task.rows[:, task.curves])[:, 0])
        slope = (moved[0] - moved[1]) / 2e-3
        torch.testing.assert_close(
            found[:, k], slope, rtol=1e-6, atol=1e-8 * float(slope.abs().max())
        )
    # the curves, times their parameters, are the public model's lines and absorption
    level = torch.full((3, len(layout.windows)), 0.0)
    level = task.level if layout.absorption else level
    linear[:, : layout.fluxes] /= task.unit
    full = torch.cat([linear, torch.zeros(3, layout.linear - linear.shape[1])], 1)
    expected = model(layout, task.outside(theta), full, lines.wavelength, lines.instrument, level)
    drawn = (point.linear[:, None] @ curves)[:, 0]
    torch.testing.assert_close(drawn, expected * lines.weight.sqrt(), rtol=1e-9, atol=1e-9)


def test_gradient_is_that_of_the_projected_chi_square() -> None:
    lines, nonlinear, _ = draw(FULL, 4, 2)
    task = prepare(FULL, lines, Bounds())
    theta = task.inside(nonlinear + 30)
    _, down, _ = normal(task, evaluate(task, theta))
    down = down.clone()
    for k in range(FULL.nonlinear):
        ends = []
        for sign in (1, -1):
            shifted = theta.clone()
            shifted[:, k] += sign * 1e-2
            ends.append(evaluate(task, shifted).chi2)
        slope = (ends[0] - ends[1]) / 2e-2
        torch.testing.assert_close(-2 * down[:, k], slope, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", LAYOUTS)
def test_noiseless_truth_is_recovered(name: str) -> None:
    layout = LAYOUTS[name]
    if layout.absorption:  # without noise the median is part of the truth
        layout = replace(layout, absorption=False)
    lines, nonlinear, linear = draw(layout, 5, 3, noise=0.0)
    lines = replace(lines, weight=lines.weight * 1e6)
    found = solve(layout, lines, nonlinear[:, None] * 1.05 + 5, tolerance=1e-16)
    assert found.converged.all()
    torch.testing.assert_close(found.nonlinear, nonlinear, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(found.linear, linear, rtol=1e-6, atol=1e-5)


def test_truth_is_recovered_from_its_own_starts() -> None:
    layout = blue_layout(2)
    lines, nonlinear, _ = draw(layout, 20, 4, noise=0.05)
    found = best(layout, lines)
    order = found.nonlinear[:, 0] < found.nonlinear[:, 2]
    low = torch.where(order, found.nonlinear[:, 0], found.nonlinear[:, 2])
    high = torch.where(order, found.nonlinear[:, 2], found.nonlinear[:, 0])
    assert (low - nonlinear[:, 0]).abs().max() < 10
    assert (high - nonlinear[:, 2]).abs().max() < 10


@pytest.mark.parametrize("name", LAYOUTS)
def test_chi_square_and_covariance_are_those_of_scipy(name: str) -> None:
    layout = LAYOUTS[name]
    lines, nonlinear, linear = draw(layout, 3, 5, noise=0.3, missing=0.1)
    found = best(layout, lines, tolerance=1e-10)
    assert found.converged.all() and not found.fixed.any()
    curves = model(
        layout, found.nonlinear, found.linear, lines.wavelength, lines.instrument, found.level
    )
    torch.testing.assert_close(found.chi2, chi2_of(lines, curves), rtol=1e-10, atol=1e-8)
    for row in range(len(lines)):
        root, flux = lines.weight[row].sqrt(), lines.flux[row]

        def residual(values: np.ndarray, row=row, root=root, flux=flux) -> np.ndarray:
            fitted = curve(layout, lines, found, row, torch.tensor(values))
            return ((flux - fitted) * root).numpy()

        begin = torch.cat([nonlinear[row], linear[row]]).numpy()
        other = least_squares(residual, begin, x_scale="jac", xtol=1e-12, ftol=1e-12, method="lm")
        assert float(found.chi2[row]) <= 2 * other.cost + 1e-5
        values = torch.cat([found.nonlinear[row], found.linear[row]]).numpy()
        if float(found.chi2[row]) > 2 * other.cost - 1e-5:
            again = least_squares(residual, values, x_scale="jac", xtol=1e-15, max_nfev=1)
            expected = np.linalg.inv(again.jac.T @ again.jac)
            scale = np.sqrt(np.diag(expected))
            difference = (found.covariance[row].numpy() - expected) / np.outer(scale, scale)
            assert np.abs(difference).max() < 1e-3


def test_wide_and_distant_lines_use_all_pixels() -> None:
    layout = blue_layout(1)
    lines, nonlinear, linear = draw(layout, 24, 22)
    nonlinear[:, 0] = torch.linspace(-950, 950, 24, dtype=torch.float64)
    nonlinear[:, 1] = torch.linspace(300, 1150, 24, dtype=torch.float64).roll(7)
    flux = model(layout, nonlinear, linear, lines.wavelength, lines.instrument)
    lines = replace(lines, flux=flux, weight=lines.weight * 1e6)
    found = solve(layout, lines, nonlinear[:, None] * 1.02, tolerance=1e-12)
    torch.testing.assert_close(found.nonlinear, nonlinear, rtol=1e-5, atol=1e-4)
    # the small difference of large sums of squares: nothing but rounding is left
    assert (found.chi2.abs() < 1e-13 * (lines.weight * flux**2).sum(-1)).all()


def test_lmfit_finds_nothing_better() -> None:
    layout = blue_layout(2)
    lines, nonlinear, linear = draw(layout, 4, 6, noise=3.0)
    found = best(layout, lines)
    rng = np.random.default_rng(7)
    for row in range(len(lines)):
        lowest = np.inf
        for trial in range(3):
            values = torch.cat([nonlinear[row], linear[row]]).numpy().copy()
            if trial:
                values[:4] *= rng.uniform(0.5, 1.5, 4)
            names = [f"p{k}" for k in range(len(values))]
            parameters = lmfit.Parameters()
            ends = [(-1000, 1000), (10, 1200)] * 2 + [(0, np.inf)] * 4 + [(-np.inf, np.inf)] * 2
            for name, value, (low, high) in zip(names, values, ends, strict=True):
                parameters.add(name, value, min=low, max=high)

            def residual(p: lmfit.Parameters, row=row, names=names) -> np.ndarray:
                now = torch.tensor([p[name].value for name in names], dtype=torch.float64)
                fitted = curve(layout, lines, found, row, now)
                return ((lines.flux[row] - fitted) * lines.weight[row].sqrt()).numpy()

            lowest = min(lowest, lmfit.minimize(residual, parameters, max_nfev=3000).chisqr)
        assert float(found.chi2[row]) <= lowest + 1e-3


def test_missing_pixels_have_no_influence() -> None:
    layout = layout_for((True, False), 2)
    lines, _, _ = draw(layout, 6, 8, missing=0.2)
    garbage = torch.where(lines.weight > 0, lines.flux, 1e6)
    garbage[:, ::7] = torch.where(lines.weight[:, ::7] > 0, garbage[:, ::7], torch.nan)
    one, other = best(layout, lines), best(layout, replace(lines, flux=garbage))
    assert torch.equal(one.nonlinear, other.nonlinear)
    assert torch.equal(one.linear, other.linear)
    assert torch.equal(one.chi2, other.chi2)


def test_padding_changes_nothing() -> None:
    layout = blue_layout(2)
    lines, _, _ = draw(layout, 4, 9)
    padded = Lines(
        torch.cat([lines.wavelength, lines.wavelength[:, -1:].expand(-1, 9)], 1),
        torch.nn.functional.pad(lines.flux, (0, 9)),
        torch.nn.functional.pad(lines.weight, (0, 9)),
        lines.instrument,
    )
    one, other = best(layout, lines), best(layout, padded)
    torch.testing.assert_close(one.chi2, other.chi2, rtol=1e-9, atol=1e-8)
    torch.testing.assert_close(one.nonlinear, other.nonlinear, rtol=1e-5, atol=1e-3)
    assert torch.equal(one.dof, other.dof)


@pytest.mark.parametrize("scale", [1e-17, 1e12])
def test_unit_of_the_flux_does_not_matter(scale: float) -> None:
    layout = layout_for((True, False), 2)
    lines, _, _ = draw(layout, 5, 21)
    other = best(layout, replace(lines, flux=lines.flux * scale, weight=lines.weight / scale**2))
    one = best(layout, lines)
    torch.testing.assert_close(other.chi2, one.chi2, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(other.nonlinear, one.nonlinear, rtol=1e-4, atol=0.01)
    units = torch.full((layout.linear,), scale, dtype=torch.float64)
    units[layout.fluxes] = 1.0  # the absorption, in Angstrom
    torch.testing.assert_close(other.linear / units, one.linear, rtol=1e-3, atol=1e-3)
    errors = [fit.covariance.diagonal(dim1=1, dim2=2).sqrt()[:, 4:] for fit in (other, one)]
    torch.testing.assert_close(errors[0] / units, errors[1], rtol=1e-2, atol=1e-4)


def test_bounds_hold_and_are_reported() -> None:
    layout = blue_layout(1)
    lines, _, _ = draw(layout, 6, 10)  # velocities -300 to -100, widths 80 to 160 km/s
    bounds = Bounds(velocity=(-50.0, 40.0), sigma=(10.0, 60.0))
    found = best(layout, lines, bounds=bounds)
    torch.testing.assert_close(found.nonlinear[:, 0], torch.full((6,), -50.0, dtype=torch.float64))
    torch.testing.assert_close(found.nonlinear[:, 1], torch.full((6,), 60.0, dtype=torch.float64))
    assert found.at_bound.all() and found.fixed[:, :2].all() and not found.fixed[:, 2:].any()
    assert not found.covariance[:, :2].any()
    assert (found.covariance.diagonal(dim1=1, dim2=2)[:, 2:] > 0).all()
    assert torch.equal(found.dof, (lines.weight > 0).sum(1) - 4.0)


def test_fluxes_are_never_negative() -> None:
    layout = blue_layout(2)
    lines, nonlinear, linear = draw(layout, 30, 11)
    linear[:, 0] *= -1  # H-beta of the first component in absorption
    flux = model(layout, nonlinear, linear, lines.wavelength, lines.instrument)
    found = best(layout, replace(lines, flux=flux))
    fluxes = found.linear[:, : layout.fluxes]
    assert (fluxes >= 0).all() and (fluxes == 0).any(1).all()
    zero = torch.cat([torch.zeros(30, 4, dtype=torch.bool), fluxes == 0], 1)
    assert found.fixed[:, :8][zero].all()


def test_absorption_has_an_upper_bound() -> None:
    layout = layout_for((True, False), 1)
    lines, nonlinear, linear = draw(layout, 5, 12, noise=0.1)
    level = torch.full((5, 1), LEVEL)
    linear[:, layout.fluxes] = 15.0
    flux = model(layout, nonlinear, linear, lines.wavelength, lines.instrument, level)
    found = best(layout, replace(lines, flux=flux))
    assert torch.equal(found.linear[:, layout.fluxes], torch.full((5,), 10.0, dtype=torch.float64))
    assert found.fixed[:, layout.nonlinear + layout.fluxes].all()


def test_other_spectra_have_no_influence() -> None:
    layout = blue_layout(2)
    lines, _, _ = draw(layout, 500, 13, noise=4.0)  # more than a chunk
    whole = best(layout, lines)
    order = torch.randperm(500, generator=torch.Generator().manual_seed(0))
    mixed = best(layout, lines.take(order))
    torch.testing.assert_close(mixed.chi2, whole.chi2[order], rtol=1e-7, atol=1e-6)
    few = best(layout, lines.take(slice(0, 20)))
    torch.testing.assert_close(few.chi2, whole.chi2[:20], rtol=1e-7, atol=1e-6)


def test_bad_spectra_are_told_and_harm_nobody() -> None:
    layout = blue_layout(1)
    lines, _, _ = draw(layout, 6, 14)
    alone = best(layout, lines.take(slice(0, 1)))
    flux, weight, instrument = lines.flux.clone(), lines.weight.clone(), lines.instrument.clone()
    weight[1] = 0
    flux[2, 50] = torch.nan
    weight[3, 5:] = 0
    weight[4, 7] = torch.inf
    instrument[5, 1] = torch.nan
    found = best(layout, Lines(lines.wavelength, flux, weight, instrument))
    assert found.converged.tolist() == [True] + [False] * 5
    assert torch.isnan(found.chi2[1:]).all() and torch.isnan(found.nonlinear[1:]).all()
    assert torch.isnan(found.covariance[1:]).all()
    torch.testing.assert_close(found.chi2[:1], alone.chi2, rtol=1e-9, atol=1e-9)


def test_a_window_without_pixels_is_fixed() -> None:
    layout = layout_for((True, True), 1, absorption=False)
    lines, nonlinear, _ = draw(layout, 4, 15)
    weight = torch.where(lines.wavelength > 6000, 0.0, lines.weight)
    found = best(layout, replace(lines, weight=weight))
    red = [k for k, group in enumerate(layout.groups) if WAVELENGTH[group.lines[0][0]] > 6000]
    assert found.fixed[:, [2 + k for k in red]].all() and not found.linear[:, red].any()
    assert found.fixed[:, -2:].all() and not found.linear[:, -2:].any()
    assert (found.nonlinear - nonlinear).abs().max() < 20
    assert torch.isfinite(found.covariance).all()


def test_no_spectra() -> None:
    lines = draw(blue_layout(2), 3, 16)[0].take(slice(0, 0))
    found = best(blue_layout(2), lines)
    assert found.chi2.shape == (0,) and found.covariance.shape == (0, 10, 10)


def test_threads_share_the_chunks_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warte.spectra.fit.solve.CHUNK", 30)
    layout = blue_layout(2)
    lines, _, _ = draw(layout, 200, 23, noise=4.0)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(best(layout, lines))
    finally:
        torch.set_num_threads(threads)
    one, several = found
    assert one.converged.all()
    assert torch.equal(one.chi2, several.chi2) and torch.equal(one.nonlinear, several.nonlinear)
    assert torch.equal(one.covariance, several.covariance)


def test_settings_of_torch_are_left_alone() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        lines = draw(blue_layout(1), 2, 17)[0]
        found = best(blue_layout(1), lines)
        assert torch.get_num_threads() == 2
        found.chi2.add_(1)  # an ordinary tensor
        starts(blue_layout(1), lines).add_(1)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("size", [1, 3, 8, 15])
def test_bounded_least_squares_are_those_of_scipy(size: int) -> None:
    rng = np.random.default_rng(size)
    rows = rng.normal(size=(40, 30, size)) + 2 * rng.normal(size=(40, 30, 1))  # collinear
    data = rng.normal(size=(40, 30))
    gram = torch.tensor(rows.transpose(0, 2, 1) @ rows)
    right = torch.tensor(np.einsum("bpm,bp->bm", rows, data))
    found, side = bounded(gram, right, torch.full((size,), torch.inf, dtype=torch.float64))
    tight, sides = bounded(gram, right, torch.full((size,), 0.05, dtype=torch.float64))
    for k in range(40):
        np.testing.assert_allclose(found[k], nnls(rows[k], data[k])[0], atol=1e-8)
        other = lsq_linear(rows[k], data[k], (0, 0.05), method="bvls", tol=1e-14)
        np.testing.assert_allclose(tight[k], other.x, atol=1e-8)
    assert torch.equal(side == 0, found > 0)
    assert torch.equal(sides == 1, tight == 0.05)
    for guess in (-torch.ones_like(side), torch.zeros_like(side), side):
        again, _ = bounded(gram, right, torch.full((size,), torch.inf, dtype=torch.float64), guess)
        torch.testing.assert_close(again, found, rtol=1e-8, atol=1e-10)


def test_bounded_with_an_empty_column() -> None:
    gram = torch.diag(torch.tensor([2.0, 0.0], dtype=torch.float64))[None]
    right = torch.tensor([[3.0, 0.0]], dtype=torch.float64)
    found, side = bounded(gram, right, torch.full((2,), torch.inf, dtype=torch.float64))
    assert found[0].tolist() == pytest.approx([1.5, 0.0], rel=1e-10)
    assert side.tolist() == [[0, -1]]


def test_merged_components_do_no_harm() -> None:
    layout = blue_layout(2)
    lines, nonlinear, _ = draw(blue_layout(1), 10, 18)
    same = torch.cat([nonlinear, nonlinear], 1)
    found = solve(layout, lines, same[:, None])
    single = solve(blue_layout(1), lines, nonlinear[:, None])
    assert torch.isfinite(found.chi2).all() and torch.isfinite(found.covariance).all()
    assert (found.chi2 <= single.chi2 + 1e-6).all()


def test_model_needs_the_level_of_an_absorption() -> None:
    layout = layout_for((True, False), 1)
    lines, nonlinear, linear = draw(layout, 1, 19)
    with pytest.raises(ValueError, match="level"):
        model(layout, nonlinear, linear, lines.wavelength, lines.instrument)


def test_parameters_are_placed_as_the_layout_says() -> None:
    for kind, broad, order in product((True, False), (True, False), (0, 2)):
        layout = layout_for((kind, True), 2, broad=broad, order=order)
        lines, nonlinear, linear = draw(layout, 2, 20, noise=0.02)
        found = solve(layout, lines, nonlinear[:, None])
        fluxes = layout.fluxes
        assert (found.linear[:, :fluxes] / linear[:, :fluxes] - 1).abs().max() < 0.1
