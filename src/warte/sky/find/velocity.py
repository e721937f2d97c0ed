"""Sums of a window's frames along straight paths, for whole patches of velocities at once.

Paths share their halves, as in a fast discrete dedispersion (Brady 1998, SIAM J. Comput. 27, 107;
Zackay & Ofek 2017, ApJ 835, 11): the sum over 2n frames at one velocity is the sum of two sums over
n frames at half the velocity resolution, each of them shifted.

At a level of ``2**level`` frames the velocity index ``i`` means a displacement of ``2 i`` cells, so
that the two halves lie exactly ``i`` cells apart: the first moved back by ``i // 2``, the second
ahead by the rest. Along every second index, shift and place in memory both grow by the same step;
so one strided addition serves a whole patch of velocities, in 8-bit numbers.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from math import ceil, hypot, log2, sqrt

import numpy as np
import torch
from torch import Tensor

FINE_STEPS = 8  # steps per sigma before the samples of a trail are added
STEPS_PER_SIGMA = 2  # grey levels of the 8-bit sums per sigma of one frame
CLIP_SIGMA = 3  # one frame counts at most so much: a glint or a cosmic ray is not a track
PIECE = 16  # frames whose sums are made together: they stay in the processor's cache
PIECE_LEVEL = 4  # of sums over a whole piece; from there on blocks overlap
TRAILS_KEPT = (4, 8)  # velocities whose trailed frames stay in memory: what a patch needs, and more
TRAILS_BYTES = 80_000_000  # memory of them, between those


def quantise(cells: Tensor, steps: float = STEPS_PER_SIGMA) -> Tensor:
    """Sigma units to int8 steps, clipped at ``CLIP_SIGMA``."""
    limit = CLIP_SIGMA * STEPS_PER_SIGMA
    return (cells * steps).round_().clamp_(-limit, limit).to(torch.int8)


def level_sigma(level: int) -> float:
    """Noise of the 8-bit sums: steps per sigma, each level over 16 frames halved."""
    return STEPS_PER_SIGMA * sqrt(2**level) / 2 ** max(0, level - PIECE_LEVEL)


def block_spacing(level: int) -> int:
    """Frames from one block of a level to the next."""
    return int(min(2**level, PIECE))


@dataclass(frozen=True)
class Halves:
    """Which blocks of the level below make the blocks of a level.

    Block ``b`` is made of ``first + stride * b`` and the one ``apart`` after it; ``count`` of them.
    """

    stride: int
    apart: int
    count: int
    first: int = 0

    def only(self, block: int) -> Halves:
        """One of the blocks."""
        return Halves(self.stride, self.apart, 1, self.first + block * self.stride)


def halves_of(level: int, blocks_below: int) -> Halves:
    """The blocks of ``level``: side by side up to 16 frames, from there on every 16 frames."""
    if level <= PIECE_LEVEL:
        return Halves(2, 1, blocks_below // 2)
    apart = 2 ** (level - PIECE_LEVEL - 1)
    return Halves(1, apart, max(0, blocks_below - apart))


@dataclass(frozen=True)
class Patch:
    """Sums at the velocity indices ``y0``, ``y0 + 1`` ... and ``x0``, ``x0 + 1`` ...

    ``sums``: (ny, nx, blocks, pad + height * width + pad) int8, pictures as one long line with
    zeros before and behind, so that a shifted one needs no look at its ends. Where a shift leaves
    the picture at its left or right, it meets the next row, and the sum means nothing.
    """

    y0: int
    x0: int
    sums: Tensor
    width: int
    pad: int

    def view(
        self, hy: int, hx: int, shape: tuple[int, int], side: int, blocks: Halves, part: slice
    ) -> Tensor:
        """Halves at indices ``hy``, ``hy + 1`` ... and ``hx`` ..., each moved as the level above
        needs it, without a copy: the first (``side`` -1) or the second (+1) halves of ``blocks``,
        (*shape, count, cells of ``part``)."""
        sy, sx, block, _ = self.sums.stride()
        start = self.sums.storage_offset() + self.pad + part.start
        start += (hy - self.y0) * sy + (hx - self.x0) * sx + side * (hy * self.width + hx)
        start += block * (blocks.first + (blocks.apart if side > 0 else 0))
        strides = (sy + side * self.width, sx + side, block * blocks.stride, 1)
        return self.sums.as_strided((*shape, blocks.count, part.stop - part.start), strides, start)

    def add(self, y0: int, x0: int, blocks: Halves, part: slice, out: Tensor) -> None:
        """Fill ``out`` (ny, nx, blocks, cells of ``part``) with the sums of the level above."""
        for iy in (y0, y0 + 1)[: out.shape[0]]:
            for ix in (x0, x0 + 1)[: out.shape[1]]:
                some = out[iy - y0 :: 2, ix - x0 :: 2]
                shape = (some.shape[0], some.shape[1])
                first = self.view(iy // 2, ix // 2, shape, -1, blocks, part)
                second = self.view(iy - iy // 2, ix - ix // 2, shape, 1, blocks, part)
                torch.add(first, second, out=some)

    def best(
        self, y0: int, x0: int, side: int, blocks: Halves, part: slice, room: Tensor
    ) -> Tensor:
        """The largest sum of the level above over a tile of ``side`` x ``side`` velocities.

        ``y0``, ``x0``, ``side`` are even, ``blocks`` one block; ``room``: int8 to work in, at least
        ``side / 2 * (side + 1)`` times the cells of ``part``. Returns (side / 2 squared, cells) in
        it, whose maximum over the first axis it is.

        A first half at index a goes with the four second halves at a or a + 1 on each axis: the
        largest of these is found first, and a quarter of the sums is enough.
        """
        n, cells = side // 2, part.stop - part.start
        second = self.view(y0 // 2, x0 // 2, (n + 1, n + 1), 1, blocks, part)[:, :, 0]
        rows = room[: (n + 1) * n * cells].view(n + 1, n, cells)
        torch.maximum(second[:, :-1], second[:, 1:], out=rows)
        sums = room[(n + 1) * n * cells :][: n * n * cells].view(n, n, cells)
        torch.maximum(rows[:-1], rows[1:], out=sums)
        sums += self.view(y0 // 2, x0 // 2, (n, n), -1, blocks, part)[:, :, 0]
        return sums.view(n * n, cells)

    def values(
        self, side: int, blocks: Halves, block: Tensor, y: Tensor, x: Tensor, half: Tensor
    ) -> Tensor:
        """Values of `view` at places (n,) of the blocks ``block`` (n,) at indices ``half`` (..., 2)
        that broadcast with them, int16."""
        sy, sx, step, _ = self.sums.stride()
        flat = self.sums.as_strided((self.sums.untyped_storage().nbytes(),), (1,), 0)
        start = self.sums.storage_offset() + self.pad - self.y0 * sy - self.x0 * sx
        there = blocks.first + block * blocks.stride + (blocks.apart if side > 0 else 0)
        place = y * self.width + x + there * step + start
        move = half[..., 0] * (sy + side * self.width) + half[..., 1] * (sx + side)
        return flat[place + move].to(torch.int16)


def below(first: int, number: int) -> tuple[int, int]:
    """First index and number of those of the level below that ``number`` from ``first`` on need."""
    low, high = first // 2, -(-(first + number - 1) // 2)
    return low, high - low + 1


def trail_doublings(vx: float, vy: float) -> int:
    """How often the samples of a trail of ``(vx, vy)`` cells are doubled: 1, 2, 4 or 8 of them."""
    length = max(abs(vx), abs(vy))
    return 0 if length < 0.75 else min(3, max(1, ceil(log2(length))))


def trail_sigma(vx: float, vy: float, blur: float) -> float:
    """Noise of the sum of a trail's samples; cells d apart correlate by exp(-d^2/4 blur^2)."""
    count = 2 ** trail_doublings(vx, vy)
    apart = np.subtract.outer(np.arange(count), np.arange(count)) / count * hypot(vx, vy)
    return float(np.sqrt(np.exp(-(apart**2) / (4 * blur**2)).sum()))


