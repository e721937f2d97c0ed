"""The inner loops of the faint search, compiled by Numba for a CPU.

What they compute is told in `velocity`, `look` and `refine`, where PyTorch does the same on a GPU;
tests hold one against the other. Here it is several times faster: what is made of a few hundred
cells is used at once, and never leaves the innermost cache.

Places are those of the lines of `velocity.Frames`: (images, T * (H * W + pad) + pad) int8.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numba
import numpy as np

from warte.sky.find.vector import LANES, add, fill, larger, load, smaller, store

TILE = 8  # velocities are harvested in tiles of TILE x TILE
HALF = TILE // 2
CHUNK = 4096  # cells in which all tiles are searched before the next: their sums stay cached
PIECE = 2048  # cells for which all sums of a block of frames are made before the next
TRAIL_SAMPLES = 4  # points at which the trail of one frame is sampled
MOST = 31  # largest sum of a quarter of the frames: four of them fit into 8 bits


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` as machine code that lets other threads run; kept for the next time, where there
    is a folder that can be written."""
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # no such folder
        return numba.njit(nogil=True)(function)


class Grid(NamedTuple):
    """How frames lie in the lines of images: cells from one image to the next and from one frame to
    the next, dark cells before the first, and the frames' number and size."""

    image: int
    line: int
    pad: int
    frames: int
    height: int
    width: int


class Square(NamedTuple):
    """A region of `tier`: level, first velocity indices, and the image (a row of the lines) for
    each half of each pair of frames, (2, n, n)."""

    level: int
    y0: int
    x0: int
    images: np.ndarray


