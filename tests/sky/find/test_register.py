"""The stars' motion against motions that were painted, in complex numbers, by other code."""

from collections.abc import Callable

import numpy as np
import pytest

from warte.sky.find.register import (
    STILL,
    affine_matrix,
    apply_motion,
    centroids,
    find_stars,
    fit_motion,
    median_of,
    register,
)

Painter = Callable[..., np.ndarray]
SHAPE = (120, 160)


def star_field(count: int, rng: np.random.Generator, peak: float = 40.0) -> np.ndarray:
    """Stars (n, 3: x, y, peak) at least 14 px apart and well inside the picture."""
    stars: list[list[float]] = []
    while len(stars) < count:
        x, y = rng.uniform(-55, 55), rng.uniform(-36, 36)
        if all(np.hypot(x - a, y - b) > 14 for a, b, _ in stars):
            stars.append([x, y, peak * rng.uniform(0.5, 4)])
    return np.array(stars).reshape(-1, 3)


def corner_error(motions: np.ndarray, shift: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Largest distance of the four corners from where they should be, (T,) pixels.

    Motions are against the middle frame.
    """
    corners = np.array([x + 1j * y for x in (-79.5, 79.5) for y in (-59.5, 59.5)])
    points = np.stack([corners.real, corners.imag], 1)
    ref = len(shift) // 2
    z = shift[:, 0] + 1j * shift[:, 1]
    sky = (corners - z[ref]) / turn[ref]
    worst = []
    for t in range(len(shift)):
        moved = apply_motion(motions[t], points)
        worst.append(np.abs(moved[:, 0] + 1j * moved[:, 1] - (sky * turn[t] + z[t])).max())
    return np.array(worst)


@pytest.mark.parametrize(
    ("speed", "turn_rad", "growth"),
    [
        ((0.0, 0.0), 0.0, 0.0),
        ((0.3, -0.2), 0.0, 0.0),
        ((-0.1, 0.15), 1e-3, 0.0),
        ((0.0, 0.0), 0.0, 1e-3),
    ],
)
def test_shift_turn_and_growth(
    paint: Painter, speed: tuple[float, float], turn_rad: float, growth: float
) -> None:
    rng = np.random.default_rng(1)
    t = np.arange(20)
    shift = t[:, None] * np.array(speed)
    turn = (1 + growth * t) * np.exp(1j * turn_rad * t)
    frames = paint(star_field(25, rng), shift, turn, rng)
    motions, agreed, _ = register(frames)
    assert (agreed >= 15).all()
    assert corner_error(motions, shift, turn).max() < 0.05


def test_shaking_is_followed_frame_by_frame(paint: Painter) -> None:
    rng = np.random.default_rng(2)
    shift = rng.normal(0, 1.0, (20, 2))
    still = np.ones(20, complex)
    motions, _, _ = register(paint(star_field(30, rng, 150.0), shift, still, rng))
    true = shift - shift[10]
    assert np.abs(motions[:, 2:] - true).max() < 0.05


@pytest.mark.parametrize("jolt", [(20.0, 0.0), (-12.0, 16.0)])
def test_a_jolt_of_twenty_pixels(paint: Painter, jolt: tuple[float, float]) -> None:
    rng = np.random.default_rng(3)
    shift = np.zeros((16, 2))
    shift[11:] = jolt
    motions, agreed, _ = register(
        paint(star_field(25, rng, 80.0), shift, np.ones(16, complex), rng)
    )
    assert np.abs(motions[:, 2:] - shift).max() < 0.05
    assert (agreed >= 8).all()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_stars_tell_the_shift(paint: Painter, count: int) -> None:
    rng = np.random.default_rng(4)
    t = np.arange(16)
    shift = t[:, None] * np.array([0.2, 0.1])
    frames = paint(star_field(count, rng, 200.0), shift, np.ones(16, complex), rng)
    motions, agreed, _ = register(frames)
    assert (agreed == count).all()
    np.testing.assert_allclose(motions[:, 2:], shift - shift[8], atol=0.1)
    np.testing.assert_allclose(motions[:, :2], np.tile([1.0, 0.0], (16, 1)), atol=1e-3)


def test_no_star_is_no_motion(paint: Painter) -> None:
    frames = np.random.default_rng(5).normal(0, 1, (12, *SHAPE)).astype(np.float32)
    motions, agreed, _ = register(frames)
    np.testing.assert_array_equal(motions, np.tile(STILL, (12, 1)))
    assert (agreed == 0).all()


def test_constant_frames_are_no_motion() -> None:
    motions, agreed, _ = register(np.zeros((5, 60, 80), np.float32))
    np.testing.assert_array_equal(motions, np.tile(STILL, (5, 1)))
    assert (agreed == 0).all()


@pytest.mark.parametrize("count", [1, 2])
def test_shortest_recordings(paint: Painter, count: int) -> None:
    rng = np.random.default_rng(6)
    shift = np.arange(count)[:, None] * np.array([1.5, -0.5])
    frames = paint(star_field(20, rng, 150.0), shift, np.ones(count, complex), rng)
    motions, _, _ = register(frames)
    np.testing.assert_allclose(motions[:, 2:], shift - shift[count // 2], atol=0.06)


def test_stars_are_found_to_a_tenth_of_a_pixel(paint: Painter) -> None:
    rng = np.random.default_rng(7)
    stars = star_field(20, rng, 60.0)
    still = (np.zeros((1, 2)), np.ones(1, complex))
    found = find_stars(paint(stars, *still, rng)[0]) - np.array([79.5, 59.5])
    apart = np.hypot(*(found[:, None] - stars[None, :, :2]).transpose(2, 0, 1))
    assert len(found) == 20
    assert sorted(apart.argmin(1)) == list(range(20))
    assert np.median(apart.min(1)) < 0.1


def test_places_near_the_rim_have_no_centre() -> None:
    image = np.random.default_rng(8).normal(0, 1, SHAPE).astype(np.float32)
    places = np.array([[2.0, 60.0], [157.0, 60.0], [80.0, 3.0], [80.0, 118.0], [-50.0, 900.0]])
    assert not centroids(image, places)[1].any()


def test_wrong_pairs_do_not_pull_the_fit() -> None:
    rng = np.random.default_rng(9)
    p = rng.uniform(-60, 60, (40, 2))
    true = np.array([1.002, 0.003, 0.4, -0.7])
    q = apply_motion(true, p) + rng.normal(0, 0.02, (40, 2))
    q[:10] += rng.uniform(-4, 4, (10, 2))
    motion, agree = fit_motion(p, q)
    assert (np.abs(motion - true) < [4e-4, 4e-4, 0.02, 0.02]).all()
    assert 30 <= agree <= 34


def test_matrix_and_motion_are_one() -> None:
    motion = np.array([1.01, 0.02, 3.0, -5.0])
    pixel = np.array([31.0, 17.0])
    centre = np.array([(160 - 1) / 2, (120 - 1) / 2])
    expected = apply_motion(motion, pixel - centre) + centre
    np.testing.assert_allclose(affine_matrix(motion, SHAPE) @ [*pixel, 1], expected)


def test_two_points_that_run_are_not_taken_for_the_sky() -> None:
    """Two lights that race over an empty field are movers or noise; the camera stands still."""
    rng = np.random.default_rng(51)
    rows, columns = np.mgrid[:120, :160]
    frames = rng.normal(0, 1, (21, 120, 160)).astype(np.float32)
    for t, frame in enumerate(frames):
        for x, y in ((60.0, 50.0), (90.0, 70.0)):
            at = x + 2.0 * (t - 10)
            frame += 60 * np.exp(-((columns - at) ** 2 + (rows - y) ** 2) / (2 * 1.2**2))
    motions, agreed, _ = register(frames)
    assert np.median(agreed) < 3
    np.testing.assert_allclose(motions, np.tile(STILL, (21, 1)), atol=1e-9)


@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_median(count: int) -> None:
    frames = np.random.default_rng(11).normal(size=(count, 37, 20)).astype(np.float32)
    np.testing.assert_allclose(median_of(frames), np.median(frames, axis=0), atol=1e-6)
