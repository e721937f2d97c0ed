"""Shift and stack: every straight path through a window of frames, summed before any threshold.

A mover too faint for any single frame is found by adding the frames along its path. Trying every
path one by one costs too much; here paths share their halves, as in a fast discrete dedispersion
(Brady 1998, SIAM J. Comput. 27, 107; Zackay & Ofek 2017, ApJ 835, 11): the sum over 2n frames at
one velocity is the sum of two sums over n frames at half the velocity resolution, one of them
shifted. With 8-bit sums some 1e10 paths a second fit on one core, and on a GPU the same code runs.

Cells: the frames arrive binned (see ``prepare``), in units of their noise, one cell about 1.6
sigma of the point spread function. At a level of ``n`` frames the velocity index ``i`` means a
displacement of ``2 i`` cells in ``n`` frames, so that the two halves lie exactly ``i`` cells apart.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, hypot, log2, sqrt

import numpy as np
import torch
from torch import Tensor

FINE_STEPS = 8  # steps per sigma before the samples of a trail are added
STEPS_PER_SIGMA = 2  # grey levels of the 8-bit sums per sigma of one frame
CLIP_SIGMA = 3  # one frame counts at most so much: a glint or a cosmic ray is not a track
TILE = 8  # velocities are harvested in tiles of TILE x TILE
# At each level, fewest and most velocities kept: what a tile needs, and its neighbours.
KEPT = ((4, 6), (6, 9), (9, 16), (16, 30), (25, 30), (25, 30))
LEVEL_BYTES = 64_000_000  # memory for a level, between those
ONE_THREAD_CELLS = 20_000_000  # windows with more cells are searched by one thread, to save memory


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


def shifted_sum(a: Tensor, b: Tensor, dy: int, dx: int, out: Tensor) -> tuple[int, int]:
    """``out[y, x] = a[y - dy//2, x - dx//2] + b[y + dy - dy//2, x + dx - dx//2]``.

    ``a``, ``b``, ``out``: (blocks, H, W), each block contiguous. Rows are added as one long line,
    many times faster than row by row: where x leaves the picture the sum means nothing. Returns
    the range of the flat picture that was written.
    """
    height, width = out.shape[-2:]
    size = height * width
    back = (dy // 2) * width + dx // 2
    ahead = (dy - dy // 2) * width + dx - dx // 2
    start, stop = max(0, back, -ahead), min(size, size + back, size - ahead)
    if start < stop:
        n = (len(out), stop - start)
        torch.add(
            a.as_strided(n, (a.stride(0), 1), a.storage_offset() + start - back),
            b.as_strided(n, (b.stride(0), 1), b.storage_offset() + start + ahead),
            out=out.as_strided(n, (out.stride(0), 1), out.storage_offset() + start),
        )
    return start, max(start, stop)


def full_sum(a: Tensor, b: Tensor, dy: int, dx: int, out: Tensor) -> Tensor:
    """``shifted_sum`` with zeros where nothing was written."""
    start, stop = shifted_sum(a, b, dy, dx, out)
    flat = out.view(len(out), out.shape[1] * out.shape[2])
    flat[:, :start] = 0
    flat[:, stop:] = 0
    return out


def quantise(cells: Tensor, steps: float = STEPS_PER_SIGMA) -> Tensor:
    """Sigma units to int8 steps, clipped at ``CLIP_SIGMA``."""
    limit = CLIP_SIGMA * STEPS_PER_SIGMA
    return (cells * steps).round_().clamp_(-limit, limit).to(torch.int8)


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


def trail_doublings(vx: float, vy: float) -> int:
    """How often the samples of a trail of ``(vx, vy)`` cells are doubled: 1, 2, 4 or 8 of them."""
    length = max(abs(vx), abs(vy))
    return 0 if length < 0.75 else min(3, max(1, ceil(log2(length))))


def trail_sigma(vx: float, vy: float, blur: float) -> float:
    """Noise of the sum of a trail's samples; cells d apart correlate by exp(-d^2/4 blur^2)."""
    count = 2 ** trail_doublings(vx, vy)
    apart = np.subtract.outer(np.arange(count), np.arange(count)) / count * hypot(vx, vy)
    return float(np.sqrt(np.exp(-(apart**2) / (4 * blur**2)).sum()))


def trailed(
    fine: Tensor, vx: float, vy: float, blur: float, work: list[Tensor], out: Tensor
) -> Tensor:
    """Frames filtered with a straight trail of ``(vx, vy)`` cells, as 8-bit steps, into ``out``.

    ``fine``: (T, H, W) int16, FINE_STEPS a sigma. The trail is doubled: 2, 4, 8 samples from
    shifted sums. ``work``: two arrays like ``fine``, overwritten.
    """
    doublings = trail_doublings(vx, vy)
    total = fine
    for j in range(doublings):
        part = 2.0 ** (j - doublings)
        total = full_sum(total, total, round(vy * part), round(vx * part), work[j % 2])
    factor = STEPS_PER_SIGMA / (FINE_STEPS * trail_sigma(vx, vy, blur))
    limit = CLIP_SIGMA * STEPS_PER_SIGMA
    scaled = torch.mul(total, round(factor * 256), out=work[doublings % 2])
    scaled.add_(128).bitwise_right_shift_(8).clamp_(-limit, limit)  # integers: four times faster
    return out.copy_(scaled)


class VelocityTree:
    """Sums of a window over 2, 4, 8 ... frames at every velocity, computed when asked for.

    ``cells``: (T, H, W) float32 in sigma, T a multiple of 16. The last few velocities of each
    level stay in memory, which is enough when velocities are visited in Z order.
    """

    def __init__(self, cells: Tensor, *, trail: bool, blur: float) -> None:
        self.blur = blur
        self.still = None if trail else quantise(cells)
        if trail:
            limit = CLIP_SIGMA * FINE_STEPS
            self.fine = (cells * FINE_STEPS).round_().clamp_(-limit, limit).to(torch.int16)
            self.work = [torch.empty_like(self.fine) for _ in range(2)]
        self.cache: list[OrderedDict[tuple[int, int], Tensor]] = [OrderedDict() for _ in KEPT]
        size = cells.numel()
        self.kept = [
            int(np.clip(LEVEL_BYTES * 2**level // size, least, most))
            for level, (least, most) in enumerate(KEPT)
        ]

    def stored(self, level: int, iy: int, ix: int) -> Tensor:
        """Sums over ``2**level`` frames as the level above needs them, (blocks, H, W) int8."""
        if level == 0 and self.still is not None:
            return self.still
        cache = self.cache[level]
        if (iy, ix) in cache:
            cache.move_to_end((iy, ix))
            return cache[iy, ix]
        spare = cache.popitem(last=False)[1] if len(cache) >= self.kept[level] else None
        if level == 0:
            out = torch.empty_like(self.fine, dtype=torch.int8) if spare is None else spare
            sums = trailed(self.fine, 2.0 * ix, 2.0 * iy, self.blur, self.work, out)
        else:
            sums = self.compute(level, iy, ix, out=spare)  # fresh memory costs more than the sum
            if level >= 4:  # halve, so that the next sum fits 8 bits: down once, up once
                sums.add_(level % 2).bitwise_right_shift_(1)
        cache[iy, ix] = sums
        return sums

    def halves(self, level: int, iy: int, ix: int) -> tuple[Tensor, Tensor]:
        """First and second halves, (blocks, H, W), whose shifted sum is the sum at ``level``."""
        first = self.stored(level - 1, iy // 2, ix // 2)
        second = self.stored(level - 1, iy - iy // 2, ix - ix // 2)
        if level <= 4:  # blocks side by side
            return first[0::2], second[1::2]
        step = 2 ** (level - 5)  # from 16 frames on, blocks start every 16 frames
        return first[:-step], second[step:]

    def compute(self, level: int, iy: int, ix: int, out: Tensor | None = None) -> Tensor:
        """The sums at one velocity, (blocks, H, W) int8, sigma as ``level_sigma`` says."""
        first, second = self.halves(level, iy, ix)
        if out is None:
            out = torch.empty(first.shape, dtype=torch.int8, device=first.device)
        return full_sum(first, second, iy, ix, out)


def level_sigma(level: int) -> float:
    """Noise of ``compute``'s 8-bit sums: steps per sigma, each level over 16 frames halved."""
    return STEPS_PER_SIGMA * sqrt(2**level) / 2 ** max(0, level - 4)


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
    """(n, 3) indices where int8 sums >= 0 reach ``limit``, eight at a time; overwrites ``best``."""
    flat = best.view(-1)
    flat += 128 - limit  # reaching the limit overflows into the sign bit
    packs = flat.view(torch.int64).bitwise_and_(-0x7F7F7F7F7F7F7F80).nonzero()
    inside = (packs * 8 + torch.arange(8, device=best.device)).view(-1)
    inside = inside[flat[inside] < 0]
    width, height = best.shape[-1], best.shape[-2]
    row = inside // width
    return torch.stack([row // height, row % height, inside % width], dim=1)


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


def tile_velocities(tier: Tier) -> list[list[tuple[int, int]]]:
    """Velocity indices (iy, ix) of the tier, in tiles of TILE x TILE, in Z order."""
    half = 2**tier.level / 2
    tiles = ceil((tier.speed_max * half + 1) / TILE)
    out = []
    for ty, tx in z_order(-tiles, tiles - 1):
        cells = [(ty * TILE + j, tx * TILE + i) for j in range(TILE) for i in range(TILE)]
        keep = [c for c in cells if tier.speed_min <= hypot(*c) / half < tier.speed_max]
        if keep:
            out.append(keep)
    return out


def harvest(
    tree: VelocityTree, tier: Tier, tiles: list[list[tuple[int, int]]] | None = None
) -> Candidates:
    """All paths of the tier over its thresholds; of each place the best velocity of a tile."""
    # the noise is measured at a typical speed: at rest the sums hold what is left of the stars
    typical = round((tier.speed_min + tier.speed_max) * 2**tier.level / 4 / sqrt(2))
    like = tree.compute(tier.level, typical, typical)
    if not len(like):
        return join([])
    sums = torch.zeros((TILE * TILE, *like.shape), dtype=torch.int8, device=like.device)
    best = torch.empty_like(like)
    sigma = max(level_sigma(tier.level), robust_spread(like))
    found: list[Candidates] = []
    for tile in tile_velocities(tier) if tiles is None else tiles:
        best.zero_()
        for n, (iy, ix) in enumerate(tile):
            first, second = tree.halves(tier.level, iy, ix)
            start, stop = shifted_sum(first, second, iy, ix, sums[n])
            span = ((len(best), stop - start), (best.stride(0), 1))
            part = best.as_strided(*span, start)
            torch.maximum(part, sums[n].as_strided(*span, n * sums.stride(0) + start), out=part)
        hit = hits(best, ceil(tier.hit * sigma))
        if len(hit):
            found.append(judge(hit, sums, torch.tensor(tile, device=hit.device), tier, sigma))
    return join(found)


def inside(at: Tensor, i: Tensor, size: int) -> Tensor:
    """Whether both half centres of sums at ``at`` with index ``i`` lie within 0 to size - 1."""
    first, second = at - i // 2, at + i - i // 2
    return (first >= 0) & (first < size) & (second >= 0) & (second < size)


def judge(hit: Tensor, sums: Tensor, tile: Tensor, tier: Tier, sigma: float) -> Candidates:
    """Candidates among hits (n, 3: block, y, x): alone, or with the block before or after.

    ``sums`` (velocities, blocks, H, W) of the velocities ``tile`` (velocities, 2: iy, ix).
    """
    height, width = sums.shape[-2:]
    block, y, x = hit.T
    flat = (block * height + y) * width + x
    score, which = sums.view(len(sums), -1)[: len(tile)].index_select(1, flat).max(dim=0)
    own = tile[which]
    real = inside(y, own[:, 0], height) & inside(x, own[:, 1], width)
    real &= score >= tier.hit * sigma
    block, y, x, score, own = (v[real] for v in (block, y, x, score.short(), own))
    sum_, other, side = partners(block, y, x, own, sums, tile, tier)
    together = (score + sum_) / sqrt(2)
    paired = together >= tier.pair * sigma
    keep = paired | (score >= tier.alone * sigma)
    rows = (v[keep] for v in (block, y, x, score, own, together, paired, other, side))
    return _candidates(*rows, tier=tier, sigma=sigma)


def block_spacing(level: int) -> int:
    """Frames from one block of a level to the next."""
    return int(min(2**level, 16))


def partners(
    block: Tensor, y: Tensor, x: Tensor, own: Tensor, sums: Tensor, tile: Tensor, tier: Tier
) -> tuple[Tensor, Tensor, Tensor]:
    """For each hit the best sum of the block before or after on the same path.

    A path of twice the length with index ``i`` has halves with indices a and b, a + b = i and
    |a - b| <= 1, whose centres are ``i`` cells apart. Returns sums (n,), the partners' indices
    (n, 2) and on which side in time they lie (n,), +1 or -1.
    """
    height, width = sums.shape[-2:]
    step = 2**tier.level // block_spacing(tier.level)
    low = int(tile.min())
    table = torch.full((int(tile.max()) - low + 3,) * 2, -1, device=tile.device)
    table[tile[:, 0] - low + 1, tile[:, 1] - low + 1] = torch.arange(len(tile), device=tile.device)
    near = torch.cartesian_prod(*[torch.arange(-1, 2, device=own.device)] * 2)
    mate = own + near[:, None]  # (9, n, 2)
    n = table[mate[..., 0] - low + 1, mate[..., 1] - low + 1]
    apart = own + mate
    best = torch.zeros(len(block), dtype=torch.int16, device=tile.device)
    other, side = own.clone(), torch.ones_like(block)
    for sign in (1, -1):
        there = block + sign * step
        my, mx = y + sign * apart[..., 0], x + sign * apart[..., 1]
        ok = (n >= 0) & (there >= 0) & (there < sums.shape[1])
        ok &= inside(my, mate[..., 0], height) & inside(mx, mate[..., 1], width)
        ok &= (my >= 0) & (my < height) & (mx >= 0) & (mx < width)
        flat = ((n * sums.shape[1] + there) * height + my) * width + mx
        value = sums.view(-1)[torch.where(ok, flat, 0)].short()
        value, which = torch.where(ok, value, 0).max(dim=0)
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

    On a CPU the tiles are shared out among its threads.
    """
    alone = cells.device.type != "cpu" or cells.numel() > ONE_THREAD_CELLS
    threads = 1 if alone else torch.get_num_threads()
    jobs = []
    for tier in tiers:
        tiles = tile_velocities(tier)
        cut = [round(k * len(tiles) / threads) for k in range(threads + 1)]
        jobs.append([(tier, tiles[a:b]) for a, b in pairwise(cut)])

    def work(part: list[tuple[Tier, list[list[tuple[int, int]]]]]) -> list[Candidates]:
        found = []
        for trail in (False, True):  # one tree at a time
            mine = [job for job in part if job[0].trail == trail]
            if mine:
                tree = VelocityTree(cells, trail=trail, blur=blur)
                found += [harvest(tree, tier, tiles) for tier, tiles in mine]
        return found

    if threads == 1:
        return work([job[0] for job in jobs])
    # the tiles are what runs side by side, not the sums within them
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        parts = list(pool.map(work, [[job[k] for job in jobs] for k in range(threads)]))
    return [join(list(of_tier)) for of_tier in zip(*parts, strict=True)]