@cache
def layout(level: int, side: int, width: int, cells: int) -> tuple[np.ndarray, int]:
    """Where the sums lie in a room that one strip of ``cells`` needs, and the room's size.

    (level, blocks, 4): for each level from 2 to ``level`` - 2 and each block of frames: velocities
    each way, cells beside the strip, where the first sum begins, and from there to the next.

    A sum is stored where its path would be in the middle of all frames, if it went on straight. So
    whole paths lie at one place with their halves, and these nearly with theirs.

    Below the last of these levels there is room for two blocks only, the halves of one above: it
    is summed as soon as both are there, and the next two take their places.
    """
    out = np.zeros((level, 2 ** (level - 2), 4), np.int64)
    numbers = {}
    for k in range(level - 1, 1, -1):
        side = side // 2 + 1
        numbers[k] = side
    size = 0
    for k in range(level - 2, 1, -1):
        blocks = 2 ** (level - k)
        rims = [abs(b // 2 * 2 + 1 - blocks // 2) * (width + 1) for b in range(blocks)]
        if k < level - 2:
            rims = [rim + int(out[k + 1, b // 2, 1]) for b, rim in enumerate(rims)]
        places = blocks if k == level - 2 else 2
        sizes = [-(-(cells + 2 * rim) // LANES) * LANES for rim in rims]
        each = [numbers[k] ** 2 * max(sizes[place::places]) for place in range(places)]
        for b, (rim, one) in enumerate(zip(rims, sizes, strict=True)):
            out[k, b] = numbers[k], rim, size + sum(each[: b % places]), one
        size += sum(each)
    return out, size + LANES  # the last vector may reach beyond


@compiled
def _moves(iy: int, ix: int, b: int, up: int, width: int) -> Any:
    """How far a sum's two halves are moved, in cells: of the sum with these indices over the block
    ``b`` of 1 / 2**``up`` of all frames."""
    right = 2 * b + 1 - (1 << up)
    down = right * width
    first = (iy & 1) * down + (ix & 1) * right
    return first, -first


@compiled
def _pair(grid: Any, square: Any, start: int, b: int, iy: int, ix: int) -> Any:
    """Where the two frames of pair ``b`` at these indices have the cell 0 of their sum."""
    up = square.level - 1
    ry, rx = iy - (square.y0 >> up), ix - (square.x0 >> up)
    begin = (start + 2 * b) * grid.line + grid.pad
    begin += (2 * b + 1 - (1 << up)) * (iy * grid.width + ix)
    first = begin - (iy >> 1) * grid.width - (ix >> 1)
    second = begin + grid.line + (iy - (iy >> 1)) * grid.width + ix - (ix >> 1)
    images = square.images
    return images[0, ry, rx] * grid.image + first, images[1, ry, rx] * grid.image + second


@compiled
def _four(
    light: Any, grid: Any, square: Any, start: int, place: int, room: Any, block: Any, b: int
) -> None:
    """Sums of the four frames of block ``b``, for the strip from ``place`` on, into the room."""
    up = square.level - 2
    n, rim, out, size = block
    at = np.empty((n * n, 4), np.int64)
    for ry in range(n):
        for rx in range(n):
            iy, ix = (square.y0 >> up) + ry, (square.x0 >> up) + rx
            fy, fx = iy >> 1, ix >> 1
            ahead, back = _moves(iy, ix, b, up, grid.width)
            one, two = _pair(grid, square, start, 2 * b, fy, fx)
            three, four = _pair(grid, square, start, 2 * b + 1, iy - fy, ix - fx)
            ahead, back = ahead + place - rim, back + place - rim
            j = ry * n + rx
            at[j, 0], at[j, 1] = one + ahead, two + ahead
            at[j, 2], at[j, 3] = three + back, four + back
    for begin in range(0, size, PIECE):
        stop = min(begin + PIECE, size)
        for j in range(n * n):
            one, two, three, four = at[j, 0], at[j, 1], at[j, 2], at[j, 3]
            to = out + j * size
            for k in range(begin, stop, LANES):
                a = add(load(light, one + k), load(light, two + k))
                c = add(load(light, three + k), load(light, four + k))
                store(room, to + k, add(a, c))


@compiled
def _halves(shape: Any, square: Any, width: int, k: int, iy: int, ix: int, b: int) -> Any:
    """Where in the room the two halves of a sum lie, for the strip's first cell: of the sum at
    level ``k`` with these indices, over the block ``b``."""
    up = square.level - k
    ky, kx = square.y0 >> (up + 1), square.x0 >> (up + 1)
    fy, fx = iy >> 1, ix >> 1
    sy, sx = iy - fy, ix - fx
    ahead, back = _moves(iy, ix, b, up, width)
    one, two = shape[k - 1, 2 * b], shape[k - 1, 2 * b + 1]
    first = one[2] + ((fy - ky) * one[0] + fx - kx) * one[3] + one[1] + ahead
    second = two[2] + ((sy - ky) * two[0] + sx - kx) * two[3] + two[1] + back
    return first, second


@compiled
def _block(room: Any, shape: Any, square: Any, width: int, k: int, b: int) -> None:
    """Sums of block ``b`` at level ``k`` from those of its halves."""
    up = square.level - k
    n, rim, out, size = shape[k, b]
    at = np.empty((n * n, 2), np.int64)
    for ry in range(n):
        for rx in range(n):
            iy, ix = (square.y0 >> up) + ry, (square.x0 >> up) + rx
            one, two = _halves(shape, square, width, k, iy, ix, b)
            at[ry * n + rx, 0], at[ry * n + rx, 1] = one - rim, two - rim
    most = fill(MOST if up == 2 else 127)
    least = fill(-MOST if up == 2 else -128)
    for begin in range(0, size, PIECE):
        stop = min(begin + PIECE, size)
        for j in range(n * n):
            one, two, to = at[j, 0], at[j, 1], out + j * size
            for i in range(begin, stop, LANES):
                total = add(load(room, one + i), load(room, two + i))
                store(room, to + i, larger(smaller(total, most), least))


@compiled
def _sums(
    light: Any, grid: Any, square: Any, start: int, place: int, room: Any, shape: Any
) -> None:
    """Sums of a quarter of the frames and less, for the strip from ``place`` on."""
    for four in range(1 << (square.level - 2)):
        _four(light, grid, square, start, place, room, shape[2, four], four)
        b, k = four, 2
        while b & 1 and k < square.level - 2:  # both halves of the block above are there
            b, k = b >> 1, k + 1
            _block(room, shape, square, grid.width, k, b)


@compiled
def _quarters(shape: Any, square: Any, width: int, tile: Any, out: Any) -> None:
    """Where the quarters lie whose sums make those of a tile, for the strip's first cell, into
    ``out`` (2, HALF + 1, HALF + 1, 2): of first and second halves, each from their two."""
    for side in range(2):
        for y in range(HALF + side):
            for x in range(HALF + side):
                hy, hx = (tile[0] >> 1) + y, (tile[1] >> 1) + x
                one, two = _halves(shape, square, width, square.level - 1, hy, hx, side)
                out[side, y, x, 0], out[side, y, x, 1] = one, two


@compiled
def _half(room: Any, at: Any, side: int, y: int, x: int, k: int) -> Any:
    return add(load(room, at[side, y, x, 0] + k), load(room, at[side, y, x, 1] + k))


@compiled
def _row(room: Any, at: Any, y: int, k: int) -> Any:
    """The larger ones of neighbours in a row of HALF + 1 second halves."""
    a, b = _half(room, at, 1, y, 0, k), _half(room, at, 1, y, 1, k)
    c, d = _half(room, at, 1, y, 2, k), _half(room, at, 1, y, 3, k)
    e = _half(room, at, 1, y, 4, k)
    return larger(a, b), larger(b, c), larger(c, d), larger(d, e)


@compiled
def _best(room: Any, at: Any, begin: int, out: Any) -> None:
    """The largest sums over a tile's velocities: as `velocity.Patch.best`. ``at``: see
    `_quarters`; ``begin``: the first cell that is wanted. The last vector may reach behind
    ``out``.
    """
    for k in range(0, out.size, LANES):
        cell = begin + k
        best = fill(-128)
        a, b, c, d = _row(room, at, 0, cell)
        for y in range(HALF):
            e, f, g, h = _row(room, at, y + 1, cell)
            best = larger(best, add(larger(a, e), _half(room, at, 0, y, 0, cell)))
            best = larger(best, add(larger(b, f), _half(room, at, 0, y, 1, cell)))
            best = larger(best, add(larger(c, g), _half(room, at, 0, y, 2, cell)))
            best = larger(best, add(larger(d, h), _half(room, at, 0, y, 3, cell)))
            a, b, c, d = e, f, g, h
        store(out, k, best)


@compiled
def _is_peak(best: Any, p: int, width: int) -> Any:
    for dy in range(-1, 2):
        for dx in range(-1, 2):
            q = p + dy * width + dx
            if q >= 0 and q < best.size and best[q] > best[p]:
                return False
    return True


@compiled
def _own(room: Any, at: Any, tile: Any, held: Any, p: int, work: Any) -> Any:
    """The best sum at cell ``p`` of the strip over those velocities of a tile that are ``held``,
    and its indices; -1000 where none is. ``at``: see `_quarters`."""
    for side in range(2):
        for y in range(HALF + side):
            for x in range(HALF + side):
                total = np.int64(room[at[side, y, x, 0] + p])
                work[side, y, x] = total + room[at[side, y, x, 1] + p]
    top, wy, wx = -1000, 0, 0
    for y in range(TILE):
        for x in range(TILE):
            if held[y, x]:
                total = work[0, y >> 1, x >> 1] + work[1, y - (y >> 1), x - (x >> 1)]
                if total > top:
                    top, wy, wx = total, y, x
    return top, tile[0] + wy, tile[1] + wx


@compiled
def _reaching(best: Any, lowest: int, places: Any) -> Any:
    """Where ``best`` reaches ``lowest``, in ``places``."""
    count = 0
    for begin in range(0, best.size, 32):
        some = best[begin : begin + 32]
        top = some[0]
        for k in range(some.size):
            top = top if top > some[k] else some[k]
        if top >= lowest:
            for k in range(some.size):
                if some[k] >= lowest:
                    places[count] = begin + k
                    count += 1
    return places[:count]


@compiled
def inside(at: int, index: int, size: int) -> Any:
    """Whether a path lies in the picture about its middle, on one axis: see `look.inside`."""
    part = abs(index // 4)
    return at - part >= 0 and at + part < size


@compiled
def look(
    lines: Any,
    grid: Any,
    square: Any,
    starts: Any,
    cuts: Any,
    shapes: Any,
    tiles: Any,
    held: Any,
    limit: float,
    lowest: int,
    room: Any,
    most: int,
) -> Any:
    """Sums of a region that reach ``limit``: (n, 6) start, y, x, iy, ix, score. See `look.judge`.

    ``starts`` of the blocks of frames; ``cuts``: rows between the strips; ``tiles`` (k, 2);
    ``held`` (k, TILE, TILE); ``room``: int8, as large as `layout` says for the largest strip.
    """
    out = np.empty((256, 6), np.int32)
    count = 0
    width = grid.width
    light = lines.reshape(-1)
    few = np.empty((2, HALF + 1, HALF + 1), np.int64)
    at = np.empty((len(tiles), 2, HALF + 1, HALF + 1, 2), np.int64)
    best = np.empty((len(tiles), most + LANES), np.int8)
    places = np.empty(most, np.int32)
    for strip in range(len(cuts) - 1):
        cells = (cuts[strip + 1] - cuts[strip]) * width
        shape = shapes[strip]
        for t in range(len(tiles)):
            _quarters(shape, square, width, tiles[t], at[t])
        for start in starts:
            _sums(light, grid, square, start, cuts[strip] * width, room, shape)
            for begin in range(0, cells, CHUNK):
                for t in range(len(tiles)):
                    _best(room, at[t], begin, best[t, begin : min(begin + CHUNK, cells)])
            for t in range(len(tiles)):
                some = best[t, :cells]
                for p in _reaching(some, lowest, places):
                    if not _is_peak(some, p, width):
                        continue
                    score, iy, ix = _own(room, at[t], tiles[t], held[t], p, few)
                    y, x = p // width + cuts[strip], p % width
                    if score < limit or not inside(y, iy, grid.height):
                        continue
                    if not inside(x, ix, width):
                        continue
                    if count == len(out):
                        more = np.empty((2 * count, 6), np.int32)
                        for k in range(count):
                            for column in range(6):
                                more[k, column] = out[k, column]
                        out = more
                    out[count, 0], out[count, 1], out[count, 2] = start, y, x
                    out[count, 3], out[count, 4], out[count, 5] = iy, ix, score
                    count += 1
    return out[:count]


@compiled
def partners(lines: Any, grid: Any, square: Any, hits: Any, images: Any, ways: Any) -> Any:
    """For each hit of `look` the best sum of as many frames before or after: (n, 4) sum, iy, ix and
    side. See `look.partners`.

    ``images``: the row of the lines for each hit; ``ways`` (2, SIDE + 2, length): where the paths
    lie, in rows and in columns, from their middle, from one index below the region's first on.
    """
    length = 1 << square.level
    out = np.empty((len(hits), 4), np.int32)
    for n in range(len(hits)):
        start, y, x = np.int64(hits[n, 0]), np.int64(hits[n, 1]), np.int64(hits[n, 2])
        iy, ix = np.int64(hits[n, 3]), np.int64(hits[n, 4])
        light = lines[images[n]]
        best: Any = 0
        where: Any = 1
        which_y: Any = iy
        which_x: Any = ix
        for side in (1, -1):
            first = start + side * length
            if first < 0 or first > grid.frames - length:
                continue
            for my in range(iy - 1, iy + 2):
                at_y = y + side * (iy + my)
                if not inside(at_y, my, grid.height):
                    continue
                rows = ways[0, my - square.y0 + 1]
                for mx in range(ix - 1, ix + 2):
                    at_x = x + side * (ix + mx)
                    if not inside(at_x, mx, grid.width):
                        continue
                    columns = ways[1, mx - square.x0 + 1]
                    total = 0
                    begin = first * grid.line + grid.pad + at_y * grid.width + at_x
                    for t in range(length):
                        total += light[begin + t * grid.line + rows[t] * grid.width + columns[t]]
                    if total > best:
                        best, which_y, which_x = total, my, mx
                        where = side
        out[n, 0], out[n, 1], out[n, 2], out[n, 3] = best, which_y, which_x, where
    return out


@compiled
def _around(
    padded: Any, path: Any, first: int, last: int, long: float, end: int, step: float, sums: Any
) -> None:
    """Sums of one path with one end moved by -step, 0, step in y and x, into ``sums`` (9,)."""
    count, height, width = padded.shape
    for k in range(9):
        sums[k] = 0.0
    columns = np.empty(3, np.int64)
    way = last - first
    samples = TRAIL_SAMPLES if long > 0 else 1
    for t in range(max(first, 0), min(last, count - 2) + 1):
        part = np.float32(t - first) / np.float32(max(way, 1))
        lever = (part if end else 1 - part) * np.float32(step)
        for s in range(samples):
            at = part
            if long > 0:
                at += np.float32(((s + 0.5) / TRAIL_SAMPLES - 0.5) * long / max(way, 1))
            x = path[0] + at * (path[2] - path[0])
            y = path[1] + at * (path[3] - path[1])
            for i in range(3):
                columns[i] = min(max(np.int64(np.rint(x + (i - 1) * lever)), -1), width - 2) + 1
            for j in range(3):
                row = padded[
                    t, min(max(np.int64(np.rint(y + (j - 1) * lever)), -1), height - 2) + 1
                ]
                for i in range(3):
                    sums[3 * j + i] += row[columns[i]]
    for k in range(9):
        sums[k] /= samples


@compiled
def climb(
    padded: Any, ends: Any, first: Any, last: Any, long: float, steps: Any, best: Any
) -> None:
    """Move both ends of paths (n, 4) to where their sum is highest, in place; see `refine.climb`.

    ``padded``: (T + 1, h + 2, w + 2), dark at its rim; ``best`` (n,) is filled with the sums.
    """
    sums = np.empty(9, np.float32)
    for n in range(len(ends)):
        path = ends[n]
        for step in steps:
            for end in range(2):
                _around(padded, path, first[n], last[n], long, end, step, sums)
                top = 0
                for k in range(9):
                    if sums[k] > sums[top]:
                        top = k
                path[2 * end] += (top % 3 - 1) * step
                path[2 * end + 1] += (top // 3 - 1) * step
                best[n] = sums[top]


@compiled
def best_intervals(values: Any, inside: Any, fewest: int) -> Any:
    """For each path the frames between which its mean stands out most.

    ``values``, ``inside``: (n, T); ``fewest`` frames at least. Returns first and last frame and the
    sigma, (n,) each; -inf where there is no light. A mover enters, leaves, or goes into the
    Earth's shadow.
    """
    number, count = values.shape
    first, last = np.zeros(number, np.int64), np.full(number, count - 1)
    sigma = np.full(number, -np.inf)
    for n in range(number):
        best = 0.0  # the square: among positive sums it is as good as the root
        for a in range(count):
            total, seen = 0.0, 0
            for b in range(a, count):
                total += values[n, b]
                seen += inside[n, b]
                if seen >= fewest and total > 0 and total * total / seen > best:
                    first[n], last[n], best = a, b, total * total / seen
        if best > 0:
            sigma[n] = np.sqrt(best)
    return first, last, sigma


@compiled
def trailed(fine: Any, moves: Any, factor: int, limit: int, work: Any, picture: Any) -> None:
    """Frames filtered with a trail, as `velocity.trailed` makes them, into ``picture``.

    ``fine`` (T, size) int16, each frame as one line; ``moves`` (n, 2): by how many cells the two
    copies of each doubling are moved, back and ahead; ``factor``: of the last step, in 256ths;
    ``work`` (2, size) int16; ``picture`` (T, size) int8.
    """
    size = fine.shape[1]
    for t in range(len(fine)):
        total = fine[t]
        for j in range(len(moves)):
            back, ahead = moves[j, 0], moves[j, 1]
            out = work[j % 2]
            start = min(max(0, back, -ahead), size)
            stop = max(min(size, size + back, size - ahead), start)
            a, b = total[start - back : stop - back], total[start + ahead : stop + ahead]
            within = out[start:stop]
            for k in range(within.size):
                within[k] = a[k] + b[k]
            out[:start] = 0
            out[stop:] = 0
            total = out
        shown = picture[t]
        for k in range(size):
            value: Any = np.int16(128 + total[k] * factor) >> 8
            value = value if value < limit else limit
            shown[k] = value if value > -limit else -limit
