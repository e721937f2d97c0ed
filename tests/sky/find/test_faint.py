"""The last word on faint paths: which frames they have, and whether they stand."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from warte.sky.find.accept import INTERVALS, WHOLE, needed_score
from warte.sky.find.faint import FaintSettings, decide, span, tiers
from warte.sky.find.fit import MatchedFrames
from warte.sky.find.prepare import Window
from warte.sky.find.refine import Paths

SIGMA = 1.2
MakeWindow = Callable[..., Window]


def with_mover(make: MakeWindow, lit: range, snr: float, seed: int) -> Window:
    """100 frames of noise with a point that crosses them, shining in the frames ``lit``."""
    window = make(100, (60, 120), np.random.default_rng(seed), psf_sigma_px=SIGMA)
    rows, columns = np.mgrid[:60, :120]
    for t in lit:
        squared = (columns - 10 - 1.0 * t) ** 2 + (rows - 20 - 0.2 * t) ** 2
        light = np.exp(-squared / (2 * SIGMA**2))
        window.residual[t] += snr * light / np.sqrt((light**2).sum())
    return window


def path(start: int, end: int) -> Paths:
    """The mover's way in cells of two pixels, seen from ``start`` to ``end``."""
    row = (9.5 / 2, 19.5 / 2, 0.5, 0.1, start, end, 9.0, 0.0)
    return Paths(*np.array([row], float).T)


@pytest.mark.parametrize(
    ("lit", "seen", "choices"),
    [(range(100), (4, 93), WHOLE), (range(30, 70), (30, 69), INTERVALS)],
)
def test_a_path_is_whole_unless_a_part_of_it_stands_out(
    noise_window: MakeWindow, lit: range, seen: tuple[int, int], choices: int
) -> None:
    matched = MatchedFrames(with_mover(noise_window, lit, 2.5, 1))
    frame, star, found = span(matched, path(*seen), 0)
    assert found == choices
    assert (frame[0], frame[-1]) == ((0, 99) if choices == WHOLE else seen)
    np.testing.assert_allclose(star[0], [10 + frame[0], 20 + 0.2 * frame[0]], atol=1e-9)


def test_a_path_out_of_the_picture_has_no_frames(noise_window: MakeWindow) -> None:
    matched = MatchedFrames(with_mover(noise_window, range(0), 1.0, 2))
    away = Paths(*np.array([(500.0, 500.0, 0.0, 0.0, 0, 99, 9.0, 0.0)]).T)
    assert not len(span(matched, away, 0)[0])


def test_a_mover_stands_and_its_copy_and_noise_do_not(noise_window: MakeWindow) -> None:
    settings = FaintSettings()
    twice = Paths(*(np.repeat(column, 2) for column in vars(path(0, 99)).values()))
    lit = MatchedFrames(with_mover(noise_window, range(100), 1.2, 3))
    fits = decide(lit, twice, settings)
    assert len(fits) == 1
    assert fits[0].x[-1] == pytest.approx(109, abs=1.0)
    # the fit may find more than the cells did, but not any amount more
    way = 99.0 * np.hypot(1.0, 0.2)
    needed = needed_score(way, lit.window, settings.false_tracks, WHOLE)
    for lacks, number in ((0.7, 1), (1.5, 0)):
        weak = replace(path(0, 99), score=np.array([needed - lacks]))
        assert len(decide(lit, weak, settings)) == number
    dark = MatchedFrames(with_mover(noise_window, range(0), 1.0, 4))
    assert decide(dark, twice, settings) == []


def test_short_windows_are_searched_in_shorter_blocks_and_long_ones_in_longer_too() -> None:
    levels = [[tier.level for tier in tiers(FaintSettings(), 2, n)] for n in (16, 48, 96)]
    assert levels == [[4] * 5, [5] * 5, [5, 5, 6, 6, 5, 5, 5]]


@pytest.mark.parametrize(("fastest", "number"), [(15.0, 4), (4.0, 4), (1.0, 2)])
def test_every_speed_is_searched_once_and_the_slowest_more_closely(
    fastest: float, number: int
) -> None:
    points = [t for t in tiers(FaintSettings(speed_max_px=fastest), 2, 96) if not t.trail]
    assert len(points) == number
    for level, end in ((5, fastest), (6, min(fastest, 6.0))):
        ranges = [(t.speed_min, t.speed_max) for t in points if t.level == level]
        assert ranges[0][0] == pytest.approx(0.15 / 2) and ranges[-1][1] == end / 2
        assert all(a[1] == b[0] for a, b in pairwise(ranges))
        hits = [t.hit for t in points if t.level == level]
        assert hits == sorted(hits) and len(set(hits)) == len(hits)