def doubled(total: Tensor, dy: int, dx: int, out: Tensor) -> Tensor:
    """``out[y, x] = total[y - dy//2, x - dx//2] + total[y + dy - dy//2, x + dx - dx//2]``.

    Both (frames, H, W), contiguous; zero where a frame has no such place.
    """
    height, width = out.shape[-2:]
    size = height * width
    back = (dy // 2) * width + dx // 2
    ahead = (dy - dy // 2) * width + dx - dx // 2
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
        total = doubled(total, round(vy * part), round(vx * part), work[j % 2])
    factor = STEPS_PER_SIGMA / (FINE_STEPS * trail_sigma(vx, vy, blur))
    limit = CLIP_SIGMA * STEPS_PER_SIGMA
    scaled = torch.mul(total, round(factor * 256), out=work[doublings % 2])
    scaled.add_(128).bitwise_right_shift_(8).clamp_(-limit, limit)  # integers: four times faster
    return out.copy_(scaled)


class VelocityTree:
    """Sums of a window over 2, 4, 8 ... frames, a patch of velocities at a time.

    ``cells``: (T, H, W) float32 in sigma, T a multiple of 16. ``fastest``: the largest index that
    will be asked for, at any level. A patch is good until the next of its level is asked for.
    """

    def __init__(self, cells: Tensor, *, trail: bool, blur: float, fastest: int) -> None:
        self.frames, self.height, self.width = cells.shape
        self.blur = blur
        self.pad = (fastest // 2 + 2) * (self.width + 1)
        self.line = 2 * self.pad + self.height * self.width
        self.inner = slice(self.pad, self.pad + self.height * self.width)
        self.trails_kept = int(np.clip(TRAILS_BYTES // (self.frames * self.line), *TRAILS_KEPT))
        self.trails: OrderedDict[tuple[int, int], Tensor] = OrderedDict()
        self.store: dict[tuple[str, int], Tensor] = {}
        self.fine: Tensor | None = None
        if trail:
            limit = CLIP_SIGMA * FINE_STEPS
            self.fine = (cells * FINE_STEPS).round_().clamp_(-limit, limit).to(torch.int16)
            self.work = [torch.empty_like(self.fine[:PIECE]) for _ in range(2)]
        self.still = self._empty(self.frames, cells.device)
        if not trail:
            self.still[:, self.inner] = quantise(cells).flatten(1)

    def _empty(self, frames: int, device: torch.device) -> Tensor:
        return torch.zeros((frames, self.line), dtype=torch.int8, device=device)

    def _room(self, name: str, level: int, shape: tuple[int, int, int]) -> Tensor:
        """Zeros to write (ny, nx, blocks, line) sums into; kept, because fresh memory is slow."""
        room = self.store.get((name, level))
        if room is None or any(a < b for a, b in zip(room.shape, shape, strict=False)):
            size = shape if room is None else map(max, zip(room.shape[:3], shape, strict=True))
            room = torch.zeros((*size, self.line), dtype=torch.int8, device=self.still.device)
            self.store[name, level] = room
        return room[: shape[0], : shape[1], : shape[2]]

    def image(self, iy: int, ix: int) -> Tensor:
        """Frames (T, line) as a mover of this index at level 0 is looked for in them."""
        if self.fine is None:
            return self.still
        key = (iy, ix) if (iy, ix) > (-iy, -ix) else (-iy, -ix)  # a trail has no direction
        if key in self.trails:
            self.trails.move_to_end(key)
            return self.trails[key]
        full = len(self.trails) >= self.trails_kept
        lines = self.trails.popitem(last=False)[1] if full else None
        if lines is None:
            lines = self._empty(self.frames, self.fine.device)
        for start in range(0, self.frames, PIECE):
            some = self.fine[start : start + PIECE]
            shape = (len(some), self.height, self.width)
            out = torch.empty(shape, dtype=torch.int8, device=some.device)
            trailed(some, 2.0 * key[1], 2.0 * key[0], self.blur, self.work, out)
            lines[start : start + PIECE, self.inner] = out.flatten(1)
        self.trails[key] = lines
        return lines

    def blocks(self, level: int) -> int:
        """Number of blocks of a level."""
        return max(0, (self.frames - 2**level) // block_spacing(level) + 1)

    def patch(self, level: int, y0: int, x0: int, ny: int, nx: int) -> Patch:
        """Sums over ``2**level`` frames, level 1 or more, as the level above needs them: those of
        16 frames and more are halved, so that the next sum fits into 8 bits."""
        out = self._room("whole", level, (ny, nx, self.blocks(level)))
        if level <= PIECE_LEVEL:
            each = PIECE >> level
            for number in range(self.frames // PIECE):
                self._piece(level, y0, x0, number, out[:, :, each * number : each * (number + 1)])
        else:
            lower = self._below(level, y0, x0, ny, nx)
            blocks = halves_of(level, lower.sums.shape[2])
            lower.add(y0, x0, blocks, slice(0, self.height * self.width), out[..., self.inner])
        if level >= PIECE_LEVEL:  # down once, up once
            inner = out[..., self.inner]
            (inner.add_(1) if level % 2 else inner).bitwise_right_shift_(1)
        return Patch(y0, x0, out, self.width, self.pad)

    def _below(self, level: int, y0: int, x0: int, ny: int, nx: int) -> Patch:
        (ly, my), (lx, mx) = below(y0, ny), below(x0, nx)
        return self.patch(level - 1, ly, lx, my, mx)

    def _piece(self, level: int, y0: int, x0: int, number: int, out: Tensor) -> None:
        """Sums within one piece of 16 frames, into ``out`` (ny, nx, blocks, line)."""
        ny, nx = out.shape[:2]
        whole = slice(0, self.height * self.width)
        if level == 1:
            for iy in range(y0, y0 + ny):
                for ix in range(x0, x0 + nx):
                    self._pairs(iy, ix, number, out[iy - y0, ix - x0, :, self.inner])
            return
        (ly, my), (lx, mx) = below(y0, ny), below(x0, nx)
        room = self._room("piece", level - 1, (my, mx, PIECE >> (level - 1)))
        self._piece(level - 1, ly, lx, number, room)
        lower = Patch(ly, lx, room, self.width, self.pad)
        blocks = halves_of(level, room.shape[2])
        lower.add(y0, x0, blocks, whole, out[..., self.inner])

    def _pairs(self, iy: int, ix: int, number: int, out: Tensor) -> None:
        """Sums of two frames each at one velocity, into ``out`` (blocks, cells)."""
        frames = slice(PIECE * number, PIECE * (number + 1))
        halves = []
        for side, hy, hx in ((-1, iy // 2, ix // 2), (1, iy - iy // 2, ix - ix // 2)):
            start = self.pad + side * (hy * self.width + hx)
            lines = self.image(hy, hx)[frames][(1 + side) // 2 :: 2]
            halves.append(lines[:, start : start + out.shape[-1]])
        torch.add(*halves, out=out)

    def compute(self, level: int, iy: int, ix: int) -> Tensor:
        """The sums at one velocity, (blocks, H, W) int8, sigma as ``level_sigma`` says.

        Level 1 or more; nothing is halved at the last step.
        """
        number = self.blocks(level)
        shape = (1, 1, number, self.height * self.width)
        out = torch.empty(shape, dtype=torch.int8, device=self.still.device)
        if level == 1:
            for piece in range(self.frames // PIECE):
                self._pairs(iy, ix, piece, out[0, 0, 8 * piece : 8 * (piece + 1)])
        else:
            lower = self._below(level, iy, ix, 1, 1)
            blocks = halves_of(level, lower.sums.shape[2])
            lower.add(iy, ix, blocks, slice(0, shape[-1]), out)
        return out.view(number, self.height, self.width)
