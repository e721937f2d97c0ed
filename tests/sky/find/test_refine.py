"""From candidates to paths: planted movers in noise of one sigma."""

import cv2
import numpy as np
import pytest
import torch

from warte.sky.find import compiled
from warte.sky.find.compiled import best_intervals
from warte.sky.find.refine import (
    Paths,
    Walk,
    best_of,
    climb_by_tensors,
    distinct,
    framed,
    path_noise,
    refine,
    sample_noise,
    sample_paths,
    sums_around,
    take,
    thin,
)
from warte.sky.find.stack import Candidates

BLUR = 0.65


def noise(frames: int, size: tuple[int, int], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    cells = np.stack(
        [cv2.GaussianBlur(rng.standard_normal(size), (0, 0), BLUR) for _ in range(frames)]
    )
    return np.asarray(cells / cells.std(), np.float32)


def plant(
    cells: np.ndarray, at: tuple[float, float], way: tuple[float, float], snr: float, frames: range
) -> None:
    """A point that is at ``at`` in frame 0 and moves by ``way`` cells a frame."""
    rows, columns = np.mgrid[: cells.shape[1], : cells.shape[2]]
    for t in frames:
        squared = (columns - at[0] - way[0] * t) ** 2 + (rows - at[1] - way[1] * t) ** 2
        cells[t] += snr * np.exp(-squared / (2 * 0.95**2))


def candidates(*rows: tuple[float, ...]) -> Candidates:
    """Rows of t, x, y, vx, vy, frames, score, trail."""
    return Candidates(*np.array(rows, np.float32).reshape(-1, 8).T)


def straight(*rows: tuple[float, ...]) -> Paths:
    """Rows of x, y, vx, vy, start, end, score, trail."""
    return Paths(*np.array(rows, float).reshape(-1, 8).T)


def scores(
    cells: torch.Tensor, ends: torch.Tensor, t0: torch.Tensor, t1: torch.Tensor, trail: float
) -> torch.Tensor:
    """Sigma of paths as they are, (n,)."""
    sums = sums_around(framed(cells), ends, t0, t1, trail, 0, 1.0)[:, 4]
    return sums / path_noise(cells, ends, t0, t1, torch.full((len(ends),), trail), BLUR)


def test_a_planted_path_is_sharpened_and_lengthened() -> None:
    cells = noise(64, (70, 90), 1)
    plant(cells, (15.3, 50.6), (0.92, -0.47), 2.0, range(64))
    rough = candidates((23.5, 15.3 + 0.92 * 23.5 + 1, 50.6 - 0.47 * 23.5 - 1, 1.0, -0.4, 16, 6, 0))
    paths = refine(torch.from_numpy(cells), rough, threshold=5.3, blur=BLUR)
    assert len(paths) == 1
    for t in (0, 31, 63):
        assert paths.x[0] + paths.vx[0] * t == pytest.approx(15.3 + 0.92 * t, abs=1.0)
        assert paths.y[0] + paths.vy[0] * t == pytest.approx(50.6 - 0.47 * t, abs=1.0)
    assert paths.start[0] < 6 and paths.end[0] > 57
    ends = torch.tensor([[15.3, 50.6, 15.3 + 0.92 * 63, 50.6 - 0.47 * 63]])
    t0, t1 = torch.zeros(1), torch.full((1,), 63.0)
    true = float(scores(torch.from_numpy(cells), ends, t0, t1, 0.0))
    assert paths.score[0] > 0.9 * true
    assert true == pytest.approx(2.0 * np.sqrt(64), rel=0.2)  # the nearest cells lose a tenth


def test_two_crossing_paths_stay_two_and_copies_go() -> None:
    cells = noise(64, (70, 90), 1)
    plant(cells, (10.0, 20.0), (1.0, 0.3), 3.0, range(64))
    plant(cells, (10.0, 50.0), (1.0, -0.6), 3.0, range(64))
    rows = []
    for x, y, vx, vy in ((10, 20, 1.0, 0.3), (10, 50, 1.0, -0.6)):
        for t in (8, 24, 40, 56):
            rows.append((t, x + vx * t + 0.5, y + vy * t, vx, vy + 0.02, 16, 7, 0))
    paths = refine(torch.from_numpy(cells), candidates(*rows), threshold=5.3, blur=BLUR)
    assert sorted(np.round(paths.vy, 1)) == [-0.6, 0.3]


def test_a_mover_that_goes_into_shadow_ends() -> None:
    cells = noise(64, (60, 80), 2)
    plant(cells, (12.0, 30.0), (0.6, 0.1), 3.0, range(4, 36))
    rough = candidates((20, 24.0, 32.0, 0.6, 0.1, 16, 9, 0))
    paths = refine(torch.from_numpy(cells), rough, threshold=5.3, blur=BLUR)
    assert paths.start[0] == pytest.approx(4, abs=3)
    assert paths.end[0] == pytest.approx(35, abs=3)


def test_noise_yields_no_path() -> None:
    cells = torch.from_numpy(noise(64, (60, 80), 3))
    rng = np.random.default_rng(3)
    rows = [
        (rng.uniform(10, 50), rng.uniform(10, 70), rng.uniform(10, 50), *rng.normal(0, 0.4, 2),
         16, 4.5, float(k % 2))
        for k in range(40)
    ]  # fmt: skip
    assert len(refine(cells, candidates(*rows), threshold=6.0, blur=BLUR)) == 0
    assert len(refine(cells, candidates(), threshold=5.3, blur=BLUR)) == 0


def test_best_interval_is_the_best_of_all() -> None:
    rng = np.random.default_rng(4)
    for _ in range(5):
        values = rng.normal(0, 1, 40)
        values[12:29] += 1.5
        inside = rng.random(40) < 0.9
        values[~inside] = 0
        tries = {
            (a, b): values[a : b + 1].sum() / np.sqrt(inside[a : b + 1].sum())
            for a in range(40)
            for b in range(a, 40)
            if inside[a : b + 1].sum() >= 8
        }
        both = np.stack([np.full(40, -1.0), values]), np.stack([inside, inside])
        first, last, score = best_intervals(*both, 8)
        assert score[1] == pytest.approx(max(tries.values()))
        assert tries[first[1], last[1]] == pytest.approx(score[1])
        assert score[0] == -np.inf  # nothing but dark
    # one flash is spread over the fewest frames that are in the picture
    values = np.full((1, 40), -0.01)
    values[0, 20] = 50.0
    inside = np.ones((1, 40), bool)
    inside[0, 22:26] = False
    first, last, _ = best_intervals(values, inside, 8)
    assert inside[0, first[0] : last[0] + 1].sum() == 8


def test_samples_are_the_nearest_cells() -> None:
    cells = torch.arange(4 * 5 * 6, dtype=torch.float32).view(4, 5, 6)
    ends = torch.tensor([[1.0, 1.0, 4.0, 4.0], [4.6, 0.0, 7.6, 0.0]])
    t0, t1 = torch.zeros(2), torch.full((2,), 3.0)
    frames = torch.arange(4).expand(2, 4)
    values, inside = sample_paths(cells, ends, t0, t1, frames, torch.zeros(2))
    assert values[0].tolist() == [float(cells[t, 1 + t, 1 + t]) for t in range(4)]
    assert inside.tolist() == [[True] * 4, [True, False, False, False]]
    assert (values[1, 1:] == 0).all()


@pytest.mark.parametrize("trail", [0.0, 1.0])
def test_scores_of_noise_have_unit_spread(trail: float) -> None:
    cells = torch.from_numpy(noise(32, (120, 160), 5))
    rng = np.random.default_rng(5)
    n = 600
    start = rng.uniform([25, 25], [95, 60], (n, 2))
    way = np.tile([2.0, 1.0], (n, 1))
    ends = torch.from_numpy(np.hstack([start, start + 31 * way])).float()
    found = scores(cells, ends, torch.zeros(n), torch.full((n,), 31.0), trail)
    assert float(found.std()) == pytest.approx(1.0, abs=0.12)
    assert abs(float(found.mean())) < 0.15
    assert (sample_noise(torch.zeros(3, 2), torch.zeros(3), BLUR) == 1).all()


def test_thin_keeps_the_best_of_a_neighbourhood() -> None:
    rows = [(8, 30, 30, 0.5, 0, 16, 5, 0), (8, 30.4, 30, 0.5, 0, 16, 7, 0)]
    rows += [(8, 60, 30, 0.5, 0, 16, 6, 0), (8, 30, 30, 0.5, 0, 16, 4, 1)]
    assert sorted(thin(candidates(*rows), 10).score) == [4, 6, 7]
    assert thin(candidates(*rows), 1).score.shape == (1,)
    assert len(thin(candidates(), 10)) == 0


def test_of_paths_that_share_their_way_the_best_is_kept() -> None:
    paths = straight(
        (10, 10, 1, 0, 0, 39, 9, 0),
        (10.5, 10, 1, 0, 10, 49, 5, 0),  # 30 of its 40 frames are on the first
        (10, 13, 1, 0, 0, 39, 8, 0),  # beside it
        (10, 10, 1, 0, 50, 90, 7, 0),  # on the same line, later
        (30, -10, 0, 1, 0, 39, 6, 0),  # across
    )
    assert distinct(paths, 1.5).tolist() == [0, 2, 3, 4]
    assert distinct(take(paths, np.array([1, 2])), 1.5).tolist() == [1, 0]
    assert distinct(straight(), 1.5).tolist() == []


def test_sums_around_move_one_end() -> None:
    cells = torch.from_numpy(noise(20, (30, 40), 11))
    ends = torch.tensor([[5.0, 6.0, 24.0, 14.0], [35.0, 2.0, 43.0, 25.0]])
    t0, t1 = torch.tensor([0.0, 4.0]), torch.tensor([19.0, 19.0])
    for end in (0, 1):
        found = sums_around(framed(cells), ends, t0, t1, 0.0, end, 1.0)
        for k, (dy, dx) in enumerate((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)):
            moved = ends.clone()
            moved[:, 2 * end : 2 * end + 2] += torch.tensor([float(dx), float(dy)])
            frames = torch.arange(20).expand(2, 20)
            values, _ = sample_paths(cells, moved, t0, t1, frames, torch.zeros(2))
            seen = frames >= t0[:, None]
            np.testing.assert_allclose(found[:, k], (values * seen).sum(1), atol=1e-4)


def test_the_best_paths_go_on() -> None:
    score = torch.tensor([5.0, 7.5, 6.0, 9.0])
    walk = Walk(torch.arange(16.0).view(4, 4), *torch.zeros(3, 4), score)
    best = best_of(walk, 2)
    assert best.score.tolist() == [9.0, 7.5]
    assert best.ends.tolist() == walk.ends[[3, 1]].tolist()
    assert len(best_of(walk, 10).score) == 4


@pytest.mark.parametrize("long", [0.0, 1.0])
def test_the_compiled_climb_is_that_of_pytorch(long: float) -> None:
    """Also for paths that begin or end outside, in the picture or in time."""
    padded = framed(torch.from_numpy(noise(40, (50, 60), 21)))
    rng = np.random.default_rng(22)
    ends = torch.from_numpy(rng.uniform(-6, 64, (300, 4)).astype(np.float32))
    t0 = torch.from_numpy(rng.integers(-3, 12, 300)).float()
    t1 = t0 + torch.from_numpy(rng.integers(8, 36, 300)).float()
    first, last = (t.long().numpy() for t in (t0, t1))
    steps, got, sums = (1.0, 0.5), ends.clone(), torch.zeros(300)
    compiled.climb(
        *(padded.numpy(), got.numpy(), first, last, long),
        *(np.array(steps, np.float32), sums.numpy()),
    )
    wanted = ends.clone()
    expected = climb_by_tensors(padded, wanted, t0, t1, long, steps)
    same = (got == wanted).all(1)
    assert same.float().mean() > 0.97  # a place half way between two cells may go to either
    assert (got != ends).any(1).float().mean() > 0.8
    np.testing.assert_allclose(sums[same], expected[same], atol=2.0)
    assert (sums[same] - expected[same]).abs().median() < 1e-4
