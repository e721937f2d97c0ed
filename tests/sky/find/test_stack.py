"""Shift and stack against sums written out: numpy rolls, loops, and planted paths."""

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import torch

from warte.sky.find.stack import (
    TILE,
    Candidates,
    Tier,
    best_of_tile,
    hits,
    join,
    regions,
    robust_spread,
    search,
    tile_velocities,
    z_order,
)
from warte.sky.find.velocity import (
    CLIP_SIGMA,
    FINE_STEPS,
    STEPS_PER_SIGMA,
    VelocityTree,
    below,
    doubled,
    halves_of,
    level_sigma,
    quantise,
    trail_sigma,
    trailed,
)

BLUR = 0.65
POINTS_16 = Tier(4, 0.2, 1.5, 3.6, 4.4, 4.7, trail=False, keep=2000)
POINTS_32 = Tier(5, 0.1, 0.7, 3.7, 4.6, 5.0, trail=False, keep=2000)
POINTS_64 = Tier(6, 0.1, 0.4, 4.0, 4.6, 4.0, trail=False, keep=2000)
TRAILS_16 = Tier(4, 2.0, 3.0, 3.6, 4.4, 4.7, trail=True, keep=2000)


def noise(frames: int, size: tuple[int, int], seed: int) -> np.ndarray:
    """Smoothed noise of one sigma, as cells are."""
    rng = np.random.default_rng(seed)
    cells = np.stack(
        [cv2.GaussianBlur(rng.standard_normal(size), (0, 0), BLUR) for _ in range(frames)]
    )
    return np.asarray(cells / cells.std(), np.float32)


def plant(cells: np.ndarray, x: float, y: float, vx: float, vy: float, snr: float) -> None:
    """A point that is at (x, y) in the middle of the window."""
    rows, columns = np.mgrid[: cells.shape[1], : cells.shape[2]]
    for t, frame in enumerate(cells):
        k = t - (len(cells) - 1) / 2
        squared = (columns - x - vx * k) ** 2 + (rows - y - vy * k) ** 2
        frame += snr * np.exp(-squared / (2 * 0.95**2))


def near(found: Candidates, t: float, x: float, y: float, vx: float, vy: float) -> np.ndarray:
    """Which candidates lie on a path that is at (x, y) at time t."""
    off = np.hypot(
        found.x - x - vx * (found.t - t), found.y - y - vy * (found.t - t)
    )  # fmt: skip
    turned = np.hypot(found.vx - vx, found.vy - vy) * found.frames / 2
    return (off < 2.5) & (turned < 3.5)


@pytest.mark.parametrize(("dy", "dx"), [(0, 0), (3, -2), (-5, 4), (1, 1), (-1, -3), (40, 0)])
def test_doubled(dy: int, dx: int) -> None:
    a = np.random.default_rng(0).integers(-20, 20, (3, 12, 15)).astype(np.int16)
    out = torch.full((3, 12, 15), 99, dtype=torch.int16)
    doubled(torch.from_numpy(a), dy, dx, out)
    for y in range(12):
        for x in range(15):
            ya, xa = y - dy // 2, x - dx // 2
            yb, xb = ya + dy, xa + dx
            if min(ya, yb) >= 0 and max(ya, yb) < 12 and min(xa, xb) >= 0 and max(xa, xb) < 15:
                assert (out[:, y, x].numpy() == a[:, ya, xa] + a[:, yb, xb]).all()
    if abs(dy) >= 12:
        assert (out == 0).all()


def position(level: int, index: int) -> list[int]:
    """Place of each of 2**level frames on one axis, relative to the sum's, by the tree's rule:
    the halves have indices i // 2 and i - i // 2 and lie i cells apart, -(i // 2) and the rest."""
    if level == 0:
        return [0]
    low, high = index // 2, index - index // 2
    first = [p - low for p in position(level - 1, low)]
    return first + [p + high for p in position(level - 1, high)]


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(("iy", "ix"), [(0, 0), (1, 0), (5, -3), (-7, 6), (-1, -1), (13, 9)])
def test_tree_sums_every_path(level: int, iy: int, ix: int) -> None:
    rng = np.random.default_rng(1)
    cells = rng.integers(-3, 4, (48, 40, 44)) / STEPS_PER_SIGMA  # exact in 8 bits
    tree = VelocityTree(torch.from_numpy(cells).float(), trail=False, blur=BLUR, fastest=16)
    got = tree.compute(level, iy, ix).numpy()
    steps = np.round(cells * STEPS_PER_SIGMA).astype(int)
    ys, xs = position(level, iy), position(level, ix)
    spacing = min(2**level, 16)
    assert len(got) == (48 - 2**level) // spacing + 1
    rows = slice(max(0, -min(ys)), 40 - max(0, *ys))
    columns = slice(max(0, -min(xs)), 44 - max(0, *xs))
    for block in range(len(got)):
        expected = np.zeros((40, 44), int)
        for part in range(0, 2**level, 16):  # sums over 16 frames are halved and rounded down
            total = np.zeros((40, 44), int)
            for k in range(part, min(part + 16, 2**level)):
                moved = np.roll(steps[block * spacing + k], (-ys[k], -xs[k]), (0, 1))
                total += moved
            expected += total >> 1 if level == 5 else total
        np.testing.assert_array_equal(got[block][rows, columns], expected[rows, columns])


