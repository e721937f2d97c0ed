"""Settled motions against painted ones: how exact they are, and whether their errors hold."""

from collections.abc import Callable

import numpy as np
import pytest

from warte.sky.find.register import STILL, apply_motion, register
from warte.sky.find.settle import UNKNOWN_PX, _offsets, calm, settle

Painter = Callable[..., np.ndarray]


def field(count: int, rng: np.random.Generator, peak: float) -> np.ndarray:
    """Stars (n, 3: x, y, peak), at least 13 px apart."""
    stars: list[list[float]] = []
    while len(stars) < count:
        x, y = rng.uniform(-60, 60), rng.uniform(-40, 40)
        if all(np.hypot(x - a, y - b) > 13 for a, b, _ in stars):
            stars.append([x, y, peak * rng.uniform(0.7, 2)])
    return np.array(stars)


def deviations(motions: np.ndarray, shift: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Where motions take points (n, 2), less where they went, (T, n, 2), each point's mean off."""
    off = apply_motion(motions[:, None], points) - points - shift[:, None]
    return np.asarray(off - off.mean(0))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_steady_mount_is_known_to_hundredths_of_a_pixel(paint: Painter, seed: int) -> None:
    rng = np.random.default_rng(seed)
    t = np.arange(60)
    shift = np.outer(t, [0.05, -0.03])
    frames = paint(field(24, rng, 5.0), shift, np.ones(60, complex), rng)
    motions, agreed, stars = register(frames)
    settled = settle(frames - 20, motions, agreed, stars)
    middle = np.zeros((1, 2))
    coarse, fine = deviations(motions, shift, middle), deviations(settled.motions, shift, middle)
    assert fine.std() < 0.02
    assert fine.std() < 0.7 * coarse.std()
    assert 0.2 < fine.std() / settled.error_px.mean() < 2.0


@pytest.mark.parametrize("seed", [3, 4])
def test_a_shaking_camera_keeps_its_shakes(paint: Painter, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shift = rng.normal(0, 0.12, (40, 2))
    frames = paint(field(24, rng, 30.0), shift, np.ones(40, complex), rng)
    motions, agreed, stars = register(frames)
    settled = settle(frames - 20, motions, agreed, stars)
    off = deviations(settled.motions, shift, np.zeros((1, 2)))
    assert off.std() < 0.035
    assert 0.5 < off.std() / settled.error_px.mean() < 2.0


def test_errors_grow_away_from_the_stars(paint: Painter) -> None:
    rng = np.random.default_rng(5)
    frames = paint(field(20, rng, 20.0), np.zeros((30, 2)), np.ones(30, complex), rng)
    motions, agreed, stars = register(frames)
    settled = settle(frames - 20, motions, agreed, stars)
    near, far = settled.error_at(np.array([3, 3]), np.array([[0.0, 0.0], [200.0, 0.0]]))
    assert near == pytest.approx(settled.error_px[3])
    assert far == pytest.approx(near * np.hypot(1, 200 / settled.spread_px))


def test_without_stars_nothing_changes() -> None:
    motions = np.tile(STILL, (6, 1))
    motions[:, 2] = np.arange(6)
    settled = settle(np.zeros((6, 60, 80), np.float32), motions, np.zeros(6), np.zeros((0, 2)))
    np.testing.assert_array_equal(settled.motions, motions)
    assert (settled.error_px == UNKNOWN_PX).all()


def test_two_stars_alone_are_followed_calmly(paint: Painter) -> None:
    rng = np.random.default_rng(10)
    shift = np.outer(np.arange(40), [0.05, 0.02])
    pair = np.array([[-30.0, 10.0, 25.0], [25.0, -15.0, 25.0]])
    motions, agreed, stars = register(paint(pair, shift, np.ones(40, complex), rng))
    settled = settle(np.zeros((40, 120, 160), np.float32), motions, agreed, stars)
    off = deviations(settled.motions, shift, np.zeros((1, 2)))
    assert off.std() < 0.5 * deviations(motions, shift, np.zeros((1, 2))).std()
    assert off.std() < 3 * settled.error_px.mean()


def test_dark_frames_keep_the_motion_they_came_with(paint: Painter) -> None:
    rng = np.random.default_rng(6)
    frames = paint(field(20, rng, 30.0), np.zeros((20, 2)), np.ones(20, complex), rng)
    motions, agreed, stars = register(frames)
    frames[8:11] = 20.0
    settled = settle(frames - 20, motions, agreed, stars)
    assert np.isfinite(settled.motions).all()
    assert np.abs(settled.motions[:, 2:] - motions[:, 2:]).max() < 0.1


def test_a_star_that_left_its_patch_says_nothing() -> None:
    # the place of the second star runs away from its patch, and its weight there is nought
    patches = np.ones((3, 2, 11, 11), np.float32)
    expected = np.array([[[5.0, 5.0], [5.0, 60.0]]] * 3)
    off, variance = _offsets(patches, expected, np.full(3, 0.1))
    assert np.isfinite(off).all()
    assert (off[:, 1] == 0).all() and np.isinf(variance[:, 1]).all()
    assert np.isfinite(variance[:, 0]).all()


@pytest.mark.parametrize("seed", [8, 9])
def test_motions_that_are_far_off_stay_numbers(paint: Painter, seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames = paint(field(20, rng, 30.0), np.zeros((20, 2)), np.ones(20, complex), rng)
    motions, agreed, stars = register(frames)
    motions[5, 2] += 40.0
    motions[6, 0] = 3.0
    settled = settle(frames - 20, motions, agreed, stars)
    assert np.isfinite(settled.motions).all() and np.isfinite(settled.error_px).all()
    steady = np.delete(settled.motions, [5, 6], axis=0)
    assert np.abs(steady[:, 2:]).max() < 0.1


def test_calm_tells_noise_from_motion() -> None:
    rng = np.random.default_rng(7)
    smooth = np.tile(STILL, (80, 1))
    smooth[:, 2] = np.linspace(0, 3, 80)
    known = np.ones(80, bool)
    noise = rng.normal(0, 0.03, (80, 4)) * [0, 0, 1, 1]
    halves = rng.normal(0, 0.06, (80, 2))
    calmed, error = calm(smooth + noise, known, halves)
    assert np.abs(calmed - smooth).max() < 0.03
    assert error.mean() < 0.01
    # the same scatter, on which both halves of the stars agree, is the camera's
    kept, error = calm(smooth + noise, known, halves / 30)
    assert np.abs(kept - smooth - noise).max() < 0.005
    assert error.mean() < 0.005
    # where nothing tells, a quiet mount is taken to be calm
    alone, error = calm(smooth + noise, known, halves[:0])
    assert np.abs(alone - smooth).max() < 0.03 and error.mean() < 0.01
    # a leap is no noise
    leap = smooth.copy()
    leap[40:, 3] += 2.0
    np.testing.assert_array_equal(calm(leap, known, halves)[0], leap)
