"""Fill that no tag names: found by its shape, in one pass of strips, kept as runs of pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from warte.core.data.tiles import Window
from warte.earth.scene import BoolArray, Grid

IntArray = npt.NDArray[np.int64]
# Raw numbers (rows, columns) of a window of one band, from 0.
ReadBand = Callable[[Window, int], npt.NDArray[Any]]

COMMON = (0.0, -9999.0, -32768.0)  # fill values in use, besides the ends of a type's range
BORDER_SHARE = 0.01  # of the border, that a value must hold to be looked at
AREA_SHARE = 0.001  # of the picture, that fill joined to the border must cover
RING_SHARE = 0.5  # of the pixels around, that may hold the value in some bands
POCKET_PX = 16  # pixels; constant patches that near to fill belong to it
SIDE_ROWS = 64  # rows whose ends are looked at for a value on the border
MAX_RUNS = 5_000_000  # more runs than that is noise, no fill
STRIP_PX = 250_000  # pixels that are looked at at once


@dataclass(frozen=True, eq=False)
class Runs:
    """A mask (rows, columns) as runs of True: compact where it is made of large areas.

    first: (rows + 1,) the number of the first run of each row. start, stop: columns of each run.
    """

    first: IntArray
    start: IntArray
    stop: IntArray

    def mask(self, window: Window) -> BoolArray:
        """The mask in a window (rows, columns)."""
        low, high = self.first[window.row], self.first[window.row + window.rows]
        count = np.diff(self.first[window.row : window.row + window.rows + 1])
        row = np.repeat(np.arange(window.rows), count)
        steps = np.zeros((window.rows, window.columns + 1), np.int32)
        for edge, step in ((self.start, 1), (self.stop, -1)):
            place = np.clip(edge[low:high] - window.column, 0, window.columns)
            np.add.at(steps, (row, place), step)
        return np.cumsum(steps, axis=1)[:, :-1] > 0


@dataclass(frozen=True, eq=False)
class Fill:
    """Fill that was found: its value, its pixels, and where they are."""

    value: float
    pixels: int
    runs: Runs


@dataclass(frozen=True)
class _Pieces:
    """Runs of candidate pixels and what surrounds them; all (runs,)."""

    row: IntArray
    start: IntArray
    stop: IntArray
    edges: IntArray  # sides of pixels towards others
    partial: IntArray  # of these, towards pixels that hold the value in some bands


def find_fill(
    read: ReadBand, grid: Grid, bands: int, *, block_rows: int = 1, strip_px: int = STRIP_PX
) -> Fill | None:
    """Find fill that no tag names; the answer does not depend on the size of the strips.

    Fill holds one value in all bands, reaches the border, and ends sharply: where a picture is
    truly saturated, or truly zero, the pixels around hold that value in some of the bands (with
    one band: nearly that value). Constant patches of more than one band that lie near to fill are
    fill too; those far inside are taken for true.

    Args:
        read: raw numbers of a window of a band.
        grid: size of the picture.
        bands: how many.
        block_rows: rows that the files hold together; strips are whole blocks.
        strip_px: pixels that are read at once.
    """
    value = _border_value(read, grid, bands)
    if value is None:
        return None
    pieces = _pieces(read, grid, bands, value, (block_rows, max(1, strip_px // grid.columns)))
    if pieces is None or pieces.row.size == 0:
        return None
    kept = _kept(pieces, grid, pockets=bands > 1)
    if not kept.any():
        return None
    row, start, stop = pieces.row[kept], pieces.start[kept], pieces.stop[kept]
    first = np.searchsorted(row, np.arange(grid.rows + 1))
    return Fill(value, int((stop - start).sum()), Runs(first, start, stop))


def _border_value(read: ReadBand, grid: Grid, bands: int) -> float | None:
    """The value that most of the border holds in all bands, if it can be a fill value."""
    rows = np.unique(np.linspace(0, grid.rows - 1, SIDE_ROWS).astype(int)).tolist()
    places = [Window(row, 0, 1, grid.columns) for row in (0, grid.rows - 1)]
    places += [Window(row, column, 1, 1) for column in (0, grid.columns - 1) for row in rows]
    border = np.stack(
        [np.concatenate([read(place, band)[0] for place in places]) for band in range(bands)]
    )
    same = border[0][(border == border[0]).all(axis=0)]
    found, count = np.unique(same[np.isfinite(same)], return_counts=True)
    allowed = [value in _fills(border.dtype, bands) for value in found.tolist()]
    found, count = found[allowed], count[allowed]
    if found.size == 0 or count.max() < BORDER_SHARE * border.shape[1]:
        return None
    return float(found[count.argmax()])


def _fills(dtype: np.dtype[Any], bands: int) -> set[float]:
    """Values that fill may have. One band cannot tell saturation of wide numbers from fill."""
    if dtype.kind not in "iu":
        return {*COMMON, float(np.finfo(dtype).min)}
    ends = np.iinfo(dtype)
    top = {float(ends.max)} if bands > 1 or dtype.itemsize == 1 else set()
    return {*COMMON, float(ends.min), *top}


def _pieces(
    read: ReadBand, grid: Grid, bands: int, value: float, heights: tuple[int, int]
) -> _Pieces | None:
    """All runs of pixels that hold the value in all bands; None where that is noise.

    heights: rows of a block of the files, and rows that are looked at at once.
    """
    block, chunk = heights
    height = -(-max(block, chunk) // block) * block
    parts: list[_Pieces] = []
    total = done = 0
    # Rows of the strip before: one that is looked at already and one that waits for its next.
    held, part = (np.zeros((0, grid.columns), bool) for _ in range(2))
    for top in range(0, grid.rows, height):
        window = Window(top, 0, min(height, grid.rows - top), grid.columns)
        new = _kinds(read, window, bands, value)
        held, part = np.concatenate([held[-2:], new[0]]), np.concatenate([part[-2:], new[1]])
        end = top + window.rows
        first = end - len(held)  # the row of the picture that `held` begins with
        stop = end if end == grid.rows else end - 1
        for low in range(done, stop, chunk):
            rows = slice(low - first, min(low + chunk, stop) - first)
            parts.append(_runs(held, part, rows, first))
            total += parts[-1].row.size
        done = stop
        if total > MAX_RUNS:
            return None
    names = ("row", "start", "stop", "edges", "partial")
    return _Pieces(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _kinds(read: ReadBand, window: Window, bands: int, value: float) -> tuple[BoolArray, BoolArray]:
    """Pixels that hold the value in all bands, and others that hold it in some (one: nearly)."""
    held = np.ones((window.rows, window.columns), bool)
    near = np.zeros_like(held)
    for band in range(bands):
        numbers = read(window, band)
        same = numbers == value
        held &= same
        reach = _closeness(numbers.dtype, bands)
        near |= same if reach == 0 else np.abs(numbers.astype(np.float32) - value) <= reach
    return held, near & ~held


def _closeness(dtype: np.dtype[Any], bands: int) -> float:
    """How near to fill a number is "nearly that value", in one band; in several: equal."""
    if bands > 1 or dtype.kind not in "iu":
        return 0.0
    return 2.0 if dtype.itemsize == 1 else 16.0


def _runs(held: BoolArray, part: BoolArray, rows: slice, first: int) -> _Pieces:
    """Runs of some rows of a strip that begins at row `first` of the picture."""
    seen = slice(max(0, rows.start - 1), rows.stop + 1)
    # A row of neither kind stands for what is outside of the picture.
    lack = ((rows.start == 0, rows.stop == len(held)), (0, 0))
    outside, partly = (np.pad(kind, lack) for kind in (~held[seen], part[seen]))
    inner = np.pad(held[rows], ((0, 0), (1, 1))).astype(np.int8)
    steps = np.diff(inner, axis=1)
    row, start = np.nonzero(steps == 1)
    stop = np.nonzero(steps == -1)[1]
    edges, partial = (_around(kind, row, start, stop) for kind in (outside, partly))
    return _Pieces(row + rows.start + first, start, stop, edges, partial)


def _around(kind: BoolArray, row: IntArray, start: IntArray, stop: IntArray) -> IntArray:
    """How many pixels of a kind (with a row more above and below) touch each run by a side."""
    sums = np.cumsum(np.pad(kind, ((0, 0), (1, 0))), axis=1, dtype=np.int32)
    above = sums[row, stop] - sums[row, start]
    below = sums[row + 2, stop] - sums[row + 2, start]
    sides = np.pad(kind, ((0, 0), (1, 1)))
    ends = sides[row + 1, start].astype(np.int64) + sides[row + 1, stop + 1]
    return np.asarray(above + below + ends, np.int64)


def _kept(pieces: _Pieces, grid: Grid, *, pockets: bool) -> BoolArray:
    """Which runs are fill."""
    size = pieces.stop - pieces.start
    group = _groups(pieces, grid.columns + 2)
    at_border = (
        (pieces.row == 0) | (pieces.row == grid.rows - 1)
        | (pieces.start == 0) | (pieces.stop == grid.columns)
    )  # fmt: skip
    reaches = np.bincount(group, at_border) > 0
    sharp = np.bincount(group, pieces.partial) <= RING_SHARE * np.bincount(group, pieces.edges)
    main = (reaches & sharp)[group]
    if size[main].sum() < AREA_SHARE * grid.rows * grid.columns:
        return np.zeros(size.size, bool)
    if not pockets:
        return main
    close = np.bincount(group, _near(pieces, main, grid.columns + 2)) > 0
    return main | (sharp & ~reaches & close)[group]


def _groups(pieces: _Pieces, width: int) -> IntArray:
    """A number for each run, equal for runs that touch each other, also by a corner."""
    start, stop = pieces.row * width + pieces.start, pieces.row * width + pieces.stop
    low = np.searchsorted(stop, start + width, "left")
    high = np.searchsorted(start, stop + width, "right")
    count = np.maximum(high - low, 0)
    one = np.repeat(np.arange(start.size), count)
    two = (
        np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(low, count)
    )
    group = np.arange(start.size)
    while True:  # the smallest number of a group wanders to all of it
        smallest = np.minimum(group[one], group[two])
        before = group.copy()
        np.minimum.at(group, before[one], smallest)
        np.minimum.at(group, before[two], smallest)
        group = group[group]
        if np.array_equal(group, before):
            return np.unique(group, return_inverse=True)[1]


def _near(pieces: _Pieces, main: BoolArray, width: int) -> BoolArray:
    """Which runs have a run of `main` within POCKET_PX rows and columns."""
    start = pieces.row[main] * width + pieces.start[main]
    stop = pieces.row[main] * width + pieces.stop[main]
    low = np.maximum(pieces.start - POCKET_PX, 0)
    high = np.minimum(pieces.stop + POCKET_PX, width - 2)
    near = np.zeros(pieces.row.size, bool)
    for step in range(-POCKET_PX, POCKET_PX + 1):
        base = (pieces.row + step) * width
        first = np.searchsorted(stop, base + low, "right")
        found = first < start.size
        near[found] |= start[first[found]] < (base + high)[found]
    return near
