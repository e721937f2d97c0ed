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
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, inf, sqrt
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from warte.sky.find.threads import on_threads
from warte.sky.find.velocity import (
    HALVED_LEVEL,
    SIDE,
    Frames,
    Patch,
    VelocityTree,
    level_sigma,
    middles,
)

TILE = 8  # velocities are harvested in tiles of TILE x TILE
STRIP_CELLS = 80_000  # cells of a strip whose sums are made at a time: they stay in the cache
CHUNK = 4096  # paths that are followed at once
ALL_TRAILS_BYTES = 500_000_000  # memory of the trailed frames of all threads, where one needs less


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


def hits(best: Tensor, limit: int, width: int) -> tuple[Tensor, Tensor]:
    """Tiles and places where the best sums (tiles, cells) int8 reach ``limit`` and are as high as
    around them, each (n,); overwrites ``best``. ``width``: of the picture.

    Sums below ``limit`` - 128 do not occur among the best of a tile.
    """
    flat = best.view(-1)
    whole = len(flat) // 8 * 8
    flat += 128 - limit  # reaching the limit overflows into the sign bit
    packs = (flat[:whole].view(torch.int64) & -0x7F7F7F7F7F7F7F80).nonzero()
    inside = (packs * 8 + torch.arange(8, device=best.device)).view(-1)
    inside = torch.cat([inside, torch.arange(whole, len(flat), device=best.device)])
    inside = inside[flat.index_select(0, inside) < 0]
    inside = inside[is_peak(flat.view(torch.uint8), inside, width)]
    tile = inside // best.shape[1]
    return tile, inside - tile * best.shape[1]


