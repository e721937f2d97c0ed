"""Shift and stack: every straight path through a window of frames, summed before any threshold.

A mover too faint for any single frame is found by adding the frames along its path. `velocity`
makes the sums of a patch of velocities at a time; here each place keeps the best velocity of a
tile, and those that stand out are looked at together with the block of frames before and after.
Some 1e10 paths take seconds on one core, and on a GPU the same code runs.

Cells: the frames arrive binned (see ``prepare``), in units of their noise, one cell about 1.6
sigma of the point spread function.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, hypot, sqrt

import numpy as np
import torch
from torch import Tensor

from warte.sky.find.velocity import (
    Halves,
    Patch,
    VelocityTree,
    block_spacing,
    halves_of,
    level_sigma,
)

TILE = 8  # velocities are harvested in tiles of TILE x TILE
SIDES = (16, 8)  # sums of so many velocities each way are made together, as memory allows
PATCH_BYTES = 150_000_000  # memory of the largest patch
ONE_THREAD_CELLS = 20_000_000  # windows with more cells are searched by one thread, to save memory
STRIP = 80_000  # cells whose sums of a tile are made at a time: they stay in the cache


@dataclass(frozen=True)
class Candidates:
    """Paths whose sum passed the threshold, in cells and frames of the window.

    Arrays of length n: ``t`` centre time (frames), ``x``, ``y`` position then (cells), ``vx``,
    ``vy`` (cells per frame), ``frames`` summed, ``score`` (sigma), ``trail`` (0 point, 1 trail).
    """

    t: np.ndarray
    x: np.ndarray
    y: np.ndarray
    vx: np.ndarray
    vy: np.ndarray
    frames: np.ndarray
    score: np.ndarray
    trail: np.ndarray

    def __len__(self) -> int:
        return len(self.t)

    def take(self, index: np.ndarray) -> Candidates:
        """The candidates at ``index`` (positions or a mask)."""
        return Candidates(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


def join(parts: list[Candidates]) -> Candidates:
    """All candidates of several searches in one table."""
    names = list(Candidates.__dataclass_fields__)
    if not parts:
        return Candidates(*(np.zeros(0, np.float32) for _ in names))
    return Candidates(*(np.concatenate([getattr(p, n) for p in parts]) for n in names))


def robust_spread(values: Tensor) -> float:
    """Standard deviation of the values that are not zero, from their mean size.

    Not from quantiles: 8-bit sums take few values.
    """
    sample = values.reshape(-1)[:: max(1, values.numel() // 200_000)].float()
    sample = sample[sample != 0]
    if len(sample) < 8:
        return 1.0
    size = sample.abs()
    return max(1.2533 * float(size.clamp_max(4 * size.mean()).mean()), 1e-6)


def z_order(lo: int, hi: int) -> Iterator[tuple[int, int]]:
    """(iy, ix) of tiles from lo to hi in Z order, so that neighbours in velocity come together."""
    side = 1
    while side < hi - lo + 1:
        side *= 2
    for code in range(side * side):
        iy = ix = 0
        for bit in range(side.bit_length()):
            ix |= ((code >> (2 * bit)) & 1) << bit
            iy |= ((code >> (2 * bit + 1)) & 1) << bit
        if lo + iy <= hi and lo + ix <= hi:
            yield lo + iy, lo + ix


def hits(best: Tensor, limit: int) -> Tensor:
    """(n, 3) indices where int8 sums reach ``limit``, eight at a time; overwrites ``best``.

    Sums below ``limit`` - 128 do not occur among the best of a tile.
    """
    flat = best.view(-1)
    whole = len(flat) // 8 * 8
    flat += 128 - limit  # reaching the limit overflows into the sign bit
    packs = (flat[:whole].view(torch.int64) & -0x7F7F7F7F7F7F7F80).nonzero()
    inside = (packs * 8 + torch.arange(8, device=best.device)).view(-1)
    inside = torch.cat([inside, torch.arange(whole, len(flat), device=best.device)])
    inside = inside[flat[inside] < 0]
    inside = inside[is_peak(flat.view(torch.uint8), inside, best.shape[-1])]
    width, height = best.shape[-1], best.shape[-2]
    row = inside // width
    return torch.stack([row // height, row % height, inside % width], dim=1)


def is_peak(flat: Tensor, at: Tensor, width: int) -> Tensor:
    """Whether ``flat`` (pictures of ``width`` as one line, uint8) is at ``at`` (n,) as high as
    around it: the neighbours of a peak lead to the same path."""
    around = [dy * width + dx for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    near = (at + torch.tensor(around, device=at.device)[:, None]).clamp_(0, len(flat) - 1)
    return (flat[near] <= flat[at]).all(dim=0)


@dataclass(frozen=True)
class Tier:
    """One range of speeds and the number of frames summed there."""

    level: int  # 2**level frames
    speed_min: float  # cells per frame
    speed_max: float  # cells per frame
    hit: float  # sigma at which a sum is looked at
    pair: float  # sigma that it must reach together with the block before or after
    alone: float  # or sigma that it must reach alone
    trail: bool  # movers trail over the whole frame interval
    keep: int  # so many of the best places are looked at more closely

    @property
    def fastest(self) -> int:
        """The largest velocity index."""
        return ceil(self.speed_max * 2**self.level / 2) + TILE

    def holds(self, iy: int, ix: int) -> bool:
        """Whether a velocity index belongs to the range of speeds."""
        return self.speed_min <= hypot(iy, ix) / (2**self.level / 2) < self.speed_max


@dataclass(frozen=True)
class Region:
    """A square of velocities whose sums are made together: its corner and its tiles' corners."""

    y0: int
    x0: int
    side: int
    tiles: tuple[tuple[int, int], ...]


