"""Sums of a window's frames along straight paths, for whole patches of velocities at once.

Paths share their halves, as in a fast discrete dedispersion (Brady 1998, SIAM J. Comput. 27, 107;
Zackay & Ofek 2017, ApJ 835, 11): the sum over 2n frames at one velocity is the sum of two sums over
n frames at half the velocity resolution, each of them shifted.

At a level of ``2**level`` frames the velocity index ``i`` means a displacement of ``2 i`` cells, so
that the two halves lie exactly ``i`` cells apart: the first moved back by ``i // 2``, the second
ahead by the rest. Along every second index, shift and place in memory both grow by the same step;
so one strided addition serves a whole patch of velocities, in 8-bit numbers.

The sums of a patch are made for one block of frames and a strip of the picture at a time. They are
stored moved along with the patch's slowest velocity, so that all that is read for a strip lies near
it, and little enough is in hand to stay in the processor's cache.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cache
from math import ceil, log2, prod, sqrt

import numpy as np
import torch
from torch import Tensor

from warte.sky.find import compiled
from warte.sky.find.compiled import MOST
from warte.sky.find.vector import LANES

FINE_STEPS = 8  # steps per sigma before the samples of a trail are added
STEPS_PER_SIGMA = 2  # grey levels of the 8-bit sums per sigma of one frame
CLIP_SIGMA = 3  # one frame counts at most so much: a glint or a cosmic ray is not a track
SIDE = 16  # velocities each way of a patch
TRAILS_MOST = 12  # velocities whose trailed frames stay, where that many fit into
TRAILS_BYTES = 80_000_000  # memory; those that a patch needs stay in any case


def quantise(cells: Tensor, steps: float = STEPS_PER_SIGMA) -> Tensor:
    """Sigma units to int8 steps, clipped at ``CLIP_SIGMA``."""
    limit = CLIP_SIGMA * STEPS_PER_SIGMA
    return (cells * steps).round_().clamp_(-limit, limit).to(torch.int8)


def level_sigma(level: int) -> float:
    """Noise of the sums, in the steps of one frame."""
    return STEPS_PER_SIGMA * sqrt(2**level)


def middles(level: int, index: Tensor) -> Tensor:
    """How far the mean of a path's places lies beyond where its sum is stored (cells), shaped as
    ``index``: the rest of each odd index goes ahead."""
    reach = 2 ** (int(index.abs().max()) if index.numel() else 1).bit_length()
    return _middles(level, reach).to(index.device)[index + reach]


@cache
def _middles(level: int, reach: int) -> Tensor:
    """`middles` of all indices from -``reach`` to ``reach``."""
    every = torch.arange(-reach, reach + 1)
    low, high = every // 2, every - every // 2
    middle = torch.zeros(len(every))
    for _ in range(level):
        middle = (middle[low + reach] + middle[high + reach] + (high - low)) / 2
    return middle


@dataclass(frozen=True)
class Patch:
    """Sums at the velocity indices ``y0``, ``y0 + 1`` ... and ``x0``, ``x0 + 1`` ...

    ``sums``: (ny, nx, blocks, rim + cells + rim) int8, a strip of the picture as one long line.
    Sums at ``y0``, ``x0`` lie where the strip's paths need them; others, by their velocity, up to
    ``rim`` beside. Where a shift leaves the picture at its left or right, it meets the next row,
    and the sum means nothing.
    """

    y0: int
    x0: int
    sums: Tensor
    width: int
    rim: int

    @property
    def size(self) -> int:
        """Cells of the strip."""
        return self.sums.shape[-1] - 2 * self.rim

    def view(self, hy: int, hx: int, shape: tuple[int, int], side: int, rim: int) -> Tensor:
        """Halves at indices ``hy``, ``hy + 1`` ... and ``hx`` ..., each moved as the level above
        needs it, without a copy: the first (``side`` -1) or the second (+1) halves, (*shape,
        blocks / 2, rim + cells + rim)."""
        sy, sx, block, _ = self.sums.stride()
        ry, rx = hy - self.y0, hx - self.x0
        start = self.sums.storage_offset() + self.rim - rim + ry * sy + rx * sx
        start += side * (ry * self.width + rx) + (block if side > 0 else 0)
        strides = (sy + side * self.width, sx + side, 2 * block, 1)
        size = (*shape, self.sums.shape[2] // 2, self.size + 2 * rim)
        return self.sums.as_strided(size, strides, start)

    def add(self, y0: int, x0: int, rim: int, out: Tensor) -> None:
        """Fill ``out`` (ny, nx, blocks / 2, rim + cells + rim) with the sums of the level above."""
        for iy in (y0, y0 + 1)[: out.shape[0]]:
            for ix in (x0, x0 + 1)[: out.shape[1]]:
                some = out[iy - y0 :: 2, ix - x0 :: 2]
                shape = (some.shape[0], some.shape[1])
                first = self.view(iy // 2, ix // 2, shape, -1, rim)
                second = self.view(iy - iy // 2, ix - ix // 2, shape, 1, rim)
                torch.add(first, second, out=some)

    def best(self, y0: int, x0: int, side: int, room: Tensor) -> Tensor:
        """The largest sum of the level above over a tile of ``side`` x ``side`` velocities.

        ``y0``, ``x0``, ``side`` are even; the patch has two blocks; ``room``: int8 to work in, at
        least ``side / 2 * (side + 1)`` times the cells. Returns (side / 2 squared, cells) in it,
        whose maximum over the first axis it is.

        A first half at index a goes with the four second halves at a or a + 1 on each axis: the
        largest of these is found first, and a quarter of the sums is enough.
        """
        n, cells = side // 2, self.size
        second = self.view(y0 // 2, x0 // 2, (n + 1, n + 1), 1, 0)[:, :, 0]
        rows = room[: (n + 1) * n * cells].view(n + 1, n, cells)
        torch.maximum(second[:, :-1], second[:, 1:], out=rows)
        sums = room[(n + 1) * n * cells :][: n * n * cells].view(n, n, cells)
        torch.maximum(rows[:-1], rows[1:], out=sums)
        sums += self.view(y0 // 2, x0 // 2, (n, n), -1, 0)[:, :, 0]
        return sums.view(n * n, cells)

    def values(self, side: int, place: Tensor, hy: Tensor, hx: Tensor) -> Tensor:
        """Values of `view` at places (n,) of the strip and at indices ``hy``, ``hx`` that broadcast
        with them, int16."""
        sy, sx, block, _ = self.sums.stride()
        flat = self.sums.as_strided((self.sums.untyped_storage().nbytes(),), (1,), 0)
        start = self.sums.storage_offset() + self.rim + (block if side > 0 else 0)
        move = (hy - self.y0) * (sy + side * self.width) + (hx - self.x0) * (sx + side)
        at = place + int(start) + move
        return flat.index_select(0, at.view(-1)).view(at.shape).to(torch.int16)


def trail_moves(vx: float, vy: float, stretch: int = 1) -> list[tuple[int, int, int, int]]:
    """How the samples of a trail of ``(vx, vy)`` cells are doubled, one time after the other, so
    that they lie about one column apart; a column is ``stretch`` cells.

    Each is the shift in rows and columns, and how much of either goes back, the rest ahead: half,
    rounded so that the trail's middle stays within half a row and a column of its place.
    """
    length = max(abs(vx), abs(vy)) / stretch
    doublings = 0 if length < 0.75 else min(3, max(1, ceil(log2(length))))
    out, middle = [], [0.0, 0.0]
    for j in range(doublings):
        move = [round(v * 2.0 ** (j - doublings)) for v in (vy, vx / stretch)]
        back = [d // 2 if at <= 0 else (d + 1) // 2 for d, at in zip(move, middle, strict=True)]
        middle = [at + d / 2 - b for at, d, b in zip(middle, move, back, strict=True)]
        out.append((move[0], move[1], back[0], back[1]))
    return out


def trail_sigma(moves: list[tuple[int, int, int, int]], stretch: int, blur: float) -> float:
    """Noise of the sum of a trail's samples, in that of a cell; cells d apart correlate by
    exp(-d^2/4 blur^2)."""
    at = np.stack([np.zeros(stretch), np.arange(stretch)], 1)  # rows, cells
    for dy, dx, _, _ in moves:
        at = np.concatenate([at, at + np.array([dy, dx * stretch])])
    squared = ((at[:, None] - at) ** 2).sum(-1)
    return float(np.sqrt(np.exp(-squared / (4 * blur**2)).sum()))


def trail_factor(sigma: float) -> int:
    """From the sum of a trail's samples to the steps of the sums, in 256ths."""
    return round(256 * STEPS_PER_SIGMA / (FINE_STEPS * sigma))


