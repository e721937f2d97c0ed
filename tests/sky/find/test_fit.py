"""Fitted paths on noise of known size: errors that hold, and those of King (1983)."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from warte.sky.find.fit import (
    MODEL_PX,
    Fit,
    MatchedFrames,
    basis,
    fit_path,
    fit_trail,
    is_glint,
    log_likelihood,
    motion_per_frame,
    smooth_snr,
    trail_noise,
)
from warte.sky.find.prepare import Window
from warte.sky.find.settle import UNKNOWN_PX

SIGMA = 1.2
WIDTH = SIGMA
MakeWindow = Callable[..., Window]


def put(window: Window, t: int, x: float, y: float, snr: float, trail: tuple[float, float]) -> None:
    """Add a point of this matched-filter SNR, spread evenly along its motion in a frame."""
    height, width = window.residual.shape[1:]
    light = np.zeros((height, width))
    steps = (np.arange(20) + 0.5) / 20 - 0.5
    for f in steps if any(trail) else [0.0]:
        rows = np.exp(-((np.arange(height) - y - f * trail[1]) ** 2) / (2 * WIDTH**2))
        columns = np.exp(-((np.arange(width) - x - f * trail[0]) ** 2) / (2 * WIDTH**2))
        light += np.outer(rows, columns)
    # the matched filter divides by the root of the sum of squares
    window.residual[t] += snr * light / np.sqrt((light**2).sum())


def fitted(
    make: MakeWindow,
    rng: np.random.Generator,
    *,
    frames: int,
    snr: float,
    velocity: tuple[float, float],
    trail: float = 0.0,
    kinds: tuple[int, ...] = (1,),
    first: int = 0,
) -> tuple[Fit, np.ndarray]:
    """A fit that starts half a pixel off, and the true path (n, 2)."""
    window = make(frames, (44, 64), rng, psf_sigma_px=SIGMA, first=first)
    t = np.arange(frames)
    start = np.array([32.0, 22.0]) + rng.uniform(-0.5, 0.5, 2)
    path = start + np.outer(t - (frames - 1) / 2, velocity)
    for k in t:
        put(window, k, *path[k], snr, (trail * velocity[0], trail * velocity[1]))
    guess = path + rng.normal(0, 0.3, 2)
    return fit_path(MatchedFrames(window), t + first, guess, trail, kinds), path


def test_errors_hold(noise_window: MakeWindow) -> None:
    rng = np.random.default_rng(0)
    inside, errors = [], []
    for _ in range(160):
        fit, path = fitted(noise_window, rng, frames=8, snr=5.0, velocity=(1.5, 0.7))
        off = np.array([fit.x - path[:, 0], fit.y - path[:, 1]])[:, 4]
        error = np.array([fit.x_err, fit.y_err])[:, 4]
        inside += list(np.abs(off) < error)
        errors.append(off)
    # the middle of a straight path of n frames is known root n better than one position
    expected = np.sqrt(2) * WIDTH / 5.0 / np.sqrt(8)
    assert np.std(errors) == pytest.approx(expected, rel=0.15)
    assert 0.60 < np.mean(inside) < 0.76


def test_one_position_is_as_good_as_king_says(noise_window: MakeWindow) -> None:
    rng = np.random.default_rng(1)
    off, told = [], []
    for _ in range(100):
        fit, path = fitted(noise_window, rng, frames=2, snr=10.0, velocity=(2.0, 0.0))
        off += [*(fit.x - path[:, 0]), *(fit.y - path[:, 1])]
        told += [*fit.x_err, *fit.y_err]
    king = np.sqrt(2 * WIDTH**2 / 10.0**2 + UNKNOWN_PX**2 + MODEL_PX**2)
    assert np.median(told) == pytest.approx(king, rel=0.1)
    assert np.std(off) == pytest.approx(king, rel=0.15)


def test_snr_and_flux_are_those_put_in(noise_window: MakeWindow) -> None:
    rng = np.random.default_rng(2)
    fit, _ = fitted(noise_window, rng, frames=60, snr=6.0, velocity=(0.4, -0.3), first=100)
    assert (fit.frame == np.arange(100, 160)).all()
    assert fit.snr.mean() == pytest.approx(6.0, abs=3 / np.sqrt(60))
    assert fit.snr.std() == pytest.approx(1.0, abs=0.3)
    assert fit.score == pytest.approx(6.0 * np.sqrt(60), rel=0.07)
    # a Gaussian point whose matched filter has noise 1 holds 2 sqrt(pi) sigma grey levels
    np.testing.assert_allclose(fit.flux_err, 2 * np.sqrt(np.pi) * WIDTH, rtol=1e-6)
    np.testing.assert_allclose(fit.flux / fit.flux_err, fit.snr)


def test_a_trail_is_measured_as_one(noise_window: MakeWindow) -> None:
    rng = np.random.default_rng(3)
    snrs, across, along, told = [], [], [], []
    for _ in range(40):
        fit, path = fitted(noise_window, rng, frames=6, snr=8.0, velocity=(9.0, 0.0), trail=1.0)
        snrs.append(fit.snr.mean())
        along.append((fit.x - path[:, 0])[3])
        across.append((fit.y - path[:, 1])[3])
        told.append([fit.x_err[3], fit.y_err[3]])
    assert np.mean(snrs) == pytest.approx(8.0, rel=0.05)
    assert np.std(across) == pytest.approx(np.median(told, axis=0)[1], rel=0.35)
    assert np.std(along) == pytest.approx(np.median(told, axis=0)[0], rel=0.4)
    assert np.median(told, axis=0)[0] > 1.3 * np.median(told, axis=0)[1]


def test_the_simplest_basis_that_fits_is_chosen(noise_window: MakeWindow) -> None:
    rng = np.random.default_rng(4)
    window = noise_window(60, (80, 120), rng, psf_sigma_px=SIGMA)
    t = np.arange(60)
    curved = np.stack([10 + 1.6 * t, 15 + 0.015 * t**2], 1)
    for k in t:
        put(window, k, *curved[k], 8.0, (0.0, 0.0))
    guess = np.stack([curved[:, 0], np.linspace(15, 15 + 0.015 * 59**2, 60)], 1)
    guess[:, 1] += 6 * ((2 * t / 59 - 1) ** 2 - 1)  # a person's guess: a parabola, too flat
    fit = fit_path(MatchedFrames(window), t, guess, 0.0, (1, 2, 3, 5, 8, 12))
    off = np.hypot(fit.x - curved[:, 0], fit.y - curved[:, 1])
    assert len(fit.frame) == 60 and off.max() < 0.5
    straight, path = fitted(
        noise_window, rng, frames=40, snr=8.0, velocity=(1.0, 0.5), kinds=(1, 2)
    )
    bend = np.abs(np.diff(straight.x, 2)).max() + np.abs(np.diff(straight.y, 2)).max()
    assert bend < 1e-3
    assert np.hypot(straight.x - path[:, 0], straight.y - path[:, 1]).max() < 0.3


def test_frames_outside_the_picture_are_left_out(noise_window: MakeWindow) -> None:
    rng = np.random.default_rng(5)
    window = noise_window(40, (44, 64), rng, psf_sigma_px=SIGMA)
    t = np.arange(40)
    path = np.stack([-20 + 2.5 * t, np.full(40, 20.0)], 1)
    for k in t:
        put(window, k, *path[k], 10.0, (0.0, 0.0))
    fit = fit_path(MatchedFrames(window), t, path, 0.0, (1,))
    assert (fit.frame >= 8).all() and (fit.frame <= 33).all() and len(fit.frame) > 22
    assert np.abs(fit.x - path[fit.frame, 0]).max() < 0.4


def test_one_frame(noise_window: MakeWindow) -> None:
    window = noise_window(3, (44, 64), np.random.default_rng(6), psf_sigma_px=SIGMA)
    put(window, 1, 30.0, 20.0, 30.0, (0.0, 0.0))
    fit = fit_path(MatchedFrames(window), np.array([1]), np.array([[30.4, 19.7]]), 1.0, (1, 2))
    assert fit.frame.tolist() == [1]
    assert np.hypot(fit.x - 30.0, fit.y - 20.0)[0] < 0.2
    assert fit.snr[0] == pytest.approx(30, abs=4)


def test_the_noise_of_a_trail_is_that_of_smoothed_noise() -> None:
    rng = np.random.default_rng(7)
    field = rng.standard_normal((400, 400))
    spectrum = np.exp(-2 * (np.pi * WIDTH) ** 2 * np.fft.fftfreq(400) ** 2)
    smooth = np.fft.ifft2(np.fft.fft2(field) * np.outer(spectrum, spectrum)).real
    smooth /= smooth.std()
    for length in (3, 8, 15):
        # points half a pixel apart would need interpolation: whole pixels are near enough
        mean = np.mean([smooth[:, k : 400 - length + k] for k in range(length)], axis=0)
        told = trail_noise(np.array([float(length)]), WIDTH)[0]
        assert told == pytest.approx(mean.std(), rel=0.08)


def test_bases_hold_straight_lines() -> None:
    frames = np.arange(10, 50)
    for kind in (1, 2, 3, 5, 8, 12):
        design = basis(frames, kind)
        coef = np.linalg.lstsq(design, 3.0 + 0.2 * frames, rcond=None)[0]
        np.testing.assert_allclose(design @ coef, 3.0 + 0.2 * frames, atol=1e-6)
        assert design.shape == (40, kind + 1 if kind <= 3 else kind)


def test_steady_light_is_told_from_blinking() -> None:
    rng = np.random.default_rng(8)
    steady = smooth_snr(4.0 + rng.standard_normal(400))
    assert steady.std() < 0.2
    blinking = np.where(np.arange(400) % 5 == 0, 30.0, 0.0)
    told = smooth_snr(blinking + rng.standard_normal(400))
    assert np.abs(told - blinking).mean() < 1.2 and (told >= 0).all()
    assert (smooth_snr(np.array([-2.0, -1.0, -3.0, -2.5])) == 0).all()


def test_likelihood_is_that_of_gaussian_brightness() -> None:
    """Against densities written out, at the variance that fits best; and its slope."""
    rng = np.random.default_rng(9)
    for mean, scatter in ((3.0, 1.0), (2.0, 4.0)):
        snr = mean + scatter * rng.standard_normal(80)
        variance = max(float(snr.var()), 1.0)
        of_it = -0.5 * ((snr - snr.mean()) ** 2 / variance + np.log(variance)).sum()
        assert log_likelihood(snr) == pytest.approx(of_it + 0.5 * (snr**2).sum())
        step = np.zeros(80)
        step[3] = 1e-4
        slope = (log_likelihood(snr + step) - log_likelihood(snr - step)) / 2e-4
        assert slope == pytest.approx(smooth_snr(snr)[3], abs=1e-4)
    noise = [log_likelihood(rng.standard_normal(100)) for _ in range(200)]
    assert np.mean(noise) < 1.5  # chance scatter is no evidence


def test_a_glint_beside_a_faint_path_does_not_bend_it(noise_window: MakeWindow) -> None:
    window = noise_window(100, (90, 140), np.random.default_rng(11), psf_sigma_px=SIGMA)
    frames = np.arange(100)
    x, y = 20 + 0.9 * frames, 30 + 0.3 * frames
    for t in frames:
        put(window, t, x[t], y[t], 1.0, (0.0, 0.0))
    put(window, 90, x[90] - 0.5, y[90] + 2.5, 25.0, (0.0, 0.0))
    fit = fit_path(MatchedFrames(window), frames, np.stack([x, y], 1), 0.0, (1,))
    assert np.hypot(fit.x - x, fit.y - y).max() < 1.2
    # flashes that come again are the mover's own
    flashes = np.where(np.arange(100) % 20 == 0, 30.0, 0.0)
    assert not is_glint(flashes).any()
    assert is_glint(np.where(np.arange(100) == 7, 30.0, 0.0)).sum() == 1
    assert not is_glint(np.zeros(0)).any()


def test_motion_per_frame() -> None:
    xy = np.array([[0.0, 0.0], [2.0, 1.0], [4.0, 2.0]])
    np.testing.assert_allclose(motion_per_frame(xy, np.arange(3)), [[2.0, 1.0]] * 3)
    np.testing.assert_allclose(motion_per_frame(xy[:1], np.arange(1)), [[0.0, 0.0]])


@pytest.mark.parametrize("trail", [0.0, 1.0])
def test_trails_are_told_from_points(noise_window: MakeWindow, trail: float) -> None:
    rng = np.random.default_rng(31)
    window = noise_window(12, (44, 80), rng, psf_sigma_px=SIGMA)
    t = np.arange(12)
    path = np.array([40.0, 22.0]) + np.outer(t - 5.5, (5.0, 0.0))
    for k in t:
        put(window, k, *path[k], 15.0, (trail * 5.0, 0.0))
    for guess in (0.0, 1.0):
        assert fit_trail(MatchedFrames(window), t, path, guess, (1,)).trail == trail


def test_errors_grow_with_the_tails_of_the_noise(noise_window: MakeWindow) -> None:
    window = noise_window(12, (44, 64), np.random.default_rng(32), psf_sigma_px=SIGMA)
    t = np.arange(12)
    path = np.array([32.0, 22.0]) + np.outer(t - 5.5, (1.5, 0.0))
    for k in t:
        put(window, k, *path[k], 20.0, (0.0, 0.0))
    calm, wild = (
        fit_path(MatchedFrames(one), t, path, 0.0, (1,))
        for one in (window, replace(window, tail=2.0))
    )
    np.testing.assert_allclose(wild.x_err, 2 * calm.x_err)
    np.testing.assert_allclose(wild.y_err, 2 * calm.y_err)
