"""Evidence against a numerical integral; rules that forbid a pair; order of components."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from warte.core.errors import SettingsError
from warte.spectra.fit.calibrate import galaxies
from warte.spectra.fit.choose import (
    FitSettings,
    broad_is_sound,
    compare,
    log_bayes_factor,
    pair_faults,
)
from warte.spectra.fit.fitted import Fitted, fitted, flux_places, fluxes, significance
from warte.spectra.fit.layout import Layout, blue_layout, layout_for
from warte.spectra.fit.solve import Lines, Solution
from warte.spectra.lines import BLUE_GROUPS, BLUE_WINDOW, H_BETA
from warte.spectra.simulate import simulate_pairs

PAIR = blue_layout(2)  # v1 s1 v2 s2, H-beta and [O III] of 1, of 2, two of the continuum


def solution(layout: Layout, values: list[float], errors: list[float]) -> Solution:
    """One fit with independent errors; error 0 means fixed."""
    vector = torch.tensor([values], dtype=torch.float64)
    error = torch.tensor([errors], dtype=torch.float64)
    split = layout.nonlinear
    return Solution(
        nonlinear=vector[:, :split],
        linear=vector[:, split:],
        covariance=torch.diag_embed(error**2),
        chi2=torch.tensor([270.0], dtype=torch.float64),
        dof=torch.tensor([270.0], dtype=torch.float64),
        iterations=torch.tensor([3]),
        converged=torch.tensor([True]),
        at_bound=error[:, :split] == 0,
        fixed=error == 0,
        level=torch.ones(1, 1, dtype=torch.float64),
    )


INSTRUMENT = np.array([65.0])
GOOD = [-100.0, 80.0, 150.0, 90.0, 10.0, 50.0, 5.0, 20.0, 3.0, 0.1]
ERRORS = [5.0, 5.0, 10.0, 10.0, 2.0, 3.0, 2.0, 3.0, 0.1, 0.1]


def pair(changes: dict[int, float] | None = None, errors: dict[int, float] | None = None) -> Fitted:
    values = [(changes or {}).get(at, value) for at, value in enumerate(GOOD)]
    stated = [(errors or {}).get(at, value) for at, value in enumerate(ERRORS)]
    return fitted(PAIR, solution(PAIR, values, stated))


@pytest.mark.parametrize("gain", [0.5, 8.0, 30.0, 200.0])
@pytest.mark.parametrize("extra", [3, 4, 8])
def test_evidence_is_the_integral_over_the_scale_of_the_prior(gain: float, extra: int) -> None:
    # Liang et al. 2008: for given g the Bayes factor of a linear model with known variance is
    # (1 + g)^(-k/2) exp(gain / 2 * g / (1 + g)); the hyper-g prior with a = 4 is (1 + g)^-2.
    # The exponent is taken relative to its limit, so that nothing overflows.
    def integrand(shrink: float) -> float:  # g / (1 + g), in which the prior is uniform
        return (1 - shrink) ** (extra / 2) * np.exp(gain / 2 * (shrink - 1))

    expected = np.log(quad(integrand, 0, 1, epsabs=0, epsrel=1e-10)[0]) + gain / 2
    assert log_bayes_factor(np.array([gain]), extra)[0] == pytest.approx(expected, rel=1e-6)


def test_no_gain_speaks_for_the_smaller_model_and_little_for_larger_ones() -> None:
    found = log_bayes_factor(np.array([-3.0, 0.0, 5.0, 10.0, 20.0]), 4)
    assert found[0] == found[1] == pytest.approx(np.log(1 / 3), abs=1e-5)
    assert np.all(np.diff(found[1:]) > 0)
    assert np.isnan(log_bayes_factor(np.array([np.nan]), 4)[0])


def test_component_one_is_the_brighter_in_oiii_and_all_its_numbers_move_along() -> None:
    values = [-100.0, 80.0, 150.0, 90.0, 70.0, 20.0, 5.0, 50.0, 3.0, 0.1]  # H-beta the other way
    base = solution(PAIR, values, ERRORS)
    mixing = torch.linspace(-0.2, 0.3, 100, dtype=torch.float64).reshape(10, 10)
    covariance = base.covariance[0] + mixing + mixing.T
    whole = Solution(**{**vars(base), "covariance": covariance[None]})
    found = fitted(PAIR, whole)
    order = [2, 3, 0, 1, 6, 7, 4, 5, 8, 9]
    np.testing.assert_array_equal(found.parameters[0], np.array(values)[order])
    np.testing.assert_array_equal(found.covariance[0], covariance.numpy()[np.ix_(order, order)])
    # Without flux in [O III] the total counts.
    faint = [*values[:5], 0.0, 90.0, 0.0, 3.0, 0.1]
    assert fluxes(fitted(PAIR, solution(PAIR, faint, ERRORS)), 0)[0, 0] == 90.0


def test_places_of_fluxes_are_those_of_the_layout() -> None:
    layout = layout_for((True, True), 2, broad=True)
    places = [flux_places(layout, part) for part in range(3)]
    assert [place.stop - place.start for place in places] == [6, 6, 2]
    assert places[0].start == layout.nonlinear
    assert places[2].stop == layout.nonlinear + layout.fluxes


@pytest.mark.parametrize(
    ("changes", "errors", "fault"),
    [
        ({}, {}, ""),
        ({1: 10.0}, {1: 0.0}, "pair on a bound"),
        ({2: 1000.0}, {2: 0.0}, "pair on a bound"),
        ({3: 1200.0}, {3: 0.0}, "pair on a bound"),
        ({6: 0.0, 7: 0.0}, {6: 0.0, 7: 0.0}, "second component weak"),
        ({6: 0.0}, {6: 0.0}, ""),  # no H-beta in component 2
        ({6: 4.0, 7: 8.0}, {}, "second component weak"),  # 2 and 2.7 sigma
        ({6: 50.0, 4: 0.5, 5: 60.0, 7: 1.0}, {}, "second component weak"),  # no line is double
        ({2: -40.0, 3: 85.0}, {}, "components merged"),  # within the instrument's width
        ({2: -30.0, 3: 85.0}, {}, ""),
        ({2: 100.0}, {2: 210.0, 3: 30.0}, "components merged"),  # within the errors
        ({2: -96.0, 3: 240.0}, {}, ""),  # core and wing
        ({0: float("nan")}, {0: float("nan")}, "second fit failed"),
    ],
)
def test_rules_for_a_pair(changes: dict[int, float], errors: dict[int, float], fault: str) -> None:
    assert pair_faults(pair(changes, errors), INSTRUMENT, np.ones(1))[0] == fault


def test_combined_error_of_a_difference_counts_the_covariance() -> None:
    found = pair({2: 0.0, 3: 85.0}, {0: 80.0, 2: 80.0})  # 100 km/s apart, 113 together
    assert pair_faults(found, INSTRUMENT, np.ones(1))[0] == "components merged"
    found.covariance[0, 0, 2] = found.covariance[0, 2, 0] = 3200.0  # together 80
    assert pair_faults(found, INSTRUMENT, np.ones(1))[0] == ""
    assert pair_faults(found, INSTRUMENT, np.array([2.0]))[0] == "components merged"
    assert pair_faults(found, 2 * INSTRUMENT, np.ones(1))[0] == "components merged"


def test_significance_alone_ignores_what_blending_does_to_the_error() -> None:
    found = pair()
    assert significance(found, 1)[0] == pytest.approx(20 / 3)
    # Two fluxes known only in sum: correlation r widens each by 1 / sqrt(1 - r^2).
    r = -0.98
    found.covariance[0, 5, 7] = found.covariance[0, 7, 5] = r * 9.0
    assert significance(found, 1)[0] == pytest.approx(20 / 3)
    assert significance(found, 1, alone=True)[0] == pytest.approx(20 / 3 / np.sqrt(1 - r**2))


@pytest.mark.parametrize(
    ("width", "flux", "held", "sound"),
    [(900.0, 60.0, False, True), (150.0, 60.0, False, False), (900.0, 40.0, False, False),
     (900.0, 60.0, True, False)],
)  # fmt: skip
def test_rules_for_a_broad_component(width: float, flux: float, held: bool, sound: bool) -> None:
    layout = Layout((BLUE_WINDOW,), BLUE_GROUPS, 1, (H_BETA,))
    values = [0.0, 100.0, 50.0, width, 20.0, 90.0, flux, 3.0, 0.1]
    errors = [2.0, 2.0, 50.0, 0.0 if held else 50.0, 2.0, 2.0, 10.0, 0.1, 0.1]
    found = fitted(layout, solution(layout, values, errors))
    assert broad_is_sound(found, np.ones(1))[0] == sound
    assert not broad_is_sound(found, np.full(1, 4.0))[0]


@pytest.mark.parametrize(
    "changes",
    [{"engine": "fast"}, {"components": 3}, {"broad": "yes"}, {"order": 6},
     {"false_positives": 0.5}],
)  # fmt: skip
def test_settings_out_of_range_are_named(changes: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=next(iter(changes)).replace("_", "-")):
        FitSettings(**changes)  # type: ignore[arg-type]


def made(count: int, *, correlation: float) -> Lines:
    """One line and a continuum with noise of which each pixel shares a part with the next."""
    rng = np.random.default_rng(12)
    pairs = simulate_pairs(count, rng, components=1, peak_snr=(10.0, 30.0))
    arrays = (pairs.wavelength, pairs.flux, pairs.ivar, np.full((count, 3), 65.0))
    lines = Lines(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))
    white = torch.from_numpy(rng.standard_normal(lines.flux.shape))
    mixed = correlation * (torch.roll(white, 1, 1) + torch.roll(white, -1, 1))
    return replace(lines, flux=lines.flux + 3 * (white + mixed), weight=lines.weight / 10)


def test_correlated_noise_does_not_pass_for_a_second_component() -> None:
    settings = FitSettings(broad=False)
    rate = []
    for correlation in (0.0, 0.5):
        compared = compare(made(300, correlation=correlation), (True, False), settings)
        rate.append((compared.log_ratio > 3).mean())
        gain = compared.fits[1, False].chi2 - compared.fits[2, False].chi2
        if correlation:
            assert (log_bayes_factor(gain, 4) > 3).mean() > 0.15  # what it would be
    assert rate[0] < 0.02
    assert rate[1] < 0.05


def test_a_fit_that_was_left_out_counts_as_failed() -> None:
    found = pair().spread(np.array([2]), 4)
    assert found.converged.tolist() == [False, False, True, False]
    assert np.isnan(found.chi2[[0, 1, 3]]).all()
    np.testing.assert_array_equal(found.take(np.array([2])).parameters, pair().parameters)
    faults = pair_faults(found, np.full(4, 65.0), np.ones(4))
    assert faults.tolist() == ["second fit failed", "second fit failed", "", "second fit failed"]


def test_the_broad_component_is_tried_with_two_only_where_it_helps_one() -> None:
    lines = next(galaxies((True, True), 1, 9, np.random.default_rng(9))).lines.take(slice(0, 6))
    at = (lines.wavelength[:3] / 6564.61 - 1) * 299792.458
    noise = lines.weight[:3].amax(1, keepdim=True).rsqrt()
    lines.flux[:3] += 30 * noise * torch.exp(-0.5 * (at / 1500) ** 2)
    compared = compare(lines, (True, True), FitSettings())
    assert compared.broad.tolist() == [True] * 3 + [False] * 3
    assert np.isfinite(compared.fits[2, True].chi2[:3]).all()
    assert np.isnan(compared.fits[2, True].chi2[3:]).all()