def doubled(total: Tensor, dy: int, dx: int, by: int, bx: int, out: Tensor) -> Tensor:
    """``out[y, x] = total[y - by, x - bx] + total[y + dy - by, x + dx - bx]``.

    Both (frames, H, W), contiguous; zero where a frame has no such place.
    """
    height, width = out.shape[-2:]
    size = height * width
    back = by * width + bx
    ahead = (dy - by) * width + dx - bx
    start, stop = max(0, back, -ahead), min(size, size + back, size - ahead)
    flat, lines = out.view(len(out), size), total.view(len(total), size)
    if start >= stop:
        return out.zero_()
    torch.add(
        lines[:, start - back : stop - back],
        lines[:, start + ahead : stop + ahead],
        out=flat[:, start:stop],
    )
    flat[:, :start] = 0
    flat[:, stop:] = 0
    return out


def trailed(
    fine: Tensor, moves: list[tuple[int, int, int, int]], sigma: float, out: Tensor
) -> None:
    """Frames filtered with a trail, as 8-bit steps, into ``out``, like ``fine`` but int8.

    ``fine``: (T, H, W) int16, FINE_STEPS a sigma; ``moves``, ``sigma``: see `trail_moves`,
    `trail_sigma`.
    """
    if fine.device.type != "cpu":
        trailed_by_tensors(fine, moves, sigma, out)
        return
    width, size = fine.shape[2], fine.shape[1] * fine.shape[2]
    places = [(by * width + bx, (dy - by) * width + dx - bx) for dy, dx, by, bx in moves]
    compiled.trailed(
        fine.view(-1, size).numpy(),
        np.array(places, np.int64).reshape(-1, 2),
        trail_factor(sigma),
        CLIP_SIGMA * STEPS_PER_SIGMA,
        np.empty((2, size), np.int16),
        out.view(-1, size).numpy(),
    )


