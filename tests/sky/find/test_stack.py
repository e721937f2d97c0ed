"""Shift and stack against sums written out: numpy rolls, loops, and planted paths."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise, product

import cv2
import numpy as np
import pytest
import torch

from warte.sky.find.compiled import MOST, TILE
from warte.sky.find.look import (
    Hits,
    follow,
    hits,
    judge,
    look_by_tensors,
    look_compiled,
    path_table,
)
from warte.sky.find.stack import Candidates, join, robust_spread, search, thread_count
from warte.sky.find.tier import Region, Tier, block_starts, regions, strips, z_order
from warte.sky.find.velocity import (
    CLIP_SIGMA,
    FINE_STEPS,
    SIDE,
    STEPS_PER_SIGMA,
    Frames,
    VelocityTree,
    doubled,
    level_sigma,
    middles,
    quantise,
    trail_moves,
    trail_sigma,
    trailed,
    trailed_by_tensors,
)

BLUR = 0.65
POINTS_16 = Tier(4, 0.2, 1.5, 3.6, 4.4, 4.7, trail=False, keep=2000)
POINTS_32 = Tier(5, 0.1, 0.7, 3.7, 4.6, 5.0, trail=False, keep=2000)
TRAILS_16 = Tier(4, 2.0, 3.0, 3.6, 4.4, 4.7, trail=True, keep=2000)
POINTS_64 = Tier(6, 0.1, 0.5, 3.7, 4.6, 5.0, trail=False, keep=2000)
TRAILS_32 = Tier(5, 2.0, 3.0, 3.6, 4.4, 4.7, trail=True, keep=2000)
WIDE_16 = Tier(4, 2.0, 6.0, 3.6, 4.4, 4.7, trail=True, keep=2000, wide=True, long=4.0)


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
    doubled(torch.from_numpy(a), dy, dx, dy // 2, dx // 2, out)
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


def sums(tree: VelocityTree, level: int, iy: int, ix: int, start: int, rows: tuple[int, int]):
    """The sums at one velocity through ``rows``, (rows, W)."""
    lower = tree.halves(level, iy // SIDE * SIDE, ix // SIDE * SIDE, start, rows)
    out = torch.empty((1, 1, 1, lower.size), dtype=torch.int8)
    lower.add(iy, ix, 0, out)
    return out.view(rows[1] - rows[0], -1).numpy()


@pytest.mark.parametrize("level", [2, 3, 4, 5, 6])
@pytest.mark.parametrize(("iy", "ix"), [(0, 0), (1, 0), (5, -3), (-7, 6), (-1, -1), (13, 19)])
@pytest.mark.parametrize("rows", [(0, 60), (17, 31)])
def test_tree_sums_every_path(level: int, iy: int, ix: int, rows: tuple[int, int]) -> None:
    """In the whole picture and in a strip of it, against paths written out."""
    rng = np.random.default_rng(1)
    cells = rng.integers(-3, 4, (64, 60, 70)) / STEPS_PER_SIGMA  # exact in 8 bits
    frames = Frames(torch.from_numpy(cells).float(), trail=False, blur=BLUR, fastest=32)
    tree = VelocityTree(frames)
    steps = np.round(cells * STEPS_PER_SIGMA).astype(int)
    steps = np.pad(steps, ((0, 0), (40, 40), (40, 40)))
    ys, xs = position(level, iy), position(level, ix)
    seen = slice(max(0, -min(xs)), 70 - max(0, *xs))  # beyond, rows run into each other
    for start in {0, min(7, 64 - 2**level), 64 - 2**level}:
        quarters = []
        for part in np.split(np.arange(2**level), 4):
            moved = [np.roll(steps[start + k], (-ys[k], -xs[k]), (0, 1)) for k in part]
            quarters.append(sum(moved)[40 + rows[0] : 40 + rows[1], 40:-40])
        if level >= 3:  # what four of them must not exceed in 8 bits
            quarters = [np.clip(part, -MOST, MOST) for part in quarters]
        got = sums(tree, level, iy, ix, start, rows)
        np.testing.assert_array_equal(got[:, seen], sum(quarters)[:, seen])


def test_paths_of_the_tree_are_straight() -> None:
    """Index i stands for 2 i cells in 2**level frames; whole cells make paths stray a little."""
    for level in (4, 5):
        t = (np.arange(2**level) + 0.5) / 2**level - 0.5
        for index in range(-20, 21):
            path = np.array(position(level, index))
            slope, middle = np.polyfit(t, path, 1)
            assert abs(slope - 2 * index) < 2.0
            assert middle == pytest.approx(float(middles(level, torch.tensor(index))))
            assert np.abs(path - middle - slope * t).max() < 2.2


def region_of(tier: Tier, y0: int, x0: int) -> Region:
    return next(r for r in regions(tier) if (r.y0, r.x0) == (y0, x0))


@pytest.mark.parametrize("tier", [POINTS_16, POINTS_32, TRAILS_16, WIDE_16])
def test_the_best_velocity_of_a_tile_is_kept(tier: Tier) -> None:
    """A quarter of the sums is made; all of them, one by one, have the same maximum."""
    cells = torch.from_numpy(noise(64, (50, 70), 12))
    shape = {"blur": BLUR, "fastest": tier.fastest, "stretch": tier.stretch}
    frames = Frames(cells, trail=tier.trail, **shape)
    limit = 2.5 * level_sigma(tier.level)
    region = regions(tier)[0]
    rows = (5, 45)
    got = judge(VelocityTree(frames), tier, region, 16, rows, limit)
    assert len(got.y) > 20
    single = VelocityTree(frames)
    for corner, held in zip(region.tiles.tolist(), region.held, strict=True):
        every = np.full((TILE, TILE, 40, frames.width), -999)
        for jy, jx in np.argwhere(held):
            iy, ix = corner[0] + jy, corner[1] + jx
            every[jy, jx] = sums(single, tier.level, iy, ix, 16, rows)
        at = got.velocity.numpy() - corner
        here = ((at >= 0) & (at < TILE)).all(1)
        y, x = got.y.numpy()[here] - 5, got.x.numpy()[here]
        jy, jx = at[here].T
        score = got.score.numpy()[here]
        np.testing.assert_array_equal(score, every[jy, jx, y, x])
        np.testing.assert_array_equal(score, every[:, :, y, x].max((0, 1)))
        assert held[jy, jx].all() and (score >= limit).all()


def test_partners_are_followed_along_straight_lines() -> None:
    cells = noise(64, (50, 60), 13)
    frames = Frames(torch.from_numpy(cells), trail=False, blur=BLUR, fastest=POINTS_16.fastest)
    region = region_of(POINTS_16, 0, 0)
    index = torch.tensor([[3, 5], [8, 2], [6, 0]])
    y, x = torch.tensor([20, 25, 30]), torch.tensor([20, 30, 40])
    hit = Hits(torch.tensor([16, 32, 0]), y, x, index, torch.zeros(3))
    mate = index[:, None] + torch.tensor([[0, 0], [1, -1]])
    row = (mate[..., 0] + 1) * (SIDE + 2) + mate[..., 1] + 1
    way = path_table(frames, region, 4)[row]
    steps = quantise(torch.from_numpy(cells)).numpy().astype(int)
    steps = np.pad(steps, ((0, 0), (40, 40), (40, 40)))
    for sign in (1, -1):
        value, which = follow(VelocityTree(frames), POINTS_16, hit, sign, mate, way)
        for n in range(3):
            start = int(hit.start[n]) + 16 * sign
            if start < 0:
                assert value[n] == 0
                continue
            each = []
            for my, mx in mate[n].tolist():
                total = 0
                for t in range(16):
                    part = (t + 0.5) * 2 / 16 - 1
                    py = int(y[n]) + sign * (int(index[n, 0]) + my)
                    px = int(x[n]) + sign * (int(index[n, 1]) + mx)
                    py += round(my * part + np.mean(position(4, my)))
                    px += round(mx * part + np.mean(position(4, mx)))
                    total += steps[start + t, py + 40, px + 40]
                each.append(total)
            assert value[n] == max(each) and each[which[n]] == max(each)


@pytest.mark.parametrize("tier", [POINTS_16, POINTS_32, POINTS_64, TRAILS_16, TRAILS_32, WIDE_16])
@pytest.mark.parametrize("strip", [700, 20_000])
def test_compiled_is_what_pytorch_makes(
    tier: Tier, strip: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last hit, in one strip and in several, in all regions."""
    monkeypatch.setattr("warte.sky.find.tier.STRIP_CELLS", strip)
    monkeypatch.setattr("warte.sky.find.tier.STRIP_ROWS", 4)
    cells = noise(96, (50, 70), 12)
    cells[:, 20:24, 30:34] -= 9.0  # sums that 8 bits would not hold
    cells[:, 30:33, 50:52] += 9.0
    shape = {"blur": BLUR, "fastest": tier.fastest, "stretch": tier.stretch}
    frames = Frames(torch.from_numpy(cells), trail=tier.trail, **shape)
    limit = 2.8 * level_sigma(tier.level)
    starts = block_starts(96, 2**tier.level)
    trees = VelocityTree(frames), VelocityTree(frames)
    number = together = 0
    for region in regions(tier):
        hit, mates = look_by_tensors(trees[0], tier, region, starts, limit)
        hit_2, mates_2 = look_compiled(trees[1], tier, region, starts, limit)
        rows, rows_2 = (
            torch.stack([h.start, h.y, h.x, *h.velocity.T, h.score, m.sums.long()], 1).numpy()
            for h, m in ((hit, mates), (hit_2, mates_2))
        )
        order, order_2 = np.lexsort(rows.T), np.lexsort(rows_2.T)
        np.testing.assert_array_equal(rows[order], rows_2[order_2])
        number += len(rows)
        together += int((mates_2.sums > 0).sum())
        assert (mates_2.velocity - hit_2.velocity).abs().max() <= 1 if len(rows) else True
    assert number > 100
    assert together > 50 or tier.trail or tier.level == 6  # these leave so small a picture


