"""What passes as a mover: enough light for the trials that were made, on a plausible path."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from warte.sky.find.accept import (
    INTERVALS,
    WHOLE,
    is_bright_mover,
    is_faint_mover,
    is_straight,
    moved,
    needed_score,
    robust_score,
)
from warte.sky.find.fit import Fit
from warte.sky.find.prepare import Window

MakeWindow = Callable[..., Window]


def fit_of(x: np.ndarray, y: np.ndarray, snr: np.ndarray | float) -> Fit:
    """A fit through these places, one a frame."""
    n = len(x)
    light = np.broadcast_to(np.asarray(snr, float), n)
    error = np.full(n, 0.1)
    score = float(light.sum() / np.sqrt(n))
    places = (x, y, error, error, x, y)
    return Fit(np.arange(n), *places, light, 10 * light, np.full(n, 10.0), score, 0.0)


def straight(n: int, speed: float, snr: np.ndarray | float) -> Fit:
    return fit_of(10 + speed * np.arange(n), np.full(n, 30.0), snr)


def faint(fit: Fit, window: Window) -> bool:
    """The decision where chance makes what white noise would."""
    return is_faint_mover(fit, window, robust_score(fit.snr), 0.02, INTERVALS)


def bright(fit: Fit, window: Window) -> bool:
    return is_bright_mover(fit, window, fit.score)


@pytest.fixture
def window(noise_window: MakeWindow) -> Window:
    return noise_window(40, (60, 80), np.random.default_rng(0))


def test_noise_passes_as_rarely_as_asked(window: Window) -> None:
    fit = straight(40, 1.5, 1.0)
    assert needed_score(moved(fit), window, 0.5, INTERVALS) < needed_score(
        moved(fit), window, 0.001, INTERVALS
    )
    assert needed_score(moved(straight(40, 0.2, 1.0)), window, 0.02, INTERVALS) < needed_score(
        moved(fit), window, 0.02, INTERVALS
    )
    # at p per trial and n trials noise makes n p: two thousand places, 0.02 tracks and one end
    # each would need 4.3 sigma, and there are more ends than one
    assert 4.3 < needed_score(moved(fit), window, 0.02, INTERVALS) < 7.5
    # a path with no ends to choose needs less
    assert (
        needed_score(moved(fit), window, 0.02, WHOLE)
        < needed_score(moved(fit), window, 0.02, INTERVALS) - 0.5
    )


def test_paths_of_all_lengths_together_make_the_false_tracks(window: Window) -> None:
    """The expected number of peaks (u^3 exp(-u^2 / 2), times the volume) over each step of length,
    at the score that this length needs, adds up to what was asked for."""
    ways = np.linspace(4 * window.psf_sigma_px, np.hypot(*window.noise.shape), 400)
    psf = window.psf_sigma_px
    total = 0.0
    for near, far in pairwise(ways):
        area = np.pi * (far**2 - near**2)
        volume = window.noise.size * area / (4 * psf**4) / 12 / (2 * np.pi) ** 2.5
        u = needed_score(float(np.sqrt(near * far)), window, 0.05, WHOLE)
        total += WHOLE * volume * u**3 * np.exp(-(u**2) / 2)
    share = (ways[-1] - ways[0]) / ways[-1]  # shorter ones do not count as movers
    assert total == pytest.approx(0.05 * share, rel=0.05)


def test_light_decides(window: Window) -> None:
    assert faint(straight(40, 1.5, 2.0), window)
    assert not faint(straight(40, 1.5, 0.4), window)
    assert bright(straight(20, 2.0, 12.0), window)
    assert not bright(straight(20, 2.0, 1.0), window)


def test_what_hardly_moves_is_a_star(window: Window) -> None:
    assert not faint(straight(40, 0.05, 5.0), window)
    assert not bright(straight(40, 0.05, 20.0), window)


def test_one_glint_is_no_track(window: Window) -> None:
    glint = np.zeros(40)
    glint[7] = 80.0
    assert robust_score(glint) == pytest.approx(4 / np.sqrt(40))
    assert not faint(straight(40, 1.5, glint), window)
    assert robust_score(np.full(16, 3.0)) == pytest.approx(12.0)


def test_paths_of_bodies_are_straight() -> None:
    t = np.arange(60.0)
    assert is_straight(fit_of(t, 0.5 * t + 0.001 * t**2, 5.0))
    assert not is_straight(fit_of(30 * np.cos(t / 10), 30 * np.sin(t / 10), 5.0))
    there_and_back = np.concatenate([t, 60 - 0.5 * t])
    assert not is_straight(fit_of(there_and_back, np.zeros(120), 5.0))
    assert not is_straight(fit_of(np.zeros(5), np.zeros(5), 5.0))


def test_too_short(window: Window) -> None:
    assert not faint(straight(7, 3.0, 9.0), window)
    assert not bright(straight(1, 3.0, 99.0), window)


def test_faint_paths_on_stars_or_along_the_rim_are_doubted(window: Window) -> None:
    fit = straight(40, 1.0, 3.0)
    assert faint(fit, window)
    stars = window.stars.copy()
    stars[14:17, :20] = 10.0  # the path's first cells
    assert not faint(fit, replace(window, stars=stars))
    rim = fit_of(10 + np.arange(40.0), np.full(40, 2.0), 3.0)
    assert not faint(rim, window)


def test_what_stands_on_the_sensor_while_stars_drift_is_no_mover(window: Window) -> None:
    fit = straight(40, 0.5, 10.0)
    assert bright(fit, window)
    still = replace(fit, x=np.full(40, 30.0))
    assert not bright(still, window)
    assert not faint(still, window)