def test_paths_of_the_tree_are_straight() -> None:
    """Index i stands for 2 i cells in 2**level frames; whole cells make paths stray a little."""
    for level in (4, 5):
        t = (np.arange(2**level) + 0.5) / 2**level - 0.5
        for index in range(-20, 21):
            path = np.array(position(level, index))
            slope, middle = np.polyfit(t, path, 1)
            assert abs(slope - 2 * index) < 2.0
            assert abs(middle - 0.5 * (index % 2)) < 1.5
            assert np.abs(path - middle - slope * t).max() < 2.2


@pytest.mark.parametrize("trail", [False, True])
@pytest.mark.parametrize(("level", "y0", "x0", "ny", "nx"), [(3, -5, 2, 5, 4), (5, 4, -9, 3, 9)])
def test_a_patch_holds_the_sums_of_each_velocity(
    level: int, y0: int, x0: int, ny: int, nx: int, trail: bool
) -> None:
    cells = torch.from_numpy(noise(64, (30, 34), 11))
    tree = VelocityTree(cells, trail=trail, blur=BLUR, fastest=16)
    patch = tree.patch(level, y0, x0, ny, nx)
    for iy in range(ny):
        for ix in range(nx):
            got = patch.sums[iy, ix][:, tree.inner].clone()
            single = VelocityTree(cells, trail=trail, blur=BLUR, fastest=16)
            expected = single.compute(level, y0 + iy, x0 + ix).flatten(1)
            if level >= 4:
                expected = (expected + level % 2) >> 1
            assert (got == expected).all()


def test_the_best_of_a_tile_is_the_largest_of_its_sums() -> None:
    """A quarter of the sums is made; all of them, one by one, have the same maximum."""
    cells = torch.from_numpy(noise(64, (30, 34), 12))
    tree = VelocityTree(cells, trail=False, blur=BLUR, fastest=32)
    for level, corner in ((4, (8, -16)), (6, (-8, 0))):
        (y0, ny), (x0, nx) = (below(i, TILE) for i in corner)
        lower = tree.patch(level - 1, y0, x0, ny, nx)
        blocks = halves_of(level, lower.sums.shape[2])
        best = torch.empty((blocks.count, 30, 34), dtype=torch.int8)
        best_of_tile(lower, blocks, corner, best)
        single = VelocityTree(cells, trail=False, blur=BLUR, fastest=32)
        expected = torch.full_like(best, -128)
        for iy in range(corner[0], corner[0] + TILE):
            for ix in range(corner[1], corner[1] + TILE):
                expected = torch.maximum(expected, single.compute(level, iy, ix))
        assert (best == expected).all()


def test_tree_is_the_same_in_any_order() -> None:
    cells = torch.from_numpy(noise(32, (20, 24), 2))
    tree = VelocityTree(cells, trail=False, blur=BLUR, fastest=16)
    first = tree.compute(5, 6, -4).clone()
    for iy in range(-8, 9):
        tree.compute(5, iy, 3)
    assert (tree.compute(5, 6, -4) == first).all()


