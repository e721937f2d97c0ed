"""Blobs of known movers, with false ones between, are linked as they belong together."""

import numpy as np
import pandas as pd
import pytest

from warte.sky.find.detect import DETECTION_COLUMNS
from warte.sky.find.link import MISSING_FRAMES, Blobs, blobs_of, is_mover, link

Row = tuple[int, float, float, int]  # frame, x, y, whose


def walk(
    whose: int, frames: "range | list[int]", at: tuple[float, float], way: tuple[float, float]
) -> list[Row]:
    return [(t, at[0] + way[0] * t, at[1] + way[1] * t, whose) for t in frames]


def make(
    rows: list[Row], rng: np.random.Generator, jitter: float = 0.3
) -> tuple[Blobs, np.ndarray]:
    """Blobs of points, and whose they are, both in the order of frames."""
    rows = sorted(rows, key=lambda row: row[0])
    frame = np.array([row[0] for row in rows], int)
    xy = np.array([row[1:3] for row in rows], float).reshape(-1, 2)
    xy += rng.normal(0, jitter, xy.shape)
    whose = np.array([row[3] for row in rows], int)
    return Blobs(frame, xy, np.full(len(rows), 9.0), np.zeros((len(rows), 2))), whose


def false_blobs(rng: np.random.Generator, count: int, frames: int) -> list[Row]:
    return [
        (int(rng.integers(frames)), rng.uniform(0, 320), rng.uniform(0, 240), 0)
        for _ in range(count)
    ]


def owners(chains: list[np.ndarray], whose: np.ndarray) -> list[list[int]]:
    return [sorted(set(whose[chain].tolist())) for chain in chains]


@pytest.mark.parametrize("speed", [0.3, 2.0, 12.0])
def test_one_mover_among_false_blobs(speed: float) -> None:
    rng = np.random.default_rng(0)
    last = min(60, int(300 / speed))
    rows = walk(1, range(last), (10.0, 60.0), (0.9 * speed, 0.4 * speed))
    blobs, whose = make(rows + false_blobs(rng, 40, 60), rng)
    chains = [chain for chain in link(blobs, 30.0) if (whose[chain] == 1).any()]
    assert len(chains) == 1
    assert (whose[chains[0]] == 1).sum() >= 0.95 * last
    assert (whose[chains[0]] == 0).sum() <= 1
    assert (np.diff(blobs.frame[chains[0]]) > 0).all()


def test_false_blobs_alone() -> None:
    rng = np.random.default_rng(1)
    blobs, _ = make(false_blobs(rng, 60, 60), rng)
    assert link(blobs, 15.0) == []
    assert link(make([], rng)[0], 15.0) == []


@pytest.mark.parametrize("second", [(2.0, -1.0), (-2.0, 1.0), (1.2, 2.0)])
def test_crossing_movers_keep_their_blobs(second: tuple[float, float]) -> None:
    rng = np.random.default_rng(2)
    # both are at (100, 100) in frame 30
    rows = walk(1, range(60), (40.0, 70.0), (2.0, 1.0))
    start = (100 - 30 * second[0], 100 - 30 * second[1])
    blobs, whose = make(rows + walk(2, range(60), start, second), rng)
    chains = link(blobs, 15.0)
    assert len(chains) == 2
    for chain in chains:
        share = np.bincount(whose[chain], minlength=3).max() / len(chain)
        assert len(chain) >= 55 and share > 0.95


def test_seen_in_one_frame_of_three() -> None:
    rng = np.random.default_rng(3)
    blobs, whose = make(
        walk(1, range(0, 60, 3), (20.0, 30.0), (3.0, 1.5)) + false_blobs(rng, 20, 60), rng
    )
    chains = [chain for chain in link(blobs, 15.0) if (whose[chain] == 1).any()]
    assert len(chains) == 1
    assert (whose[chains[0]] == 1).sum() == 20


@pytest.mark.parametrize("gap", [5, MISSING_FRAMES - 2])
def test_a_gap_is_bridged(gap: int) -> None:
    rng = np.random.default_rng(4)
    frames = [*range(20), *range(20 + gap, 45 + gap)]
    blobs, _ = make(walk(1, frames, (20.0, 30.0), (2.5, 1.0)), rng)
    assert [len(chain) for chain in link(blobs, 15.0)] == [45]


def test_a_long_gap_makes_two() -> None:
    rng = np.random.default_rng(5)
    frames = [*range(20), *range(60, 80)]
    blobs, _ = make(walk(1, frames, (20.0, 30.0), (2.5, 1.0)), rng)
    assert [len(chain) for chain in link(blobs, 15.0)] == [20, 20]