def trailed_by_tensors(
    fine: Tensor, moves: list[tuple[int, int, int, int]], sigma: float, out: Tensor
) -> None:
    """`trailed` by PyTorch."""
    total, work = fine, [torch.empty_like(fine) for _ in range(2)]
    for j, move in enumerate(moves):
        total = doubled(total, *move, work[j % 2])
    limit = CLIP_SIGMA * STEPS_PER_SIGMA
    half = torch.full((), 128, dtype=total.dtype, device=total.device)
    scaled = torch.add(half, total, alpha=trail_factor(sigma), out=work[len(moves) % 2])
    out.copy_(scaled.bitwise_right_shift_(8)).clamp_(-limit, limit)


class Frames:
    """A window's frames as the sums need them; shared by the threads that search it.

    ``cells``: (T, H, W) float32 in sigma. ``fastest``: the largest velocity index that will be
    asked for, at any level. ``stretch``: cells in x that are one column, 1 or 2, so that an index
    on that axis means as many times the cells; for trails that are longer than that along it.
    """

    def __init__(
        self, cells: Tensor, *, trail: bool, blur: float, fastest: int, stretch: int = 1
    ) -> None:
        self.stretch = stretch
        self.count, self.height, self.width = cells.shape
        self.width //= self.stretch
        self.blur = blur
        self.pad = (fastest + 3 * SIDE) * (self.width + 1) + LANES
        self.line = self.height * self.width + self.pad
        self.fine: Tensor | None = None
        self.device = cells.device
        if trail:
            limit = CLIP_SIGMA * FINE_STEPS
            fine = (cells * FINE_STEPS).round_().clamp_(-limit, limit).to(torch.int16)
            columns = fine[..., : self.width * stretch].unflatten(-1, (self.width, stretch))
            self.fine = columns.sum(-1, dtype=torch.int16)
        else:
            self.still = self.empty(1)
            self.picture(self.still[0]).copy_(quantise(cells))

    @property
    def trails_needed(self) -> int:
        """Trailed frames that one patch needs: of two velocities each way at the lowest level, in
        x three where they are told apart by columns of two cells."""
        return 4 if self.stretch == 1 else 6

    def empty(self, number: int) -> Tensor:
        """So many times dark frames as one long line, with dark places before, between and behind
        them."""
        size = self.count * self.line + self.pad
        return torch.zeros(number, size, dtype=torch.int8, device=self.device)

    def picture(self, lines: Tensor) -> Tensor:
        """The frames (T, H, W) in such a line."""
        strides, start = (self.line, self.width, 1), lines.storage_offset() + self.pad
        return lines.as_strided((self.count, self.height, self.width), strides, start)