def regions(tier: Tier, side: int) -> list[Region]:
    """Squares of ``side`` x ``side`` velocities that hold those of the tier.

    Each is followed by its mirror image, which needs the same trails, seen from the other end.
    """
    number = ceil(tier.fastest / side)
    out = []
    for ny, nx in z_order(-number, number - 1):
        if ny < 0:
            continue
        for sy, sx in ((ny * side, nx * side), (-(ny + 1) * side, -(nx + 1) * side)):
            corners = tuple(
                (y, x)
                for y in range(sy, sy + side, TILE)
                for x in range(sx, sx + side, TILE)
                if len(tile_velocities(tier, y, x))
            )
            if corners:
                out.append(Region(sy, sx, side, corners))
    return out


def tile_velocities(tier: Tier, y0: int, x0: int) -> list[tuple[int, int]]:
    """Velocity indices (iy, ix) of the tier in the tile with this corner."""
    return [
        (iy, ix) for iy in range(y0, y0 + TILE) for ix in range(x0, x0 + TILE) if tier.holds(iy, ix)
    ]


def harvest(tree: VelocityTree, tier: Tier, some: list[Region]) -> Candidates:
    """All paths of the tier over its thresholds; of each place the best velocity of a tile."""
    # the noise is measured at a typical speed: at rest the sums hold what is left of the stars
    typical = round((tier.speed_min + tier.speed_max) * 2**tier.level / 4 / sqrt(2))
    like = tree.compute(tier.level, typical, typical)
    if not len(like):
        return join([])
    sigma = max(level_sigma(tier.level), robust_spread(like))
    best = torch.empty_like(like)
    found: list[Candidates] = []
    for region in some:
        number = region.side // 2 + 1
        lower = tree.patch(tier.level - 1, region.y0 // 2, region.x0 // 2, number, number)
        blocks = halves_of(tier.level, lower.sums.shape[2])
        for corner in region.tiles:
            best_of_tile(lower, blocks, corner, best)
            hit = hits(best, ceil(tier.hit * sigma))
            if len(hit):
                sums = Sums(lower, blocks, tree.height, tree.width)
                found.append(judge(hit, sums, corner, region, tier, sigma))
    return join(found)


def best_of_tile(lower: Patch, blocks: Halves, corner: tuple[int, int], best: Tensor) -> None:
    """The largest sum of each place over a tile of velocities, into ``best`` (blocks, H, W)."""
    flat = best.view(len(best), -1)
    size = flat.shape[1]
    length = min(size, STRIP)
    room = best.new_empty(TILE // 2 * (TILE + 1) * length)
    for number in range(len(best)):
        for start in range(0, size, length):
            part = slice(start, min(size, start + length))
            sums = lower.best(*corner, TILE, blocks.only(number), part, room)
            torch.amax(sums, 0, out=flat[number, part])


@dataclass(frozen=True)
class Sums:
    """Sums of one tier's level at single places: those of the level below, and how to pair them."""

    lower: Patch
    blocks: Halves
    height: int
    width: int

    def at(self, block: Tensor, y: Tensor, x: Tensor, index: Tensor) -> Tensor:
        """Sums (n,) int16 at places (n,) and velocities ``index`` (n, 2: iy, ix)."""
        half = index // 2
        first = self.lower.values(-1, self.blocks, block, y, x, half)
        return first + self.lower.values(1, self.blocks, block, y, x, index - half)

    def over(self, block: Tensor, y: Tensor, x: Tensor, tile: Tensor) -> Tensor:
        """Sums (k, n) int16 at places (n,) and each of the velocities ``tile`` (k, 2).

        Many velocities share a half, which is fetched once.
        """
        total = None
        for side, half in ((-1, tile // 2), (1, tile - tile // 2)):
            few, which = torch.unique(half, dim=0, return_inverse=True)
            value = self.lower.values(side, self.blocks, block, y, x, few[:, None])[which]
            total = value if total is None else total.add_(value)
        assert total is not None
        return total

    def inside(self, y: Tensor, x: Tensor, index: Tensor) -> Tensor:
        """Whether both half centres of such sums lie in the picture, and their middle too."""
        ok = torch.ones_like(y, dtype=torch.bool)
        for at, i, size in ((y, index[..., 0], self.height), (x, index[..., 1], self.width)):
            for centre in (at, at - i // 2, at + i - i // 2):
                ok = ok & (centre >= 0) & (centre < size)
        return ok


def judge(
    hit: Tensor, sums: Sums, corner: tuple[int, int], region: Region, tier: Tier, sigma: float
) -> Candidates:
    """Candidates among hits (n, 3: block, y, x): alone, or with the block before or after."""
    tile = torch.tensor(tile_velocities(tier, *corner), device=hit.device)
    block, y, x = hit.T
    score, which = sums.over(block, y, x, tile).max(dim=0)
    own = tile[which]
    real = sums.inside(y, x, own) & (score >= tier.hit * sigma)
    block, y, x, score, own = (v[real] for v in (block, y, x, score, own))
    sum_, other, side = partners(block, y, x, own, sums, region, tier)
    together = (score + sum_) / sqrt(2)
    paired = together >= tier.pair * sigma
    keep = paired | (score >= tier.alone * sigma)
    rows = (v[keep] for v in (block, y, x, score, own, together, paired, other, side))
    return _candidates(*rows, tier=tier, sigma=sigma)


def partners(
    block: Tensor, y: Tensor, x: Tensor, own: Tensor, sums: Sums, region: Region, tier: Tier
) -> tuple[Tensor, Tensor, Tensor]:
    """For each hit the best sum of the block before or after on the same path.

    A path of twice the length with index ``i`` has halves with indices a and b, a + b = i and
    |a - b| <= 1, whose centres are ``i`` cells apart. Returns sums (n,), the partners' indices
    (n, 2) and on which side in time they lie (n,), +1 or -1. Partners at the far side of the
    region's border are not seen.
    """
    step = 2**tier.level // block_spacing(tier.level)
    least = torch.tensor([region.y0, region.x0], device=own.device)
    near = torch.cartesian_prod(*[torch.arange(-1, 2, device=own.device)] * 2)
    mate = own + near[:, None]  # (9, n, 2)
    known = ((mate >= least) & (mate < least + region.side)).all(-1)
    apart = own + mate
    best = torch.zeros(len(block), dtype=torch.int16, device=own.device)
    other, side = own.clone(), torch.ones_like(block)
    for sign in (1, -1):
        there = block + sign * step
        my, mx = y + sign * apart[..., 0], x + sign * apart[..., 1]
        ok = known & (there >= 0) & (there < sums.blocks.count) & sums.inside(my, mx, mate)
        value = torch.zeros_like(my, dtype=torch.int16)
        row, column = torch.nonzero(ok, as_tuple=True)
        place = (there[column], my[row, column], mx[row, column])
        value[row, column] = sums.at(*place, mate[row, column])
        value, which = value.max(dim=0)
        better = value > best
        best = torch.where(better, value, best)
        other = torch.where(better[:, None], own + near[which], other)
        side = torch.where(better, sign, side)
    return best, other, side


def _candidates(
    block: Tensor,
    y: Tensor,
    x: Tensor,
    score: Tensor,
    own: Tensor,
    together: Tensor,
    paired: Tensor,
    other: Tensor,
    side: Tensor,
    *,
    tier: Tier,
    sigma: float,
) -> Candidates:
    """Rows: a single block, or two of them with the centre half way between.

    A sum with an odd index has its centre half a cell further.
    """
    frames = 2**tier.level
    index = torch.where(paired[:, None], own + other, own).float()
    length = torch.where(paired, 2 * frames, frames).float()
    half = torch.where(paired, 0.5 * side, 0.0)
    place = torch.stack([y, x], 1) + 0.5 * (own % 2) + half[:, None] * index
    value = torch.where(paired, together, score.float()) / sigma
    t = block * block_spacing(tier.level) + (frames - 1) / 2 + half * frames
    velocity = 2 * index / length[:, None]
    trail = torch.full_like(value, float(tier.trail))
    columns = (t, place[:, 1], place[:, 0], velocity[:, 1], velocity[:, 0], length, value, trail)
    return Candidates(*(c.float().cpu().numpy() for c in columns))


def search(cells: Tensor, tiers: list[Tier], *, blur: float) -> list[Candidates]:
    """Candidates of each tier; ``blur``: correlation length of the cells' noise (cells).

    On a CPU the velocities are shared out among its threads, where memory allows it.
    """
    alone = cells.device.type != "cpu" or cells.numel() > ONE_THREAD_CELLS
    threads = 1 if alone else torch.get_num_threads()
    jobs = []
    for tier in tiers:
        squares = regions(tier, region_side(cells.numel(), tier))
        cut = [round(k * len(squares) / threads) for k in range(threads + 1)]
        jobs.append([(tier, squares[a:b]) for a, b in pairwise(cut)])

    def work(part: list[tuple[Tier, list[Region]]]) -> list[Candidates]:
        found = []
        for trail in (False, True):  # one tree at a time
            mine = [job for job in part if job[0].trail == trail]
            if mine:
                fastest = max(tier.fastest for tier, _ in mine)
                tree = VelocityTree(cells, trail=trail, blur=blur, fastest=fastest)
                found += [harvest(tree, tier, squares) for tier, squares in mine]
        return found

    if threads == 1:
        return work([job[0] for job in jobs])
    # the velocities are what runs side by side, not the sums within them
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        parts = list(pool.map(work, [[job[k] for job in jobs] for k in range(threads)]))
    return [join(list(of_tier)) for of_tier in zip(*parts, strict=True)]


def region_side(cells: int, tier: Tier) -> int:
    """Velocities each way whose sums are made together, in windows of so many cells."""
    for side in SIDES:
        # blocks of the level below times the cells of a frame: at most all frames in pairs
        frames_each = min(2 ** (tier.level - 1), 16)
        if (side // 2 + 1) ** 2 * cells / frames_each <= PATCH_BYTES:
            return side
    return SIDES[-1]