@pytest.mark.parametrize("limit", [1, 5, 40, 127])
def test_hits_are_those_of_numpy(limit: int) -> None:
    values = np.random.default_rng(3).integers(limit - 128, 128, (4, 7, 9)).astype(np.int8)
    values[0, 0, 0], values[3, 6, 8] = limit, 127
    flat = values.astype(int).ravel()
    around = [dy * 9 + dx for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    near = np.clip(np.arange(flat.size)[:, None] + around, 0, flat.size - 1)
    peak = (flat >= limit) & (flat[near] <= flat[:, None]).all(1)
    got = hits(torch.from_numpy(values.copy()), limit).numpy()
    np.testing.assert_array_equal(got, np.argwhere(peak.reshape(values.shape)))


@pytest.mark.parametrize(("lo", "hi"), [(-3, 4), (0, 0), (-1, 0), (-5, 6), (2, 9)])
def test_z_order_visits_all_once(lo: int, hi: int) -> None:
    seen = list(z_order(lo, hi))
    assert sorted(seen) == [(y, x) for y in range(lo, hi + 1) for x in range(lo, hi + 1)]


def test_tiles_hold_each_velocity_once() -> None:
    squares = regions(POINTS_16, 2 * TILE)
    corners = [corner for square in squares for corner in square.tiles]
    velocities = [v for corner in corners for v in tile_velocities(POINTS_16, *corner)]
    assert len(velocities) == len(set(velocities))
    speed = np.hypot(*np.mgrid[-30:31, -30:31]) / 8
    assert len(velocities) == ((speed >= 0.2) & (speed < 1.5)).sum()


def test_steps_of_one_sigma() -> None:
    got = quantise(torch.tensor([0.0, 0.24, 0.26, -1.0, 2.9, 50.0, -50.0]))
    limit = CLIP_SIGMA * STEPS_PER_SIGMA
    expected = [round(v * STEPS_PER_SIGMA) for v in (0, 0.24, 0.26, -1, 2.9)]
    assert got.tolist() == [*expected, limit, -limit]


@pytest.mark.parametrize("level", [1, 3, 4, 5])
def test_noise_of_the_sums(level: int) -> None:
    """Sums have the noise that they are said to have, but for the clipping and the rounding."""
    cells = torch.from_numpy(noise(64, (60, 80), 4))
    tree = VelocityTree(cells, trail=False, blur=BLUR, fastest=16)
    sums = tree.compute(level, 3, 5)[:, 10:-10, 10:-10]
    assert float(sums.float().std()) == pytest.approx(level_sigma(level), rel=0.06)
    if level >= 4:  # where it is used; sums of two frames take too few values
        assert robust_spread(sums.contiguous()) == pytest.approx(level_sigma(level), rel=0.08)


@pytest.mark.parametrize(("vx", "vy"), [(2.0, 0.0), (0.0, -2.0), (4.0, 2.0), (-6.0, 6.0)])
def test_noise_of_trails(vx: float, vy: float) -> None:
    cells = noise(16, (80, 100), 5)
    fine = torch.from_numpy(np.round(cells * FINE_STEPS)).to(torch.int16)
    work = [torch.empty_like(fine) for _ in range(2)]
    out = torch.empty_like(fine, dtype=torch.int8)
    filtered = trailed(fine, vx, vy, BLUR, work, out)[:, 12:-12, 12:-12].float()
    # smoothed by BLUR, noise in cells d apart correlates by exp(-d^2 / 4 BLUR^2)
    assert float(filtered.std()) == pytest.approx(STEPS_PER_SIGMA, rel=0.12)
    assert trail_sigma(0.0, 0.0, BLUR) == 1.0


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("tier", "vx", "vy", "snr"),
    [
        (POINTS_16, 0.8, -0.5, 2.0),
        (POINTS_32, 0.3, 0.25, 1.4),
        (POINTS_32, -0.12, 0.0, 1.4),
        (POINTS_64, 0.2, -0.15, 1.2),
    ],
)
def test_a_planted_path_is_harvested(tier: Tier, vx: float, vy: float, snr: float) -> None:
    cells = noise(64, (60, 80), 6)
    plant(cells, 40.0, 30.0, vx, vy, snr)
    found = join(search(torch.from_numpy(cells), [tier], blur=BLUR))
    true = near(found, 31.5, 40.0, 30.0, vx, vy)
    assert true.any()
    best = found.take(np.array([found.score.argmax()]))
    assert near(best, 31.5, 40.0, 30.0, vx, vy).all()
    # two blocks, where there are two, see twice the frames; quantised paths lose some of it
    expected = snr * np.sqrt(min(2 * 2**tier.level, len(cells)))
    assert 0.5 * expected < best.score[0] < 1.1 * expected


def test_a_planted_trail_is_harvested() -> None:
    cells = noise(32, (90, 120), 7)
    vx, vy, snr = 2.2, 1.0, 3.0
    rows, columns = np.mgrid[:90, :120]
    for t, frame in enumerate(cells):
        light = np.zeros_like(frame)
        for f in np.linspace(-0.45, 0.45, 10):
            k = t - 15.5 + f
            light += np.exp(
                -((columns - 60 - vx * k) ** 2 + (rows - 45 - vy * k) ** 2) / (2 * 0.95**2)
            )
        frame += snr * light / light.max()
    found = join(search(torch.from_numpy(cells), [TRAILS_16], blur=BLUR))
    assert near(found, 15.5, 60.0, 45.0, vx, vy).any()
    assert (found.trail == 1).all()


def test_noise_alone_makes_few_candidates() -> None:
    cells = torch.from_numpy(noise(64, (60, 80), 8))
    found = join(search(cells, [POINTS_16, POINTS_32], blur=BLUR))
    # some 1.8e6 sums: 4.4 sigma and more is reached by one in 2e5, and neighbours go together
    assert len(found) < 400
    assert len(found) == 0 or found.score.max() < 6.5


def test_threads_find_the_same() -> None:
    cells = noise(32, (40, 48), 9)
    plant(cells, 24.0, 20.0, 0.5, 0.3, 2.5)
    one = join(search(torch.from_numpy(cells), [POINTS_16], blur=BLUR))
    torch.set_num_threads(3)
    three = join(search(torch.from_numpy(cells), [POINTS_16], blur=BLUR))
    assert len(one) and len(one) == len(three)
    order = [np.lexsort((c.vx, c.vy, c.x, c.y, c.t)) for c in (one, three)]
    np.testing.assert_array_equal(one.take(order[0]).score, three.take(order[1]).score)


def test_one_block_and_none() -> None:
    cells = noise(16, (40, 48), 10)
    plant(cells, 24.0, 20.0, 0.5, 0.3, 3.0)
    found = join(search(torch.from_numpy(cells), [POINTS_16], blur=BLUR))
    assert near(found, 7.5, 24.0, 20.0, 0.5, 0.3).any()
    assert len(join([])) == 0