class VelocityTree:
    """Sums of a window's frames over 2, 4, 8 ... of them, a patch of velocities at a time.

    A patch is good until the next one is asked for. Each thread has a tree of its own.
    """

    def __init__(self, frames: Frames) -> None:
        self.frames = frames
        kept = TRAILS_BYTES // (frames.count * frames.line)
        self.trails_kept = int(np.clip(kept, frames.trails_needed, TRAILS_MOST))
        self.rows: OrderedDict[tuple[int, int], int] = OrderedDict()
        # each the frames as one line, see `Frames`: as they are, or as trails
        self.lines = frames.still if frames.fine is None else frames.empty(self.trails_kept)
        self.rooms: dict[str, Tensor] = {}

    def room(self, name: str, *shape: int) -> Tensor:
        """Memory for int8 of this shape; kept, because fresh memory is slow."""
        size = prod(shape)
        if name not in self.rooms or self.rooms[name].numel() < size:
            self.rooms[name] = torch.empty(size, dtype=torch.int8, device=self.frames.device)
        return self.rooms[name][:size].view(shape)

    def row(self, vy: int, vx: int) -> int:
        """Which of the lines holds the frames as a mover of so many cells per frame is looked
        for."""
        if self.frames.fine is None:
            return 0
        key = max((vy, vx), (-vy, -vx))  # a trail has no direction
        if key in self.rows:
            self.rows.move_to_end(key)
            return self.rows[key]
        full = len(self.rows) >= self.trails_kept
        row = self.rows.popitem(last=False)[1] if full else len(self.rows)
        moves = trail_moves(key[1], key[0], self.frames.stretch)
        sigma = trail_sigma(moves, self.frames.stretch, self.frames.blur)
        trailed(self.frames.fine, moves, sigma, self.frames.picture(self.lines[row]))
        self.rows[key] = row
        return row

    def image(self, vy: int, vx: int) -> Tensor:
        """The frames (one line, see `Frames`) at that motion."""
        return self.lines[self.row(vy, vx)]

    def pair_rows(self, level: int, y0: int, x0: int) -> np.ndarray:
        """Which of the lines hold the frames before and after the middle of each pair, (2, n, n):
        for the sums of two frames that a region of SIDE x SIDE velocities needs."""
        up, number = level - 1, SIDE
        for _ in range(up):
            number = number // 2 + 1
        out = np.empty((2, number, number), np.int64)
        for ry, rx in np.ndindex(number, number):
            iy, ix = (y0 >> up) + ry, (x0 >> up) + rx
            for side, hy, hx in ((0, iy // 2, ix // 2), (1, iy - iy // 2, ix - ix // 2)):
                out[side, ry, rx] = self.row(2 * hy, 2 * (ix if self.frames.stretch == 2 else hx))
        return out

    def halves(self, level: int, y0: int, x0: int, start: int, rows: tuple[int, int]) -> Patch:
        """Sums over half of ``2**level`` frames from frame ``start`` on, for paths through ``rows``
        (first, behind the last) in the middle of those frames, at all velocities that indices from
        ``y0``, ``x0`` to ``SIDE`` behind them need. ``level`` is 2 to 6."""
        width, sizes, rims = self.frames.width, {}, {level: 0}
        # from an index on that all lower levels have, too
        corner = [i >> (level - 1) << (level - 1) for i in (y0, x0)]
        number = SIDE + max(y0 - corner[0], x0 - corner[1])
        for k in range(level - 1, 0, -1):
            number = number // 2 + 1
            sizes[k] = number
            rims[k] = rims[k + 1] + (number - 1) * (width + 1)
        cells = (rows[1] - rows[0]) * width
        patch = None
        for k in range(1, level):
            n, blocks = sizes[k], 2 ** (level - k)
            out = self.room(f"sums {k}", n, n, blocks, cells + 2 * rims[k])
            ky, kx = (i >> (level - k) for i in corner)
            if patch is None:
                self._pairs(ky, kx, start, rows[0] * width - rims[k], out)
            else:
                patch.add(ky, kx, rims[k], out)
            if k == level - 2:  # four of these make a sum
                out.clamp_(-MOST, MOST)
            patch = Patch(ky, kx, out, width, rims[k])
        assert patch is not None
        return patch

    def _pairs(self, y0: int, x0: int, start: int, place: int, out: Tensor) -> None:
        """Sums of two frames each into ``out`` (ny, nx, pairs, cells), from frame ``start`` and
        cell ``place`` on; each pair is moved along with the velocity ``y0``, ``x0``."""
        frames = self.frames
        ny, nx, pairs, cells = out.shape
        along = y0 * frames.width + x0
        step = 2 * frames.line + 2 * along
        at = start * frames.line + frames.pad + place - (pairs - 1) * along
        for iy in range(y0, y0 + ny):
            for ix in range(x0, x0 + nx):
                halves = []
                for side, hy, hx in ((-1, iy // 2, ix // 2), (1, iy - iy // 2, ix - ix // 2)):
                    lines = self.image(2 * hy, 2 * (ix if frames.stretch == 2 else hx))
                    begin = at + side * (hy * frames.width + hx) + (frames.line if side > 0 else 0)
                    begin += int(lines.storage_offset())
                    halves.append(lines.as_strided((pairs, cells), (step, 1), begin))
                torch.add(*halves, out=out[iy - y0, ix - x0])
