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

TILE = 8  # velocities are harvested in tiles of TILE x TILE
HALF = TILE // 2
CHUNK = 4096  # cells whose sums are made at a time
TRAIL_SAMPLES = 4  # points at which the trail of one frame is sampled
MOST = 63  # largest sum of half of the frames: two of them fit into 8 bits


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` as machine code that lets other threads run; kept for the next time, where there
    is a folder that can be written."""
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # no such folder
        return numba.njit(nogil=True)(function)


class Grid(NamedTuple):
    """How frames lie in their lines: cells from one to the next, dark cells before the first, and
    their number and size."""

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


@compiled
def _add(out: Any, a: Any, b: Any) -> None:
    for k in range(out.size):
        out[k] = a[k] + b[k]


@compiled
def _add_within(out: Any, a: Any, b: Any) -> None:
    for k in range(out.size):
        total = np.int8(a[k] + b[k])
        total = total if total < MOST else np.int8(MOST)
        out[k] = total if total > -MOST else np.int8(-MOST)


@compiled
def _larger(out: Any, a: Any, b: Any) -> None:
    for k in range(out.size):
        out[k] = a[k] if a[k] > b[k] else b[k]


@compiled
def _raise_to_sum(out: Any, one: Any, two: Any, a: Any, b: Any) -> None:
    """``out`` raised to the larger of ``one`` and ``two`` plus the sum of ``a`` and ``b``."""
    for k in range(out.size):
        half = np.int8(a[k] + b[k])
        half = half if half < MOST else np.int8(MOST)
        half = half if half > -MOST else np.int8(-MOST)
        total = np.int8((one[k] if one[k] > two[k] else two[k]) + half)
        out[k] = out[k] if out[k] > total else total


@cache
def layout(level: int, side: int, width: int, cells: int) -> tuple[np.ndarray, int]:
    """Where the sums lie in a room that one strip of ``cells`` needs, and the room's size.

    (level, blocks, 4): for each level from 1 to ``level`` - 2 and each block of frames: velocities
    each way, cells beside the strip, where the first sum begins, and from there to the next.

    A sum is stored where its path would be in the middle of all frames, if it went on straight. So
    whole paths lie at one place with their halves, and these nearly with theirs.

    Below the last of these levels there is room for two blocks only, the halves of one above: it
    is summed as soon as both are there, and the next two take their places.
    """
    out = np.zeros((level, 2 ** (level - 1), 4), np.int64)
    numbers = {}
    for k in range(level - 1, 0, -1):
        side = side // 2 + 1
        numbers[k] = side
    size = 0
    for k in range(level - 2, 0, -1):
        blocks = 2 ** (level - k)
        rims = [abs(b // 2 * 2 + 1 - blocks // 2) * (width + 1) for b in range(blocks)]
        if k < level - 2:
            rims = [rim + int(out[k + 1, b // 2, 1]) for b, rim in enumerate(rims)]
        places = blocks if k == level - 2 else 2
        needs = [numbers[k] ** 2 * (cells + 2 * rim) for rim in rims]
        each = [max(needs[place::places]) for place in range(places)]
        for b, rim in enumerate(rims):
            start = size + sum(each[: b % places])
            out[k, b] = numbers[k], rim, start, cells + 2 * rim
        size += sum(each)
    return out, size


@compiled
def _pair(
    lines: Any, grid: Any, square: Any, start: int, place: int, room: Any, shape: Any, b: int
) -> None:
    """Sums of the two frames of block ``b``, for the strip from ``place`` on, into the room."""
    up = square.level - 1
    n, out, size = shape[1, b, 0], shape[1, b, 2], shape[1, b, 3]
    begin = (start + 2 * b) * grid.line + grid.pad + place - shape[1, b, 1]
    for ry in range(n):
        for rx in range(n):
            iy, ix = (square.y0 >> up) + ry, (square.x0 >> up) + rx
            along = (2 * b + 1 - (1 << up)) * (iy * grid.width + ix)
            first = begin + along - (iy >> 1) * grid.width - (ix >> 1)
            second = begin + along + grid.line
            second += (iy - (iy >> 1)) * grid.width + ix - (ix >> 1)
            one, two = lines[square.images[0, ry, rx]], lines[square.images[1, ry, rx]]
            _add(room[out : out + size], one[first : first + size], two[second : second + size])
            out += size


@compiled
def _halves(shape: Any, square: Any, width: int, k: int, iy: int, ix: int, b: int) -> Any:
    """Where in the room the two halves of a sum lie, for the strip's first cell: of the sum at
    level ``k`` with these indices, over the block ``b``."""
    up = square.level - k + 1
    ky, kx = square.y0 >> up, square.x0 >> up
    fy, fx = iy >> 1, ix >> 1
    sy, sx = iy - fy, ix - fx
    right = 2 * b + 1 - (1 << (up - 1))
    down = right * width
    one, two = shape[k - 1, 2 * b], shape[k - 1, 2 * b + 1]
    first = one[2] + ((fy - ky) * one[0] + fx - kx) * one[3] + one[1]
    second = two[2] + ((sy - ky) * two[0] + sx - kx) * two[3] + two[1]
    first += (iy - 2 * fy) * down + (ix - 2 * fx) * right
    second += (iy - 2 * sy) * down + (ix - 2 * sx) * right
    return first, second


@compiled
def _block(room: Any, shape: Any, square: Any, width: int, k: int, b: int) -> None:
    """Sums of block ``b`` at level ``k`` from those of its halves."""
    up = square.level - k
    n, rim, out, size = shape[k, b, 0], shape[k, b, 1], shape[k, b, 2], shape[k, b, 3]
    for ry in range(n):
        for rx in range(n):
            iy, ix = (square.y0 >> up) + ry, (square.x0 >> up) + rx
            one, two = _halves(shape, square, width, k, iy, ix, b)
            one, two = one - rim, two - rim
            a, c = room[one : one + size], room[two : two + size]
            if k == 4:  # twice as much fits into 8 bits no more
                _add_within(room[out : out + size], a, c)
            else:
                _add(room[out : out + size], a, c)
            out += size


@compiled
def _sums(
    lines: Any, grid: Any, square: Any, start: int, place: int, room: Any, shape: Any
) -> None:
    """Sums of a quarter of the frames and less, for the strip from ``place`` on."""
    for pair in range(1 << (square.level - 1)):
        _pair(lines, grid, square, start, place, room, shape, pair)
        b, k = pair, 1
        while b & 1 and k < square.level - 2:  # both halves of the block above are there
            b, k = b >> 1, k + 1
            _block(room, shape, square, grid.width, k, b)


@compiled
def _best(
    room: Any, shape: Any, square: Any, width: int, tile: Any, begin: int, work: Any, out: Any
) -> None:
    """The largest sums over a tile's velocities: as `velocity.Patch.best`."""
    size, below = out.size, square.level - 1
    hy, hx = tile[0] >> 1, tile[1] >> 1
    last, half = work[0][:size], work[1][:size]
    for y in range(HALF + 1):
        for x in range(HALF + 1):
            one, two = _halves(shape, square, width, below, hy + y, hx + x, 1)
            one, two = one + begin, two + begin
            _add_within(half, room[one : one + size], room[two : two + size])
            if x > 0:  # the larger one of two neighbours
                _larger(work[2 + y * HALF + x - 1][:size], last, half)
            last, half = half, last
    for k in range(size):
        out[k] = -128
    for y in range(HALF):
        for x in range(HALF):
            upper, lower = work[2 + y * HALF + x][:size], work[2 + (y + 1) * HALF + x][:size]
            one, two = _halves(shape, square, width, below, hy + y, hx + x, 0)
            one, two = one + begin, two + begin
            _raise_to_sum(out, upper, lower, room[one : one + size], room[two : two + size])


@compiled
def _is_peak(best: Any, p: int, width: int) -> Any:
    for dy in range(-1, 2):
        for dx in range(-1, 2):
            q = p + dy * width + dx
            if q >= 0 and q < best.size and best[q] > best[p]:
                return False
    return True


@compiled
def _own(
    room: Any, shape: Any, square: Any, width: int, tile: Any, held: Any, p: int, work: Any
) -> Any:
    """The best sum at cell ``p`` of the strip over those velocities of a tile that are ``held``,
    and its indices; -1000 where none is."""
    hy, hx = tile[0] >> 1, tile[1] >> 1
    for side in range(2):
        for y in range(HALF + side):
            for x in range(HALF + side):
                one, two = _halves(shape, square, width, square.level - 1, hy + y, hx + x, side)
                total = np.int64(room[one + p]) + room[two + p]
                total = total if total < MOST else MOST
                work[side, y, x] = total if total > -MOST else -MOST
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
    work = np.empty((2 + (HALF + 1) * HALF, CHUNK), np.int8)
    few = np.empty((2, HALF + 1, HALF + 1), np.int64)
    every = np.empty(most, np.int8)
    places = np.empty(every.size, np.int32)
    for strip in range(len(cuts) - 1):
        cells = (cuts[strip + 1] - cuts[strip]) * width
        shape = shapes[strip]
        best = every[:cells]
        for start in starts:
            _sums(lines, grid, square, start, cuts[strip] * width, room, shape)
            for t in range(len(tiles)):
                tile = tiles[t]
                for begin in range(0, cells, CHUNK):
                    some = best[begin : min(begin + CHUNK, cells)]
                    _best(room, shape, square, width, tile, begin, work, some)
                for p in _reaching(best, lowest, places):
                    if not _is_peak(best, p, width):
                        continue
                    score, iy, ix = _own(room, shape, square, width, tile, held[t], p, few)
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
