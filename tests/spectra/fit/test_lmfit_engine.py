"""The lmfit engine against the batched one, known truth, and bad input."""

import sys

import numpy as np
import pytest
import torch

from warte.core.errors import MissingExtraError
from warte.spectra.fit import lmfit_engine, profile, solve
from warte.spectra.fit.fitted import fitted
from warte.spectra.fit.layout import Layout, blue_layout, layout_for
from warte.spectra.fit.solve import Bounds, Lines

PAIR = blue_layout(2)
TRUTH = [-120.0, 90.0, 180.0, 130.0]
LINEAR = [30.0, 150.0, 12.0, 80.0, 6.0, 0.5]


def made(
    layout: Layout, nonlinear: list[float], linear: list[float], noise: float, count: int = 1
) -> Lines:
    """Spectra of one model with different noise and a tenth of the pixels missing."""
    rng = np.random.default_rng(8)
    grid = np.concatenate(
        [low * 10 ** np.arange(5e-5, np.log10(high / low), 1e-4) for low, high in layout.windows]
    )
    wavelength = torch.from_numpy(grid).expand(count, -1)
    instrument = torch.full((count, len(layout.lines)), 65.0, dtype=torch.float64)
    vectors = (
        torch.tensor([v], dtype=torch.float64).expand(count, -1) for v in (nonlinear, linear)
    )
    level = torch.full((count, len(layout.windows)), 6.0, dtype=torch.float64)
    flux = profile.model(layout, *vectors, wavelength, instrument, level)
    flux = flux + noise * torch.from_numpy(rng.standard_normal(flux.shape))
    weight = torch.from_numpy((rng.random(flux.shape) > 0.1) / max(noise, 1e-3) ** 2)
    return Lines(wavelength, torch.where(weight > 0, flux, 1e9), weight, instrument)


def near(count: int, *others: list[float]) -> torch.Tensor:
    first = [[-100.0, 100.0, 150.0, 100.0], *others]
    return torch.tensor(first, dtype=torch.float64).expand(count, -1, -1)


def test_noiseless_truth_comes_back() -> None:
    found = lmfit_engine.solve(PAIR, made(PAIR, TRUTH, LINEAR, 0.0), near(1))
    assert found.converged.all()
    assert found.nonlinear[0].tolist() == pytest.approx(TRUTH, rel=1e-4)
    assert found.linear[0].tolist() == pytest.approx(LINEAR, rel=1e-3)


def test_both_engines_find_the_same() -> None:
    lines = made(PAIR, TRUTH, LINEAR, 1.0, count=4)
    starts = near(4, [0.0, 60.0, 20.0, 200.0])
    solutions = (lmfit_engine.solve(PAIR, lines, starts), solve.solve(PAIR, lines, starts))
    one, other = (fitted(PAIR, solution) for solution in solutions)  # components in one order
    assert np.abs(one.chi2 - other.chi2).max() < 1e-3
    assert (one.dof == other.dof).all()
    assert (np.abs(one.parameters - other.parameters) / other.errors).max() < 0.1
    assert np.median(np.abs(one.errors / other.errors - 1)) < 0.01
    assert np.abs(one.errors / other.errors - 1).max() < 0.1


def test_all_kinds_of_parameters_agree() -> None:
    layout = layout_for((True, True), 1, broad=True, order=2)
    linear = [40.0, 90.0, 130.0, 60.0, 30.0, 25.0, 90.0, 300.0, 2.0, 6.0, 0.4, 0.1, 5.0, 0.2, -0.3]
    lines = made(layout, [20.0, 100.0, -150.0, 1500.0], linear, 0.5)
    starts = torch.tensor([[[0.0, 120.0, 0.0, 1200.0]]], dtype=torch.float64)
    one, other = lmfit_engine.solve(layout, lines, starts), solve.solve(layout, lines, starts)
    assert one.chi2.item() == pytest.approx(other.chi2.item(), abs=0.01)
    torch.testing.assert_close(one.level, other.level)
    errors = other.covariance[0].diagonal().sqrt()
    assert ((one.linear - other.linear)[0].abs() / errors[4:]).max() < 0.1


def test_a_parameter_on_its_bound_is_fixed_and_the_others_have_errors() -> None:
    linear = [0.0, 150.0, 0.0, 80.0, 6.0, 0.5]
    lines = made(PAIR, TRUTH, linear, 1.0)
    # Push H-beta of both components below zero.
    dip = (lines.wavelength - 4862.68).abs() < 4
    lines = Lines(lines.wavelength, lines.flux - 3.0 * dip, lines.weight, lines.instrument)
    bounds = Bounds(sigma=(10.0, 100.0))
    found = lmfit_engine.solve(PAIR, lines, near(1), bounds=bounds)
    assert (found.linear[0, [0, 2]] >= 0).all()
    assert found.linear[0, [0, 2]].max() < 0.1
    assert found.fixed[0].tolist() == [False, False, False, True, True, False, True, *[False] * 3]
    assert found.nonlinear[0, 3].item() == pytest.approx(100.0, abs=1e-3)
    variance = found.covariance[0].diagonal()
    assert (variance[found.fixed[0]] == 0).all()
    assert (variance[~found.fixed[0]] > 0).all()
    assert found.dof.item() == (lines.weight > 0).sum().item() - 7


def test_a_spectrum_without_pixels_is_lost_alone() -> None:
    lines = made(PAIR, TRUTH, LINEAR, 1.0, count=2)
    lines.weight[0] = 0
    found = lmfit_engine.solve(PAIR, lines, near(2))
    assert found.converged.tolist() == [False, True]
    assert found.chi2[0].isnan()
    assert found.nonlinear[0].isnan().all()
    assert found.nonlinear[1, 0].item() == pytest.approx(TRUTH[0], abs=30)


def test_lmfit_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmfit", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'warte\[spectra\]'"):
        lmfit_engine.solve(PAIR, made(PAIR, TRUTH, LINEAR, 1.0), near(1))
