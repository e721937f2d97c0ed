"""What chance makes of a path, in white noise and in noise as codecs leave it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from warte.sky.find.chance import (
    WHITE_NOISE,
    Chance,
    at_other_times,
    chance,
    chances_of,
    elsewhere,
    stand_out,
    standing,
)
from warte.sky.find.fit import KNOTS, Fit, MatchedFrames, fit_path
from warte.sky.find.prepare import Window

MakeWindow = Callable[..., Window]
FRAMES, SHAPE = 60, (90, 120)


def path_of(x0: float, y0: float, vx: float, vy: float, frames: int = FRAMES) -> np.ndarray:
    t = np.arange(frames)
    return np.stack([x0 + vx * t, y0 + vy * t], 1)


def laid(matched: MatchedFrames, path: np.ndarray) -> Fit:
    """The path as it is, with the light that lies along it."""
    return fit_path(matched, np.arange(len(path)), path, 0.0, (1,), rounds=1)


def frozen(window: Window, hold: int, seed: int) -> Window:
    """The window with each frame's noise kept for ``hold`` frames, as a codec keeps its blocks."""
    rng = np.random.default_rng(seed)
    keys = rng.standard_normal((-(-FRAMES // hold), *SHAPE)).astype(np.float32)
    return replace(window, residual=np.repeat(keys, hold, axis=0)[:FRAMES].astype(np.float16))


@pytest.fixture
def window(noise_window: MakeWindow) -> Window:
    return noise_window(FRAMES, SHAPE, np.random.default_rng(1))


def test_white_noise_is_left_as_it_is(window: Window) -> None:
    matched = MatchedFrames(window)
    assert matched.is_white
    fit = laid(matched, path_of(20, 20, 1.0, 0.5))
    np.testing.assert_array_equal(standing(matched, fit), fit.snr)
    for one in chances_of(matched, fit):
        assert one.scatter * one.tail == pytest.approx(1.0, abs=0.25)
        assert one.middle == pytest.approx(0.0, abs=0.35)


def test_copies_scatter_as_sums_of_independent_values_do(window: Window) -> None:
    matched = MatchedFrames(window)
    scores = elsewhere(matched, laid(matched, path_of(20, 20, 1.0, 0.5)))
    assert len(scores) > 100
    assert scores.std() == pytest.approx(1.0, abs=0.12)
    assert scores.mean() == pytest.approx(0.0, abs=0.2)


@pytest.mark.parametrize(("speed", "least", "most"), [(0.1, 2.0, 4.0), (3.0, 0.8, 1.6)])
def test_frozen_noise_scatters_slow_sums_more_than_fast_ones(
    window: Window, speed: float, least: float, most: float
) -> None:
    """Twelve frames alike count as one on a slow path: root 12; a fast one sees new noise."""
    matched = MatchedFrames(frozen(window, 12, 2))
    frames = min(FRAMES, int(100 / max(speed, 0.1)))
    fit = laid(matched, path_of(10, 45, speed, 0.0, min(frames, 30)))
    assert least < chance(elsewhere(matched, fit)).scatter < most


def test_heavy_tails_count_as_what_is_as_rare(noise_window: MakeWindow) -> None:
    window = noise_window(FRAMES, SHAPE, np.random.default_rng(3))
    rng = np.random.default_rng(4)
    spots = rng.random(window.residual.shape) < 0.004
    window = replace(window, residual=(window.residual + 9.0 * spots).astype(np.float16))
    matched = MatchedFrames(window)
    matched.prepare(np.arange(FRAMES))
    assert not matched.is_white
    row, column = np.mgrid[: SHAPE[0], : SHAPE[1]]
    values = np.stack([matched.rarity(matched.images[t], row, column) for t in range(FRAMES)])
    # whatever the noise: a Gaussian's share lies beyond each knot, and the order is kept
    for sigma in KNOTS[-4:]:
        assert (values > sigma).mean() == pytest.approx(norm.sf(sigma), rel=0.4)
    x = np.linspace(-30, 60, 500)
    assert (np.diff(matched.rarity(x, np.full(500, 40), np.full(500, 60))) > 0).all()


def test_a_mover_stands_out_and_an_edge_that_flickers_does_not(window: Window) -> None:
    """Both are as bright along their paths; but on the edge there is light at other times, too."""
    residual = window.residual.astype(np.float32)
    path = path_of(15, 20, 1.5, 0.0, FRAMES)
    rng = np.random.default_rng(5)
    for t in range(FRAMES):
        x, y = path[t]
        rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
        residual[t] += 3.0 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 1.2**2))
        # a line of the picture where one level goes over into the next
        residual[t, 69:72, :] += 4.0 * (rng.random(SHAPE[1] // 10).repeat(10) < 0.5)
    matched = MatchedFrames(replace(window, residual=residual.astype(np.float16)))
    mover = laid(matched, path)
    edge = laid(matched, path_of(15, 70, 1.5, 0.0))
    seen = {}
    for name, fit in (("mover", mover), ("edge", edge)):
        score = float(standing(matched, fit).sum() / np.sqrt(len(fit.frame)))
        seen[name] = (score, stand_out(chances_of(matched, fit), score))
    assert seen["edge"][0] > 8 and seen["edge"][1] < 2
    assert seen["mover"][1] > 5


def test_the_mover_is_not_among_its_own_copies(window: Window) -> None:
    residual = window.residual.astype(np.float32)
    path = path_of(15, 20, 1.5, 0.8)
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    for t, (x, y) in enumerate(path):
        residual[t] += 8.0 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 1.2**2))
    matched = MatchedFrames(replace(window, residual=residual.astype(np.float16)))
    fit = laid(matched, path)
    for scores in (elsewhere(matched, fit), at_other_times(matched, fit)):
        assert np.quantile(scores, 0.98) < 5 < fit.score


def test_few_copies_tell_nothing() -> None:
    assert chance(np.full(5, 9.0)) == WHITE_NOISE
    assert chance(np.zeros(0)) == WHITE_NOISE
    # an accident of few copies hides nothing, and what is there for sure counts
    rng = np.random.default_rng(8)
    few = [chance(rng.standard_normal(60), same=2.0) for _ in range(200)]
    assert np.mean([one.scatter > 1 for one in few]) < 0.06
    assert np.mean([one.tail > 1 for one in few]) < 0.1
    many = [chance(1.6 * rng.standard_normal(240), same=1.0) for _ in range(200)]
    assert 1.55 < np.mean([one.scatter for one in many]) < 1.65
    # in noise that is not white they count as they were seen
    # the middle of white noise is zero, and rarely told otherwise; one that is not shows
    assert np.mean([one.middle == 0 for one in few]) > 0.94
    off = [chance(0.5 + rng.standard_normal(240), same=1.0).middle for _ in range(200)]
    assert np.mean(off) == pytest.approx(0.5, abs=0.02)
    seen = [chance(1.6 * rng.standard_normal(240)) for _ in range(200)]
    assert 1.57 < np.mean([one.scatter for one in seen]) < 1.63
    told = chance(3.0 + 2.0 * np.random.default_rng(6).standard_normal(4000))
    assert told.middle == pytest.approx(3.0, abs=0.2)
    assert told.scatter * told.tail == pytest.approx(2.0, rel=0.1)
    assert stand_out((Chance(1.0, 2.0, 1.0), WHITE_NOISE), 9.0) == 4.0
