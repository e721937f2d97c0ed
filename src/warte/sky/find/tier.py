"""What the faint search goes through: ranges of speeds, squares of velocities, strips, blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import ceil, inf

import numpy as np
import torch

from warte.sky.find.compiled import TILE
from warte.sky.find.velocity import SIDE, Frames, middles

STRIP_CELLS = 8_000  # cells of a strip whose sums are made at a time: they stay in the cache
STRIP_ROWS = 16  # but so many rows at least: some rows beside it are summed, too


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


@dataclass(frozen=True)
class Region:
    """A square of velocities whose sums are made together: its corner, its tiles' corners (k, 2),
    and which velocities of each of these are the tier's (k, TILE, TILE)."""

    y0: int
    x0: int
    tiles: np.ndarray
    held: np.ndarray


@cache
def regions(tier: Tier) -> tuple[Region, ...]:
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
    return tuple(out)


def strips(frames: Frames, region: Region) -> list[tuple[int, int]]:
    """First row, and that behind the last, of strips that hold the middles of the region's paths:
    those that `inside` lets through."""
    beside = max(0, region.y0, -region.y0 - SIDE) // 4
    rows = frames.height - 2 * beside
    if rows <= 0:
        return []
    least = max(STRIP_CELLS / frames.width, STRIP_ROWS)
    number = round(rows / least) if frames.device.type == "cpu" else 1
    number = min(max(1, number), rows)
    return list(pairwise(beside + rows * k // number for k in range(number + 1)))


def block_starts(count: int, length: int) -> list[int]:
    """First frames of blocks of ``length`` that cover ``count`` frames evenly, each at least a
    quarter over the one before."""
    if count < length:
        return []
    number = ceil((count - length) / (length * 3 / 4)) + 1
    return [round(k) for k in np.linspace(0, count - length, number)]


@cache
def path_way(corner: int, level: int) -> np.ndarray:
    """Where paths of ``2**level`` frames lie on one axis, from their middle places on, (SIDE + 2,
    2**level) cells: for SIDE velocity indices from ``corner`` on, and one beyond each way."""
    length = 2**level
    index = torch.arange(-1, SIDE + 1) + corner
    part = (torch.arange(length) + 0.5) * 2 / length - 1
    way = index[:, None] * part + middles(level, index)[:, None]
    return np.asarray(way.round().int().numpy())