def test_strips_hold_the_middles_of_all_paths() -> None:
    frames = Frames(torch.zeros(16, 400, 500), trail=False, blur=BLUR, fastest=80)
    none = np.zeros((0, 2))
    for y0, first, end in ((0, 0, 400), (-16, 0, 400), (48, 12, 388), (-64, 12, 388)):
        rows = strips(frames, Region(y0, 0, none, none))
        assert rows[0][0] == first and rows[-1][1] == end and len(rows) in (24, 25)
        assert all(a[1] == b[0] for a, b in pairwise(rows))
    low = Frames(torch.zeros(16, 20, 500), trail=False, blur=BLUR, fastest=80)
    assert strips(low, Region(80, 0, none, none)) == []
    wide = Frames(torch.zeros(2, 96, 2000), trail=False, blur=BLUR, fastest=8)
    rows = strips(wide, Region(0, 0, none, none))  # what lies beside low strips would cost more
    assert [b - a for a, b in rows] == [16] * 6


@pytest.mark.parametrize("limit", [1, 5, 40, 127])
def test_hits_are_those_of_numpy(limit: int) -> None:
    values = np.random.default_rng(3).integers(limit - 128, 128, (4, 63)).astype(np.int8)
    values[0, 0], values[3, 62] = limit, 127
    flat = values.astype(int).ravel()
    around = [dy * 9 + dx for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    place = np.arange(flat.size)[:, None]
    near = np.where((place + around) // 63 == place // 63, place + around, place)
    peak = (flat >= limit) & (flat[near] <= flat[:, None]).all(1)
    got = torch.stack(hits(torch.from_numpy(values.copy()), limit, 9), 1).numpy()
    np.testing.assert_array_equal(got, np.argwhere(peak.reshape(values.shape)))


@pytest.mark.parametrize(("lo", "hi"), [(-3, 4), (0, 0), (-1, 0), (-5, 6), (2, 9)])
def test_z_order_visits_all_once(lo: int, hi: int) -> None:
    seen = list(z_order(lo, hi))
    assert sorted(seen) == [(y, x) for y in range(lo, hi + 1) for x in range(lo, hi + 1)]


def velocities(tier: Tier) -> set[tuple[float, float]]:
    """Those of all tiles, cells per frame (y, x); none is there twice."""
    out: list[tuple[float, float]] = []
    for region in regions(tier):
        for corner, held in zip(region.tiles, region.held, strict=True):
            index = (np.argwhere(held) + corner) * [1, tier.stretch] * 2 / 2**tier.level
            out += [(vx, vy) if tier.across else (vy, vx) for vy, vx in index.tolist()]
    assert len(out) == len(set(out))
    return set(out)


def test_tiles_hold_each_velocity_once() -> None:
    speed = np.hypot(*np.mgrid[-30:31, -30:31]) / 8
    assert len(velocities(POINTS_16)) == ((speed >= 0.2) & (speed < 1.5)).sum()


def test_long_trails_are_looked_for_along_their_longer_side() -> None:
    """Plain tiers and both wide ones share out the velocities: none too far from all."""
    plain = replace(WIDE_16, wide=False)
    tiers = (plain, WIDE_16, replace(WIDE_16, across=True))
    each = [velocities(tier) for tier in tiers]
    assert all(max(abs(vy), abs(vx)) < 4 for vy, vx in each[0])
    assert all(abs(vx) >= max(4, abs(vy)) for vy, vx in each[1])
    assert {(vx, vy) for vy, vx in each[1]} == each[2]
    known = np.array(sorted(set().union(*each)))
    grid = np.arange(-48, 49) / 8
    for vy in grid:
        for vx in grid:
            if 2.0 <= np.hypot(vy, vx) < 5.8:
                apart = np.abs(known - [vy, vx])
                assert (apart.max(1) <= 1 / 8).any()


def test_steps_of_one_sigma() -> None:
    got = quantise(torch.tensor([0.0, 0.24, 0.26, -1.0, 2.9, 50.0, -50.0]))
    limit = CLIP_SIGMA * STEPS_PER_SIGMA
    expected = [round(v * STEPS_PER_SIGMA) for v in (0, 0.24, 0.26, -1, 2.9)]
    assert got.tolist() == [*expected, limit, -limit]


@pytest.mark.parametrize("level", [3, 4, 5])
def test_noise_of_the_sums(level: int) -> None:
    """Sums have the noise that they are said to have, but for the clipping and the rounding."""
    cells = torch.from_numpy(noise(64, (60, 80), 4))
    tree = VelocityTree(Frames(cells, trail=False, blur=BLUR, fastest=16))
    starts = range(0, 64, 2**level)
    got = np.stack([sums(tree, level, 3, 5, start, (10, 50))[:, 10:-10] for start in starts])
    assert float(got.std()) == pytest.approx(level_sigma(level), rel=0.06)
    if level >= 4:  # where it is used; sums of few frames take too few values
        spread = robust_spread(torch.from_numpy(got))
        assert spread == pytest.approx(level_sigma(level), rel=0.08)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(("vx", "vy"), [(2.0, 0.0), (4.0, -2.0), (-6.0, 6.0), (5.0, 1.0)])
def test_trails_are_sums_along_a_line_in_their_own_noise(vx: float, vy: float, wide: bool) -> None:
    cells = noise(16, (80, 100), 5)
    stretch = 2 if wide else 1
    fine = np.round(cells * FINE_STEPS).astype(np.int16)
    if wide:
        fine = fine[..., 0::2] + fine[..., 1::2]
    moves = trail_moves(vx, vy, stretch)
    sigma = trail_sigma(moves, stretch, BLUR)
    out = torch.empty(2, *fine.shape, dtype=torch.int8)
    trailed(torch.from_numpy(fine), moves, sigma, out[0])
    trailed_by_tensors(torch.from_numpy(fine), moves, sigma, out[1])
    assert out[0].equal(out[1])
    got = out[0].numpy()
    # smoothed by BLUR, noise in cells d apart correlates by exp(-d^2 / 4 BLUR^2)
    inner = got[:, 12:-12, 12:-12].astype(float)
    assert inner.std() == pytest.approx(STEPS_PER_SIGMA, rel=0.08)
    samples = np.zeros((1, 2), int)
    for dy, dx, by, bx in moves:
        ahead = np.array([dy - by, dx - bx])
        samples = np.concatenate([samples - [by, bx], samples + ahead])
    total = sum(np.roll(fine.astype(int), tuple(-s), (1, 2)) for s in samples)
    expected = np.clip(np.round(total * STEPS_PER_SIGMA / (FINE_STEPS * sigma)), -6, 6)
    assert (np.abs(got - expected)[:, 15:-15, 15:-15] <= 1).all()
    assert (np.abs(samples.mean(0)) <= 0.5).all()
    # with the last sample's own width, the trail is as long as the motion
    reach = np.ptp(samples, axis=0) * (1 + 1 / max(1, len(samples) - 1)) * [1, stretch]
    if moves:
        assert np.abs(reach - np.abs([vy, vx])).max() <= 1.5 * stretch
    assert trail_sigma([], 1, BLUR) == 1.0


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


@pytest.mark.parametrize(
    ("tier", "vx", "vy"),
    [
        (TRAILS_16, 2.2, 1.0),
        (WIDE_16, 4.7, -1.3),
        (WIDE_16, -4.3, 3.9),
        (replace(WIDE_16, across=True), 0.6, 5.2),
    ],
)
def test_a_planted_trail_is_harvested(tier: Tier, vx: float, vy: float) -> None:
    cells = noise(32, (190, 220), 7)
    snr = 2.5
    rows, columns = np.mgrid[:190, :220]
    for t, frame in enumerate(cells):
        light = np.zeros_like(frame)
        for f in np.linspace(-0.475, 0.475, 20):
            k = t - 15.5 + f
            light += np.exp(
                -((columns - 110 - vx * k) ** 2 + (rows - 95 - vy * k) ** 2) / (2 * 0.95**2)
            )
        frame += snr * light / light.max()
    found = join(search(torch.from_numpy(cells), [tier], blur=BLUR))
    true = near(found, 15.5, 110.0, 95.0, vx, vy)  # at their ends trails are blunt
    assert true.any() and true[found.score.argmax()]
    assert (found.trail == 1).all()
    best = found.take(np.flatnonzero(true))
    assert best.score.max() == found.score.max() > 0.75 * snr * np.sqrt(32)


def test_blocks_searched_before_are_partners_only() -> None:
    cells = noise(64, (60, 80), 14)
    plant(cells, 40.0, 30.0, 0.5, -0.4, 2.5)
    every = join(search(torch.from_numpy(cells), [POINTS_16], blur=BLUR))
    later = join(search(torch.from_numpy(cells), [POINTS_16], blur=BLUR, known=47))
    middle = every.t - every.t % 16
    assert {0, 16, 32} & set(middle) and len(later) < len(every)
    # the third block is the first that is not known to its end; it may join the second
    assert later.t.min() >= 31.5
    assert near(later, 31.5, 40.0, 30.0, 0.5, -0.4).any()
    for known, some in ((59, True), (60, False), (64, False)):  # a quarter must be new
        found = join(search(torch.from_numpy(cells), [POINTS_16], blur=BLUR, known=known))
        assert (len(found) > 0) == some


def test_noise_alone_makes_few_candidates() -> None:
    cells = torch.from_numpy(noise(64, (60, 80), 8))
    found = join(search(cells, [POINTS_16, POINTS_32], blur=BLUR))
    # some 1.8e6 sums: 4.4 sigma and more is reached by one in 2e5, and neighbours go together
    assert len(found) < 400
    assert len(found) == 0 or found.score.max() < 6.5


def test_many_threads_are_not_given_more_memory_than_there_is() -> None:
    small = Frames(torch.zeros(16, 40, 50), trail=True, blur=BLUR, fastest=80)
    assert thread_count(small, 16) == 16
    large = Frames(torch.zeros(64, 540, 960), trail=True, blur=BLUR, fastest=80)
    assert thread_count(large, 16) == 3
    points = Frames(torch.zeros(64, 540, 960), trail=False, blur=BLUR, fastest=80)
    assert thread_count(points, 16) == 16


def test_an_error_on_a_thread_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr("warte.sky.find.stack.harvest", fails)
    torch.set_num_threads(2)
    with pytest.raises(MemoryError, match="no room"):
        search(torch.from_numpy(noise(32, (40, 48), 9)), [POINTS_16], blur=BLUR)


def test_threads_find_the_same() -> None:
    cells = noise(32, (40, 48), 9)
    plant(cells, 24.0, 20.0, 0.5, 0.3, 2.5)
    one = join(search(torch.from_numpy(cells), [POINTS_16], blur=BLUR))
    torch.set_num_threads(3)
    three = join(search(torch.from_numpy(cells), [POINTS_16], blur=BLUR))
    assert len(one) and len(one) == len(three)
    order = [np.lexsort((c.vx, c.vy, c.x, c.y, c.t)) for c in (one, three)]
    np.testing.assert_array_equal(one.take(order[0]).score, three.take(order[1]).score)


def test_blocks_overlap_and_reach_the_end() -> None:
    assert block_starts(96, 32) == [0, 21, 43, 64]
    assert block_starts(54, 32) == [0, 22] and block_starts(128, 32) == [0, 24, 48, 72, 96]
    for count, length in product((16, 33, 64, 96, 100, 299), (16, 32, 64)):
        starts = block_starts(count, length)
        if count < length:
            assert starts == []
            continue
        assert starts[0] == 0 and starts[-1] == count - length
        assert all(0 < b - a <= 3 * length / 4 + 1 for a, b in pairwise(starts))
    assert block_starts(16, 16) == [0] and block_starts(15, 16) == []
    # a mover that is there in the last frames only, which fill no block of their own
    cells = noise(48, (60, 80), 15)
    plant(cells[24:], 40.0, 30.0, 0.3, 0.25, 2.2)
    found = join(search(torch.from_numpy(cells), [POINTS_32], blur=BLUR))
    assert near(found, 35.5, 40.0, 30.0, 0.3, 0.25).any()


@pytest.mark.parametrize("threads", [1, 3])
def test_a_range_between_two_velocities_finds_nothing(threads: int) -> None:
    narrow = replace(POINTS_16, speed_min=0.502, speed_max=0.51)
    assert regions(narrow) == ()
    torch.set_num_threads(threads)
    (found,) = search(torch.from_numpy(noise(32, (40, 48), 9)), [narrow], blur=BLUR)
    assert len(found) == 0


def test_one_block_and_none() -> None:
    cells = noise(16, (40, 48), 10)
    plant(cells, 24.0, 20.0, 0.5, 0.3, 3.0)
    found = join(search(torch.from_numpy(cells), [POINTS_16], blur=BLUR))
    assert near(found, 7.5, 24.0, 20.0, 0.5, 0.3).any()
    assert len(join([])) == 0
