"""Cells in units of their noise, and what must be gone from them."""

from collections.abc import Callable

import numpy as np
import pytest

from warte.sky.find.fit import MatchedFrames
from warte.sky.find.prepare import (
    cell_noise,
    heavy_tail,
    pixel_noise,
    prepare,
    psf_width,
    quantiles,
    red_noise,
    smooth_sky,
    to_cells,
    transparency,
)
from warte.sky.find.register import find_stars

Painter = Callable[..., np.ndarray]


def stars(rng: np.random.Generator, count: int = 30, low: float = 30.0) -> np.ndarray:
    """Stars (n, 3: x, y about the centre, peak), some beyond the rim."""
    return np.stack(
        [rng.uniform(-90, 90, count), rng.uniform(-70, 70, count), low * rng.uniform(1, 5, count)],
        1,
    )


def still(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((count, 2)), np.ones(count, complex)


def drift(count: int, speed: float) -> tuple[np.ndarray, np.ndarray]:
    return np.outer(np.arange(count), [speed, -0.4 * speed]), np.ones(count, complex)


def test_pure_noise_has_unit_cells() -> None:
    frames = np.random.default_rng(0).normal(40, 3, (60, 120, 160)).astype(np.float32)
    window = prepare(frames, 7, None)
    assert window.first == 7
    assert window.cells.std() == pytest.approx(1.0, abs=0.02)
    np.testing.assert_allclose(window.cells.std(axis=0).mean(), 1.0, atol=0.02)
    assert abs(window.cells.mean()) < 0.01
    assert np.abs(window.cells).max() < 6
    # the mean of 60 frames was taken off: one degree of freedom of 60
    expected = 3 * np.sqrt(1 - 1 / 60)
    assert window.noise.mean() == pytest.approx(expected, rel=0.05)
    assert window.residual.astype(np.float64).std() == pytest.approx(expected, rel=0.03)
    assert np.median(window.red) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("speed", [0.0, 0.15, 0.6])
def test_stars_leave_unit_cells(paint: Painter, speed: float) -> None:
    rng = np.random.default_rng(1)
    frames = paint(stars(rng), *drift(40, speed), rng)
    window = prepare(frames, 0, None)
    rim = int(np.ceil(40 * speed / window.cell)) + 4
    inner = window.cells[:, rim:-rim, rim:-rim]
    assert inner.std() == pytest.approx(1.0, abs=0.06)
    assert (np.abs(inner) > 5).mean() < 2e-4
    assert window.stars.max() > 30


def test_uneven_sky_is_gone() -> None:
    rng = np.random.default_rng(2)
    rows, columns = np.mgrid[:120, :160]
    glow = 50 + 0.3 * columns + 0.002 * (rows - 60.0) ** 2
    frames = (glow + rng.normal(0, 2, (20, 120, 160))).astype(np.float32)
    assert np.abs(smooth_sky(frames[0]) - glow)[20:-20, 20:-20].max() < 2
    window = prepare(frames, 0, None)
    assert np.abs(window.residual.astype(float).mean(axis=0)).max() < 3
    assert window.cells.std() == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("speed", [0.0, 0.5])
def test_hot_pixels_are_gone(paint: Painter, speed: float) -> None:
    rng = np.random.default_rng(3)
    frames = paint(stars(rng, 40, 60.0), *drift(40, speed), rng)
    y, x = rng.integers(10, 110, 40), rng.integers(10, 150, 40)
    frames[:, y, x] += 150
    window = prepare(frames, 0, None)
    np.testing.assert_allclose(window.motions[:, 2], speed * (np.arange(40) - 20), atol=0.08)
    # 150 grey levels of a noise of one are 20 sigma in a cell
    assert np.abs(window.residual[:, y, x].astype(float)).mean() < 2
    inner = window.cells[:, 10:-10, 10:-10]  # at the rim stars come in that the template lacks
    assert (np.abs(inner) > 6).mean() < 2e-4


@pytest.mark.parametrize("sigma", [0.7, 1.2, 2.0, 3.0])
def test_width_of_a_point(paint: Painter, sigma: float) -> None:
    rng = np.random.default_rng(4)
    field = stars(rng, 25, 60.0)
    window = prepare(paint(field, *still(16), rng, sigma=sigma), 0, None)
    assert window.psf_sigma_px == pytest.approx(sigma, rel=0.1)
    assert window.cell == np.clip(round(1.6 * window.psf_sigma_px), 2, 8)


def test_width_without_stars() -> None:
    noise = np.random.default_rng(5).normal(0, 1, (120, 160)).astype(np.float32)
    assert psf_width(noise, find_stars(noise)) == 1.2


def test_a_mover_stays(paint: Painter) -> None:
    """Of a point of known SNR the cells hold as much as a filter that fits loses nothing."""
    rng = np.random.default_rng(6)
    moving = stars(rng, 30, 60.0)
    frames = paint(moving, *still(40), rng)
    t = np.arange(40)
    for k in t:
        # a Gaussian of peak p and width s has matched-filter SNR p sqrt(pi) s
        bell = np.exp(-((np.arange(160) - 20.3 - 3 * k) ** 2) / (2 * 1.2**2))
        frames[k] += (
            10
            / (np.sqrt(np.pi) * 1.2)
            * np.outer(np.exp(-((np.arange(120) - 60.2) ** 2) / (2 * 1.2**2)), bell)
        )
    window = prepare(frames, 0, None)
    row = round((60.2 - 0.5) / window.cell)
    peaks = [
        window.cells[k, row - 1 : row + 2, round(10 + 1.5 * k) - 2 : round(10 + 1.5 * k) + 3].max()
        for k in t
    ]
    # a mover on the middle of a cell and one on its corner differ
    assert 7.5 < np.median(peaks) < 10.5


def test_clouds_dim_stars_without_traces(paint: Painter) -> None:
    rng = np.random.default_rng(7)
    frames = paint(stars(rng, 30, 60.0), *still(40), rng, noise=0.0)
    clear = np.where(np.arange(40) % 10 < 7, 1.0, 0.4)[:, None, None]
    frames = (20 + clear * (frames - 20) + rng.normal(0, 1, frames.shape)).astype(np.float32)
    window = prepare(frames, 0, None)
    assert (np.abs(window.cells) > 6).mean() < 5e-4


def test_transparency_is_a_ratio() -> None:
    template = np.zeros((20, 20), np.float32)
    template[5, 5], template[9, 14] = 50, 80
    assert transparency(0.3 * template, template, template > 10) == pytest.approx(0.3)
    assert transparency(template, template, template > 1e9) == 1.0


@pytest.mark.parametrize("count", [1, 2, 3, 16])
def test_short_recordings(paint: Painter, count: int) -> None:
    rng = np.random.default_rng(8)
    window = prepare(paint(stars(rng), *still(count), rng), 0, 1.0)
    assert np.isfinite(window.cells).all()
    assert len(window.cells) == count
    assert np.abs(window.cells).max() < 6


def test_rounding_bounds_the_noise_from_below() -> None:
    frames = np.full((20, 60, 80), 12.0, np.float32)
    frames[:, 30, 40] += np.arange(20) % 2
    window = prepare(frames, 0, 1.0)
    assert (window.noise >= 1 / np.sqrt(12)).all()
    assert np.isfinite(window.cells).all()
    assert (np.abs(window.cells) > 3).mean() < 0.01


@pytest.mark.parametrize("count", [2, 3, 5, 9, 40])
def test_noise_has_no_bias_however_short(count: int) -> None:
    frames = np.random.default_rng(9).normal(0, 3, (count, 120, 160)).astype(np.float32)
    assert pixel_noise(frames, None).mean() == pytest.approx(3.0, rel=0.06)
    assert cell_noise(frames, None, 1e-6).mean() == pytest.approx(3.0, rel=0.07)


def test_quantiles_of_many_are_those_of_numpy() -> None:
    values = np.random.default_rng(10).normal(size=(31, 50))
    for got, share in zip(quantiles(values, (0.1, 0.683, 0.9)), (0.1, 0.683, 0.9), strict=True):
        expected = np.quantile(values, share, axis=0, method="median_unbiased")
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_noise_that_stays_is_told() -> None:
    rng = np.random.default_rng(12)
    white = rng.normal(0, 1, (96, 40, 50)).astype(np.float32)
    dark = np.zeros((40, 50), np.float32)
    assert np.median(red_noise(white, dark)) == pytest.approx(1.0, abs=0.05)
    frozen = np.repeat(rng.normal(0, 1, (12, 40, 50)), 8, axis=0).astype(np.float32)
    # eight equal frames: their mean scatters root eight as much as it should
    assert np.median(red_noise(frozen, dark)) == pytest.approx(np.sqrt(8), rel=0.1)
    assert (red_noise(white[:16], dark) == 1).all()


def test_tails_are_read_on_the_dark_side_alone() -> None:
    rng = np.random.default_rng(41)
    cells = rng.standard_normal((16, 60, 80)).astype(np.float32)
    assert heavy_tail(cells) == pytest.approx(1.0, abs=0.1)
    movers = cells.copy()
    movers[:, 20:30, 20:30] = 50.0
    assert heavy_tail(movers) == pytest.approx(1.0, abs=0.1)
    assert heavy_tail(rng.standard_t(3, cells.shape).astype(np.float32)) > 1.8
    assert heavy_tail(np.zeros_like(cells)) == 1.0


@pytest.mark.parametrize("drift", [0.0, 0.1])
def test_sums_along_slow_paths_scatter_as_white_noise(paint: Painter, drift: float) -> None:
    # the noise of the template stands still: on a slow path it comes again frame after frame
    rng = np.random.default_rng(3)
    stars = np.array([[x, y, 30.0] for x in (-60, -20, 20, 60) for y in (-45, 45)])
    shift = np.outer(np.arange(60), [drift, 0.0])
    window = prepare(paint(stars, shift, np.ones(60, complex), rng), 0, None)
    matched, t = MatchedFrames(window), np.arange(60)
    scores = []
    for _ in range(400):
        start = rng.uniform([20, 30], [110, 80])
        path = start + np.outer(t / 59, rng.uniform(10, 25, 2) * rng.choice([-1, 1], 2))
        if matched.inside(path).all():
            scores.append(matched.sample(t, path, np.zeros((60, 2))).sum() / np.sqrt(60))
    assert len(scores) > 100
    assert np.std(scores) == pytest.approx(1.0, abs=0.13)


@pytest.mark.parametrize(("psf", "cell"), [(1.3, 2), (2.0, 3), (2.6, 4), (5.0, 8)])
def test_cells_keep_a_points_signal_to_noise(psf: float, cell: int) -> None:
    """Against the matched filter's sqrt(sum of the profile squared), wherever the point lies."""
    rng = np.random.default_rng(5)
    noise = to_cells(rng.standard_normal((1200, 1200)).astype(np.float32), cell, psf)
    shares = []
    for _ in range(60):
        x, y = rng.uniform(80, 110, 2)
        rows, columns = np.mgrid[:190, :200]
        point = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * psf**2))
        got = to_cells(point.astype(np.float32), cell, psf)
        assert got.shape == (190 // cell, 200 // cell)
        at = np.unravel_index(got.argmax(), got.shape)
        middle = np.array(at) * cell + (cell - 1) / 2
        assert np.abs(middle - [y, x]).max() < 0.75 * cell
        shares.append(got.max() / noise[5:-5, 5:-5].std() / np.sqrt((point**2).sum()))
    # what the grid leaves: half a cell off at most, 1.6 sigma of the point wide
    assert np.mean(shares) > 0.88 and max(shares) < 1.02


def test_cells_lie_on_the_stars_grid() -> None:
    rows, columns = np.mgrid[:120, :160]
    here = np.exp(-((columns - 70.5) ** 2 + (rows - 50.5) ** 2) / (2 * 1.3**2)).astype(np.float32)
    there = np.exp(-((columns - 74.5) ** 2 + (rows - 47.5) ** 2) / (2 * 1.3**2)).astype(np.float32)
    moved = to_cells(there, 2, 1.3, np.array([1.0, 0.0, 4.0, -3.0]))
    np.testing.assert_allclose(moved[5:-5, 5:-5], to_cells(here, 2, 1.3)[5:-5, 5:-5], atol=1e-3)
