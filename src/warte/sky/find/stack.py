"""Shift and stack: every straight path through a window of frames, summed before any threshold.

A mover too faint for any single frame is found by adding the frames along its path. `velocity`
makes the sums of a patch of velocities at a time; here each place keeps the best velocity of a
tile, and those that stand out are looked at together with the block of frames before and after.
Some 1e10 paths take seconds on one core, and on a GPU the same code runs.

Cells: the frames arrive binned (see ``prepare``), in units of their noise, one cell about 1.6
sigma of the point spread function.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from queue import SimpleQueue

import numpy as np
import torch
from torch import Tensor

from warte.sky.find.look import Hits, Mates, look
from warte.sky.find.threads import on_threads
from warte.sky.find.tier import Region, Tier, block_starts, regions
from warte.sky.find.velocity import SIDE, Frames, VelocityTree, level_sigma, middles

PIECES = 6  # of the velocities that each thread takes, one after the other
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


def search(cells: Tensor, tiers: list[Tier], *, blur: float, known: int = 0) -> list[Candidates]:
    """Candidates of each tier; ``blur``: correlation length of the cells' noise (cells).

    Blocks of which less than a quarter lies behind the first ``known`` frames, which were searched
    before, are followed into only. On a CPU the velocities are shared out among its threads.
    """
    return [_search_tier(cells, tier, blur, known) for tier in tiers]


def _search_tier(cells: Tensor, tier: Tier, blur: float, known: int) -> Candidates:
    seen = cells.transpose(1, 2).contiguous() if tier.across else cells
    frames = Frames(seen, trail=tier.trail, blur=blur, fastest=tier.fastest, stretch=tier.stretch)
    length = 2**tier.level
    every = block_starts(frames.count, length)
    starts = [start for start in every if start + length * 3 // 4 > known]
    squares = regions(tier)
    if not starts or not squares:  # a narrow range of speeds may lie between two velocities
        return join([])
    threads = thread_count(frames, torch.get_num_threads())
    trees: SimpleQueue[VelocityTree] = SimpleQueue()
    for _ in range(threads):
        trees.put(tree := VelocityTree(frames))
    sigma = max(level_sigma(tier.level), noise_of(tree, tier))
    pieces = 1 if threads == 1 else min(len(squares), PIECES * threads)
    cuts = [round(k * len(squares) / pieces) for k in range(pieces + 1)]
    found = [join([])] * pieces

    def work(number: int) -> None:
        tree = trees.get()
        mine = squares[cuts[number] : cuts[number + 1]]
        try:
            found[number] = harvest(tree, tier, mine, starts, sigma)
        finally:  # the others would wait for it for ever
            trees.put(tree)

    # the velocities are what runs side by side, not the sums within them
    on_threads(work, range(pieces), threads)
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


def harvest(
    tree: VelocityTree, tier: Tier, some: Sequence[Region], starts: list[int], sigma: float
) -> Candidates:
    """All paths of the tier over its thresholds, of each place the best velocity of a tile, in the
    blocks of frames from ``starts`` on. ``sigma``: noise of the sums."""
    found = [look(tree, tier, region, starts, tier.hit * sigma) for region in some]
    hits, mates = zip(*found, strict=True)
    hit = Hits(*(torch.cat(column) for column in zip(*hits, strict=True)))
    mate = Mates(*(torch.cat(column) for column in zip(*mates, strict=True)))
    return candidates(tier, hit, mate, sigma)


def candidates(tier: Tier, hit: Hits, mates: Mates, sigma: float) -> Candidates:
    """Hits that stand alone, or together with the block before or after."""
    sums, other, side = mates
    together = (hit.score + sums) / sqrt(2)
    paired = together >= tier.pair * sigma
    keep = paired | (hit.score >= tier.alone * sigma)
    value = torch.where(paired, together, hit.score.float())[keep] / sigma
    paired, other, side = (v[keep] for v in (paired, other, side))
    return in_cells(hit.take(keep), paired, value, other, side, tier)


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


def exchanged(c: Candidates) -> Candidates:
    """The same paths with x and y exchanged."""
    return Candidates(c.t, c.y, c.x, c.vy, c.vx, c.frames, c.score, c.trail)