def is_peak(flat: Tensor, at: Tensor, width: int) -> Tensor:
    """Whether ``flat`` (pictures of ``width`` as one line, uint8) is at ``at`` (n,) as high as
    around it: the neighbours of a peak lead to the same path."""
    beside = [dy * width + dx for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    near = (at + torch.tensor(beside, device=at.device)[:, None]).clamp_(0, len(flat) - 1)
    around = flat.index_select(0, near.view(-1)).view(near.shape)
    return (around <= flat.index_select(0, at)).all(dim=0)


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
    wide: bool = False  # the trails are so long in x that every second column is enough
    across: bool = False  # x and y are exchanged
    long: float = inf  # cells per frame in x or y: below it for plain tiers, above for wide ones

    @property
    def fastest(self) -> int:
        """The largest velocity index."""
        return ceil(self.speed_max * 2**self.level / 2) + TILE

    @property
    def stretch(self) -> int:
        """Cells from one column to the next."""
        return 2 if self.wide else 1

    def holds(self, iy: np.ndarray, ix: np.ndarray) -> np.ndarray:
        """Whether velocity indices belong to the range of speeds; shaped as they are."""
        vy, vx = (np.abs(2 * i / 2**self.level) for i in (iy, ix * self.stretch))
        speed = np.hypot(vy, vx)
        held = (speed >= self.speed_min) & (speed < self.speed_max)
        if self.wide:
            return np.asarray(held & (vx >= vy) & (vx >= self.long))
        return np.asarray(held & (np.maximum(vx, vy) < self.long))


@dataclass(frozen=True)
class Region:
    """A square of velocities whose sums are made together: its corner, its tiles' corners (k, 2),
    and which velocities of each of these are the tier's (k, TILE, TILE)."""

    y0: int
    x0: int
    tiles: np.ndarray
    held: np.ndarray


def regions(tier: Tier) -> list[Region]:
    """Squares of SIDE x SIDE velocities that hold those of the tier.

    Each is followed by its mirror image, which needs the same trails, seen from the other end.
    """
    number = ceil(tier.fastest / SIDE)
    out = []
    for ny, nx in z_order(-number, number - 1):
        if ny < 0:
            continue
        for sy, sx in ((ny * SIDE, nx * SIDE), (-(ny + 1) * SIDE, -(nx + 1) * SIDE)):
            tiles = np.mgrid[sy : sy + SIDE : TILE, sx : sx + SIDE : TILE].reshape(2, -1).T
            every = tiles[:, :, None, None] + np.mgrid[:TILE, :TILE]  # (k, 2, TILE, TILE)
            held = tier.holds(every[:, 0], every[:, 1])
            some = held.any((1, 2))
            if some.any():
                out.append(Region(sy, sx, tiles[some], held[some]))
    return out


def strips(frames: Frames, region: Region) -> list[tuple[int, int]]:
    """First row, and that behind the last, of strips that hold the middles of the region's paths.

    Both halves of a path have their middles in the picture, too.
    """
    beside = max(0, region.y0, -region.y0 - SIDE) // 2
    rows = frames.height - 2 * beside
    if rows <= 0:
        return []
    number = round(rows * frames.width / STRIP_CELLS) if frames.device.type == "cpu" else 1
    number = min(max(1, number), rows)
    return list(pairwise(beside + rows * k // number for k in range(number + 1)))


class Hits(NamedTuple):
    """Sums of one block of frames over the threshold, and their paths. Arrays of length n.

    ``start``: first frame of the block; ``y``, ``x``: place in its middle (cells of `Frames`);
    ``velocity`` index (n, 2: iy, ix); ``score`` in the steps of the sums.
    """

    start: Tensor
    y: Tensor
    x: Tensor
    velocity: Tensor
    score: Tensor

    def take(self, which: Tensor) -> Hits:
        """Those at ``which``."""
        return Hits(*(column[which] for column in self))


def block_starts(count: int, length: int) -> list[int]:
    """First frames of blocks of ``length`` side by side in ``count`` frames; the last one ends with
    them, and may overlap the one before."""
    starts = list(range(0, count - length + 1, length))
    if starts and starts[-1] + length < count:
        starts.append(count - length)
    return starts


def harvest(tree: VelocityTree, tier: Tier, some: list[Region], known: int) -> Candidates:
    """All paths of the tier over its thresholds, of each place the best velocity of a tile; but
    for blocks that lie within the first ``known`` frames."""
    frames, length = tree.frames, 2**tier.level
    starts = [start for start in block_starts(frames.count, length) if start + length > known]
    if not starts:
        return join([])
    sigma = max(level_sigma(tier.level), noise_of(tree, tier))
    found: list[Candidates] = []
    for region in some:
        parts = [
            judge(tree, tier, region, start, rows, tier.hit * sigma)
            for start in starts
            for rows in strips(frames, region)
        ]
        if parts:
            hit = Hits(*(torch.cat(column) for column in zip(*parts, strict=True)))
            found.append(candidates(tree, tier, region, hit, sigma))
    return join(found)


def noise_of(tree: VelocityTree, tier: Tier) -> float:
    """Noise of the tier's sums, measured in the middle of the picture at a typical speed: at rest
    the sums hold what is left of the stars."""
    frames = tree.frames
    speed = (tier.speed_min + tier.speed_max) / 2
    typical = speed * 2**tier.level / 2 / sqrt(2)
    iy, ix = round(typical), round(typical / tier.stretch)
    y0, x0 = (i // SIDE * SIDE for i in (iy, ix))
    rows = (frames.height // 4, max(frames.height // 4 + 1, frames.height * 3 // 4))
    starts = block_starts(frames.count, 2**tier.level)
    sums = tree.room("noise", len(starts), 1, 1, 1, (rows[1] - rows[0]) * frames.width)
    for start, out in zip(starts, sums, strict=True):
        tree.halves(tier.level, y0, x0, start, rows).add(iy, ix, 0, out)
    return robust_spread(sums)


def judge(
    tree: VelocityTree, tier: Tier, region: Region, start: int, rows: tuple[int, int], limit: float
) -> Hits:
    """Sums of a strip and the block of frames from ``start`` on that reach ``limit``, each with its
    own velocity."""
    frames = tree.frames
    lower = tree.halves(tier.level, region.y0, region.x0, start, rows)
    best = tree.room("best", len(region.tiles), lower.size)
    room = tree.room("tile", TILE // 2 * (TILE + 1) * lower.size)
    for number, (y0, x0) in enumerate(region.tiles.tolist()):
        torch.amax(lower.best(y0, x0, TILE, room), 0, out=best[number])
    tile, place = hits(best, ceil(limit), frames.width)
    score, index = own_velocity(lower, region, tile, place)
    y, x = place // frames.width + rows[0], place % frames.width
    hit = Hits(torch.full_like(y, start), y, x, index, score)
    return hit.take((score >= limit) & inside(frames, y, x, index))


def own_velocity(
    lower: Patch, region: Region, tile: Tensor, place: Tensor
) -> tuple[Tensor, Tensor]:
    """The best sum at each of the places (n,) over the velocities of its tile that are the tier's:
    sums (n,) int16 and indices (n, 2)."""
    device, half = place.device, TILE // 2
    corner = torch.from_numpy(region.tiles).to(device)[tile]  # (n, 2)
    number = torch.arange(half + 1, device=device)
    hy, hx = (corner[:, k] // 2 for k in (0, 1))
    hy, hx = hy[:, None, None] + number[:, None], hx[:, None, None] + number
    at = place[:, None, None]
    first = lower.values(-1, at, hy[:, :half], hx[..., :half])
    second = lower.values(1, at, hy, hx)
    every = torch.arange(TILE, device=device)
    low, high = every // 2, every - every // 2
    sums = first[:, low][:, :, low] + second[:, high][:, :, high]  # (n, TILE, TILE)
    sums = torch.where(torch.from_numpy(region.held).to(device)[tile], sums, -1000)
    score, which = sums.flatten(1).max(dim=1)
    return score, corner + torch.stack([which // TILE, which % TILE], 1)


def inside(frames: Frames, y: Tensor, x: Tensor, index: Tensor) -> Tensor:
    """Whether the middle of each path and those of both halves lie in the picture."""
    ok = torch.ones_like(y, dtype=torch.bool)
    for at, i, size in ((y, index[..., 0], frames.height), (x, index[..., 1], frames.width)):
        for centre in (at, at - i // 2, at + i - i // 2):
            ok = ok & (centre >= 0) & (centre < size)
    return ok


def candidates(
    tree: VelocityTree, tier: Tier, region: Region, hit: Hits, sigma: float
) -> Candidates:
    """Hits that stand alone, or together with the block before or after."""
    sums, other, side = partners(tree, tier, region, hit)
    together = (hit.score + sums) / sqrt(2)
    paired = together >= tier.pair * sigma
    keep = paired | (hit.score >= tier.alone * sigma)
    value = torch.where(paired, together, hit.score.float())[keep] / sigma
    paired, other, side = (v[keep] for v in (paired, other, side))
    return in_cells(hit.take(keep), paired, value, other, side, tier)


def partners(
    tree: VelocityTree, tier: Tier, region: Region, hit: Hits
) -> tuple[Tensor, Tensor, Tensor]:
    """For each hit the best sum of as many frames before or after, on the same path.

    A path of twice the length with index ``i`` has halves with indices a and b, a + b = i and
    |a - b| <= 1, whose centres are ``i`` cells apart. Returns sums (n,) in the units of
    ``hit.score``, the partners' indices (n, 2) and on which side in time they lie (n,), +1 or -1.
    """
    device, number = hit.y.device, len(hit.y)
    near = torch.cartesian_prod(*[torch.arange(-1, 2, device=device)] * 2)
    table = path_table(tree.frames, region, tier.level)
    best = torch.zeros(number, device=device)
    other, side = hit.velocity.clone(), torch.ones_like(hit.y)
    for some in torch.arange(number, device=device).split(CHUNK):
        part = hit.take(some)
        mate = part.velocity[:, None] + near  # (n, 9, 2)
        row = (mate[..., 0] - region.y0 + 1) * (SIDE + 2) + mate[..., 1] - region.x0 + 1
        for sign in (1, -1):
            value, which = follow(tree, tier, part, sign, mate, table[row])
            better = value > best[some]
            best[some] = torch.where(better, value, best[some])
            chosen = mate[torch.arange(len(some), device=device), which]
            other[some] = torch.where(better[:, None], chosen, other[some])
            side[some] = torch.where(better, sign, side[some])
    return best, other, side


def follow(
    tree: VelocityTree, tier: Tier, hit: Hits, sign: int, mate: Tensor, way: Tensor
) -> tuple[Tensor, Tensor]:
    """The best sum of the block before (``sign`` -1) or after (1) each hit, and which of ``mate``
    (n, m, 2) it has for its index; 0 where none lies in the picture. ``way``: rows of
    `path_table`."""
    frames, length = tree.frames, 2**tier.level
    apart = sign * (hit.velocity[:, None] + mate)
    y, x, start = hit.y[:, None] + apart[..., 0], hit.x[:, None] + apart[..., 1], hit.start
    start = start + sign * length
    ok = ((start >= 0) & (start <= frames.count - length))[:, None] & inside(frames, y, x, mate)
    middle = start[:, None] * frames.line + frames.pad + y * frames.width + x
    middle = torch.where(ok, middle, frames.pad).int()
    at = way + middle[..., None]  # (n, m, length)
    total = torch.empty(ok.shape, device=y.device)
    # a trail's own image: that of the hit's velocity, one of those that its region uses
    key = hit.velocity * torch.tensor([1, tier.stretch], device=y.device) * (1 / length)
    vy, vx = (2 * key.round().int()).T
    for wy in vy.unique().tolist():
        for wx in vx.unique().tolist():
            some = torch.nonzero((vy == wy) & (vx == wx))[:, 0]
            if len(some):
                light = tree.image(wy, wx).index_select(0, at[some].view(-1))
                total[some] = light.view(len(some), -1, length).sum(-1, dtype=torch.float32)
    if tier.level > HALVED_LEVEL:
        total /= 2
    return torch.where(ok, total, 0.0).max(dim=1)


def path_table(frames: Frames, region: Region, level: int) -> Tensor:
    """Where paths of ``2**level`` frames lie in the lines of `Frames`, from the first frame and the
    middle place on, (k, 2**level) int32: for all velocities of the region and one beyond each way.
    """
    length = 2**level
    near = torch.arange(-1, SIDE + 1, device=frames.device)
    part = (torch.arange(length, device=frames.device) + 0.5) * 2 / length - 1
    way = []
    for corner in (region.y0, region.x0):
        index = near + corner
        way.append((index[:, None] * part + middles(level, index)[:, None]).round().int())
    time = torch.arange(length, device=frames.device, dtype=torch.int32) * frames.line
    return (way[0][:, None] * frames.width + way[1] + time).flatten(0, 1)


def in_cells(
    hit: Hits, paired: Tensor, value: Tensor, other: Tensor, side: Tensor, tier: Tier
) -> Candidates:
    """Hits as paths in cells: over their block, or over two with the centre half way between."""
    frames = 2**tier.level
    index = torch.where(paired[:, None], hit.velocity + other, hit.velocity).float()
    length = torch.where(paired, 2 * frames, frames).float()
    half = torch.where(paired, 0.5 * side, 0.0)
    place = torch.stack([hit.y, hit.x], 1) + half[:, None] * index
    place += middles(tier.level, hit.velocity)
    velocity = 2 * index / length[:, None]
    scale = torch.tensor([1.0, tier.stretch], device=place.device)
    place, velocity = place * scale + (scale - 1) / 2, velocity * scale
    t = hit.start + (frames - 1) / 2 + half * frames
    trail = torch.full_like(value, float(tier.trail))
    columns = (t, place[:, 1], place[:, 0], velocity[:, 1], velocity[:, 0], length, value, trail)
    return Candidates(*(c.float().cpu().numpy() for c in columns))


def search(cells: Tensor, tiers: list[Tier], *, blur: float, known: int = 0) -> list[Candidates]:
    """Candidates of each tier; ``blur``: correlation length of the cells' noise (cells).

    Blocks of frames that lie within the first ``known`` ones, which were searched before, are
    followed into only. On a CPU the velocities are shared out among its threads.
    """
    return [_search_tier(cells, tier, blur, known) for tier in tiers]


def _search_tier(cells: Tensor, tier: Tier, blur: float, known: int) -> Candidates:
    seen = cells.transpose(1, 2).contiguous() if tier.across else cells
    frames = Frames(seen, trail=tier.trail, blur=blur, fastest=tier.fastest, stretch=tier.stretch)
    squares = regions(tier)
    threads = thread_count(frames, torch.get_num_threads())
    cuts = [round(k * len(squares) / threads) for k in range(threads + 1)]
    found = [join([])] * threads

    def work(number: int) -> None:
        mine = squares[cuts[number] : cuts[number + 1]]
        found[number] = harvest(VelocityTree(frames), tier, mine, known)

    # the velocities are what runs side by side, not the sums within them
    on_threads(work, range(threads))
    return exchanged(join(found)) if tier.across else join(found)


def thread_count(frames: Frames, threads: int) -> int:
    """So many of ``threads`` that each has memory for the trailed frames that a patch needs; one
    where the sums are not made by the CPU."""
    if frames.device.type != "cpu":
        return 1
    if frames.fine is None:
        return threads
    least = frames.trails_needed * frames.count * frames.line
    return max(1, min(threads, ALL_TRAILS_BYTES // least))


def exchanged(c: Candidates) -> Candidates:
    """The same paths with x and y exchanged."""
    return Candidates(c.t, c.y, c.x, c.vy, c.vx, c.frames, c.score, c.trail)
