"""Errors of pairs against root finding with scipy, sampled posteriors and the truth."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import brentq, least_squares

from warte.spectra.fit import profile
from warte.spectra.fit.batch import batches
from warte.spectra.fit.fitted import Fitted, fitted
from warte.spectra.fit.intervals import half_width, likelihood_sides, pair_errors
from warte.spectra.fit.layout import Layout, blue_layout, layout_for
from warte.spectra.fit.solve import Lines, solve
from warte.spectra.fit.start import starts
from warte.spectra.fit.tables import line_rows
from warte.spectra.simulate.blue import Pairs, simulate_pairs

PLAIN = blue_layout(2)  # v1 s1 v2 s2, H-beta and [O III] of 1, of 2, two of the continuum
BLENDS = dict(
    separation_km_s=(200.0, 300.0), sigma_km_s=(90.0, 130.0), flux_ratio=(0.4, 0.9),
    peak_snr=(12.0, 25.0),
)  # fmt: skip


def made(count: int, layout: Layout, seed: int, **changes: object) -> tuple[Pairs, Lines, Fitted]:
    pairs = simulate_pairs(count, np.random.default_rng(seed), **changes)  # type: ignore[arg-type]
    (batch,), _ = batches(pairs.spectra())
    lines = batch.lines
    return pairs, lines, fitted(layout, solve(layout, lines, starts(layout, lines)))


def chi2_of(layout: Layout, one: Lines, values: np.ndarray) -> np.ndarray:
    """(S,) chi-square of one spectrum for parameters (S, K + M)."""
    rows, split = torch.from_numpy(values), layout.nonlinear
    level = profile.levels(layout, one.wavelength, one.flux, one.weight)
    model = profile.model(
        layout, rows[:, :split], rows[:, split:], one.wavelength.expand(len(rows), -1),
        one.instrument.expand(len(rows), -1), level.expand(len(rows), -1),
    )  # fmt: skip
    return (one.weight * (one.flux - model) ** 2).sum(1).numpy()


def end(layout: Layout, one: Lines, best: np.ndarray, error: np.ndarray, at: int, to: int) -> float:
    """Distance to the place where chi-square, minimised by scipy over the others, is 1 higher."""
    low = np.full(best.size, -np.inf)
    low[[1, 3]] = 10.0
    low[4 : 4 + layout.fluxes] = 0.0
    if layout.absorption:
        low[4 + layout.fluxes] = 0.0
    others = np.arange(best.size) != at
    level = profile.levels(layout, one.wavelength, one.flux, one.weight)
    pixels = (one.wavelength, one.instrument, level)
    base = chi2_of(layout, one, best[None])[0]
    seen = best[others].copy()

    def residual(free: np.ndarray, value: float) -> np.ndarray:
        row = np.empty(best.size)
        row[others], row[at] = free, value
        tensor = torch.from_numpy(row)[None]
        model = profile.model(layout, tensor[:, :4], tensor[:, 4:], *pixels)
        return ((one.flux - model) * one.weight.sqrt())[0].numpy()

    def rise(distance: float) -> float:
        nonlocal seen
        scale = np.where(error > 0, error, 1.0)[others]
        start = np.maximum(seen, low[others] + 1e-3 * scale)
        result = least_squares(
            residual, start, bounds=(low[others], np.inf), x_scale=scale, xtol=1e-7,
            args=(best[at] + to * distance,),
        )  # fmt: skip
        seen = result.x
        return float(2 * result.cost - base - 1)

    high = 1.0
    while rise(high * error[at]) < 0:
        high *= 1.4
    return float(brentq(rise, 0.3 * error[at], high * error[at], rtol=1e-3))


@pytest.mark.parametrize("layout", [PLAIN, layout_for((True, False), 2, order=1)])
def test_sides_are_those_that_scipy_finds(layout: Layout) -> None:
    _, lines, found = made(12, layout, 5, **BLENDS)
    lines, found = lines.take(slice(2, 3)), found.take(np.array([2]))
    sides, _ = likelihood_sides(found, lines, np.ones(1))
    for rank, at in ((0, 0), (3, 3), (7, 7)):  # velocity, width, flux of [O III]
        for side, to in ((0, -1), (1, 1)):
            best = found.parameters[0]
            expected = end(layout, lines, best, found.errors[0], at, to)
            assert sides[side, 0, rank] == pytest.approx(expected, rel=0.03), (at, to)
    plain = found.errors[0, :8]
    assert np.abs(sides[:, 0] / plain - 1).max() > 0.15  # not what the matrix says


def test_a_rise_of_four_is_twice_as_far_where_the_likelihood_is_normal() -> None:
    _, lines, found = made(8, PLAIN, 1, separation_km_s=600.0, sigma_km_s=80.0, peak_snr=300.0)
    sides, tilts = likelihood_sides(found, lines, np.full(8, 2.0))
    np.testing.assert_allclose(sides, 2 * np.stack(2 * [found.errors[:, :8]]), rtol=0.03)
    assert np.abs(tilts).max() < 0.05
    errors = pair_errors(found, lines, np.full(8, 2.0))
    np.testing.assert_allclose(errors, 2 * found.errors, rtol=0.02)


@pytest.mark.parametrize("tilts", [(0.0, 0.0), (0.4, -0.3), (-0.9, 0.8)])
@pytest.mark.parametrize("sides", [(1.0, 1.0), (0.7, 1.6), (30.0, 10.0)])
def test_half_width_holds_its_share_of_the_density(
    sides: tuple[float, float], tilts: tuple[float, float]
) -> None:
    half = float(half_width(np.array(sides), np.array(tilts)))

    def mass(reach: float) -> float:
        return sum(
            quad(lambda x, s=s, k=k: np.exp(-0.5 * (x / s) ** 2 - k * x / s), 0, reach)[0]
            for s, k in zip(sides, tilts, strict=True)
        )

    assert mass(half) / mass(12 * max(sides)) == pytest.approx(0.682689, abs=1e-5)


def test_half_width_of_nothing_is_nothing() -> None:
    assert half_width(np.zeros((2, 3)), np.zeros((2, 3))).tolist() == [0.0, 0.0, 0.0]
    assert half_width(np.full((2, 1), 3.0), np.zeros((2, 1)))[0] == pytest.approx(3.0, rel=1e-5)


def posterior_errors(one: Lines, found: Fitted, rng: np.random.Generator) -> np.ndarray:
    """(8,) half the interval around the fit that holds 68.27 % of the posterior, priors flat.

    Importance sampling from a multivariate t with 4 degrees of freedom, adapted twice.
    """
    best, count, dof = found.parameters[0], 6000, 4
    mean, cov = best, 2 * found.covariance[0]
    for _ in range(4):
        normal = rng.standard_normal((count, best.size))
        draw = normal / np.sqrt(rng.chisquare(dof, (count, 1)) / dof)
        values = mean + draw @ np.linalg.cholesky(cov).T
        allowed = (values[:, 4:8] >= 0).all(1) & (values[:, [1, 3]] > 10).all(1)
        log = 0.5 * (dof + best.size) * np.log1p((draw**2).sum(1) / dof)
        log -= 0.5 * (chi2_of(PLAIN, one, values) - found.chi2[0])
        weight = np.where(allowed, np.exp(log - log[allowed].max()), 0.0)
        weight /= weight.sum()
        mean = weight @ values
        cov = 1.2 * ((values - mean).T * weight) @ (values - mean)
    assert 1 / (weight**2).sum() > 1000  # so many independent draws are worth as much
    away = np.abs(values - best)[:, :8]
    order = np.argsort(away, axis=0)
    mass = np.cumsum(weight[order], axis=0)
    return np.array([away[order[:, j], j][np.searchsorted(mass[:, j], 0.6827)] for j in range(8)])


@pytest.mark.parametrize("row", [2, 5])
def test_errors_of_blends_are_those_of_the_posterior(row: int) -> None:
    _, lines, found = made(12, PLAIN, 5, **BLENDS)
    lines, found = lines.take(slice(row, row + 1)), found.take(np.array([row]))
    wanted = posterior_errors(lines, found, np.random.default_rng(1))
    errors = pair_errors(found, lines, np.ones(1))[0, :8]
    assert np.median(errors / wanted) == pytest.approx(0.95, abs=0.06)
    assert np.abs(errors / wanted - 1).max() < 0.2
    assert np.median(found.errors[0, :8] / wanted) < 0.85  # what it would be


def test_intervals_of_blends_hold_the_truth_more_often_than_those_of_the_matrix() -> None:
    pairs, lines, found = made(600, PLAIN, 8, **BLENDS | {"peak_snr": (40.0, 60.0)})
    true = pairs.truth.lines.groupby("file", sort=False)["velocity_km_s"].unique()
    velocity = np.sort(np.stack(true.to_numpy()), axis=1)
    order = np.argsort(found.nonlinear[:, [0, 2]], axis=1)
    away = np.take_along_axis(found.nonlinear[:, [0, 2]], order, 1) - velocity
    hold = []
    for errors in (found.errors, pair_errors(found, lines, np.ones(600))):
        own = np.take_along_axis(errors[:, [0, 2]], order, 1)
        hold.append((np.abs(away) < own)[own > 0].mean())
    # 68.3 % of 1200: two binomial standard deviations are 2.7 %.
    assert hold[1] == pytest.approx(0.683, abs=0.027)
    assert hold[1] - hold[0] > 0.015


def test_a_flux_on_its_bound_is_not_known() -> None:
    _, lines, found = made(60, PLAIN, 3, oiii_hb=(15.0, 30.0), **BLENDS)
    rows = np.flatnonzero(found.fixed[:, [4, 6]].any(axis=1) & ~found.fixed[:, :4].any(axis=1))
    assert rows.size >= 4
    lines, found = lines.take(torch.from_numpy(rows)), found.take(rows)
    errors = pair_errors(found, lines, np.ones(rows.size))
    sides, _ = likelihood_sides(found, lines, np.ones(rows.size))
    held = found.fixed[:, 4:8]
    np.testing.assert_allclose(errors[:, 4:8][held], sides[1][:, 4:][held], rtol=0.65)
    table = line_rows(found, lines, np.ones((rows.size, 3)), np.ones(rows.size))
    beta = table[(table["line"] == "H-beta") & (table["component"] == "1")]
    np.testing.assert_allclose(beta["flux_err"], errors[:, 4])
    # Hidden H-beta lets the other lines go farther than if it were known to be 0.
    assert (errors[:, :4] / found.errors[:, :4]).mean() > 1.05
    one, best = lines.take(slice(0, 1)), found.parameters[0]
    for side, to in ((0, -1), (1, 1)):
        expected = end(PLAIN, one, best, found.errors[0], 0, to)
        assert sides[side, 0, 0] == pytest.approx(expected, rel=0.03)


def test_the_interval_of_a_weak_flux_has_two_sides() -> None:
    _, lines, found = made(60, PLAIN, 3, oiii_hb=(15.0, 30.0), **BLENDS)
    beta = np.array([4, 6])
    weak = (found.parameters[:, beta] < 0.7 * found.errors[:, beta]) & ~found.fixed[:, beta]
    assert weak.sum() >= 5
    sides, _ = likelihood_sides(found, lines, np.ones(60))
    below, above = (side[:, beta][weak] for side in sides)
    np.testing.assert_allclose(below, above, rtol=0.5)


def test_errors_go_with_the_unit_of_the_flux() -> None:
    _, lines, found = made(4, PLAIN, 6, **BLENDS)
    other = Lines(lines.wavelength, 50 * lines.flux, lines.weight / 2500, lines.instrument)
    again = fitted(PLAIN, solve(PLAIN, other, starts(PLAIN, other)))
    errors = pair_errors(found, lines, np.ones(4))
    factor = np.r_[np.ones(4), np.full(6, 50.0)]
    np.testing.assert_allclose(pair_errors(again, other, np.ones(4)), factor * errors, rtol=0.02)


def test_a_spectrum_does_not_depend_on_its_company() -> None:
    _, lines, found = made(60, layout_for((True, False), 2), 4, missing=0.2)
    together = pair_errors(found, lines, np.ones(len(lines)))
    some = np.array([7, 31])
    alone = pair_errors(found.take(some), lines.take(torch.from_numpy(some)), np.ones(2))
    np.testing.assert_allclose(alone, together[some], rtol=1e-6)
    none = pair_errors(found.take(some[:0]), lines.take(slice(0, 0)), np.ones(0))
    assert none.shape == (0, found.layout.parameters)