def test_a_curved_path_is_one() -> None:
    rng = np.random.default_rng(6)
    rows = [(t, 20 + 2.0 * t, 200 - 3 * t + 0.03 * t**2, 1) for t in range(80)]
    blobs, _ = make(rows, rng)
    chains = link(blobs, 15.0)
    assert len(chains) == 1 and len(chains[0]) >= 78


def test_what_stands_still_is_no_mover() -> None:
    rng = np.random.default_rng(7)
    blobs, _ = make(walk(1, range(60), (50.0, 50.0), (0.0, 0.0)), rng, jitter=0.6)
    assert link(blobs, 15.0) == []


def test_faster_than_searched_for() -> None:
    rng = np.random.default_rng(8)
    blobs, _ = make(walk(1, range(12), (10.0, 10.0), (25.0, 0.0)), rng)
    assert len(link(blobs, 30.0)) == 1
    assert link(blobs, 5.0) == []


def streak_table(frames: list[int], snr: float) -> pd.DataFrame:
    """A meteor of 30 px a frame, each blob as long as its way."""
    table = pd.DataFrame(0.0, index=range(len(frames)), columns=DETECTION_COLUMNS)
    table["frame"] = frames
    table["x"], table["y"] = 40 + 30.0 * table["frame"], 60 + 15.0 * table["frame"]
    table["x0"], table["x1"] = table["x"] - 15, table["x"] + 15
    table["y0"], table["y1"] = table["y"] - 7.5, table["y"] + 7.5
    table["length_px"], table["snr"] = np.hypot(30, 15), snr
    return table


def test_two_bright_streaks_are_a_meteor() -> None:
    blobs = blobs_of(streak_table([2, 1], 40.0))
    assert blobs.frame.tolist() == [1, 2]
    np.testing.assert_allclose(blobs.streak, [[30, 15], [30, 15]])
    assert [len(chain) for chain in link(blobs, 15.0)] == [2]
    assert link(blobs_of(streak_table([1, 2], 5.0)), 15.0) == []


def test_two_points_are_no_mover() -> None:
    table = streak_table([1, 2], 40.0).assign(length_px=3.0)
    blobs = blobs_of(table)
    assert (blobs.streak == 0).all()
    assert not is_mover(blobs, np.array([0, 1]))


def flight(xy: list[tuple[float, float]], snr: list[float], streak: tuple[float, float]) -> Blobs:
    """Blobs in frames that follow each other."""
    number = len(xy)
    return Blobs(
        np.arange(number), np.array(xy, float), np.array(snr), np.tile(streak, (number, 1))
    )


@pytest.mark.parametrize(
    ("xy", "snr", "streak", "is_one"),
    [
        ([(0, 0), (12, 9), (25, 17)], [8.0, 14.0, 9.0], (0, 0), True),
        ([(0, 0), (12, 9), (25, 17)], [8.0, 14.0, 4.0], (0, 0), False),  # it is gone
        ([(0, 0), (12, 9), (25, 17)], [5.2, 5.3, 5.1], (0, 0), False),  # too faint together
        ([(0, 0), (14, 0), (14, 14)], [8.0, 14.0, 9.0], (0, 0), False),  # round a corner
        ([(0, 0), (1.5, 2), (3, 4)], [8.0, 14.0, 9.0], (0, 0), False),  # too slow for a meteor
        ([(0, 0), (12, 9)], [8.0, 9.0], (12, 9), True),
        ([(0, 0), (12, 9)], [8.0, 9.0], (-12, -9), True),  # a streak has no direction
        ([(0, 0), (12, 9)], [8.0, 9.0], (2, 15), False),  # off its way
        ([(0, 0), (12, 9)], [8.0, 9.0], (0, 0), False),  # two points are any two points
        ([(0, 0), (48, 36)], [8.0, 9.0], (12, 9), False),  # far too short for its way
        ([(0, 0)], [30.0], (12, 9), False),
    ],
)
def test_short_meteors(
    xy: list[tuple[float, float]], snr: list[float], streak: tuple[float, float], is_one: bool
) -> None:
    blobs = flight(xy, snr, streak)
    assert is_mover(blobs, np.arange(len(xy))) == is_one
    chains = link(blobs, 30.0)
    assert [chain.tolist() for chain in chains] == ([list(range(len(xy)))] if is_one else [])


def test_a_short_chain_with_gaps_is_no_meteor() -> None:
    blobs = flight([(0, 0), (12, 9), (25, 17)], [8.0, 14.0, 9.0], (0, 0))
    apart = Blobs(np.array([0, 1, 3]), blobs.xy, blobs.snr, blobs.streak)
    assert not is_mover(apart, np.arange(3))
