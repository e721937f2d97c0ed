"""All dates as one scene, and a fixed sample of its blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from warte.core.data.tiles import Window
from warte.core.errors import InputError
from warte.earth.scene import BoolArray, Float32Array, Grid, Pixels, Scene

FloatArray = npt.NDArray[np.float64]
# Stands for "not seen at this date" where the pixel was seen at others: no sensor gives it.
MISSING = np.float32(-3.0e38)
BLOCK = 64  # pixels of a block's side
VALUES = 24_000_000  # numbers that a sample holds at most
BLOCKS = 256


@dataclass(frozen=True)
class Stack:
    """Reads the same bands of several scenes on one grid, date after date.

    A pixel is valid where at least `needed` dates saw it; at the others it holds MISSING.
    """

    scenes: tuple[Scene, ...]
    names: tuple[str, ...]
    needed: int

    def read(self, window: Window, bands: Sequence[int]) -> tuple[Float32Array, BoolArray]:
        """See `warte.earth.scene.Reader`; band t * len(names) + b is band b of date t."""
        parts, seen = [], []
        for scene in self.scenes:
            pixels = scene.read(window, self.names)
            parts.append(np.where(pixels.valid, pixels.values, MISSING))
            seen.append(pixels.valid)
        values = np.concatenate(parts).astype(np.float32)
        return values[list(bands)], np.sum(seen, axis=0) >= self.needed


def stack(scenes: Sequence[Scene], names: Sequence[str], grid: Grid, needed: int) -> Scene:
    """One scene of all dates; its bands are called "0 red", "0 nir", "1 red"..."""
    bands = tuple(f"{number} {name}" for number in range(len(scenes)) for name in names)
    return Scene("dates", grid, bands, Stack(tuple(scenes), tuple(names), needed))


def by_date(pixels: Pixels, dates: int) -> tuple[Float32Array, BoolArray]:
    """(dates, bands, rows, columns) values, 0 where not seen, and (dates, rows, columns) seen."""
    values = pixels.values.reshape(dates, -1, *pixels.valid.shape)
    seen = (values[:, 0] > MISSING) & pixels.valid
    return np.where(seen[:, None], values, np.float32(0)), seen


@dataclass(frozen=True)
class Sample:
    """Blocks of pixels spread evenly over a picture: the same whatever the windows or workers.

    values: (blocks, dates, bands, BLOCK, BLOCK) float32, 0 where not seen. seen: (blocks, dates,
    BLOCK, BLOCK).
    """

    values: Float32Array
    seen: BoolArray


def take_sample(scene: Scene, dates: int) -> Sample:
    """The blocks of a stack that hold valid pixels.

    Raises:
        InputError: none does.
    """
    grid = scene.grid
    size = len(scene.bands) * BLOCK * BLOCK
    values, seen = [], []
    for window in blocks(grid, max(4, min(BLOCKS, VALUES // size))):
        pixels = scene.read(window)
        if not pixels.valid.any():
            continue
        found, there = by_date(pixels, dates)
        room = ((0, BLOCK - window.rows), (0, BLOCK - window.columns))
        values.append(np.pad(found, ((0, 0), (0, 0), *room)))
        seen.append(np.pad(there, ((0, 0), *room)))
    if not values:
        raise InputError(
            "no pixel is seen at enough of the dates: all is no-data or cloud; give other dates"
        )
    return Sample(np.stack(values), np.stack(seen))


def blocks(grid: Grid, most: int) -> list[Window]:
    """At most about `most` blocks in even rows and columns; all of a small picture."""
    rows, columns = math.ceil(grid.rows / BLOCK), math.ceil(grid.columns / BLOCK)
    if rows * columns > most:
        shrink = math.sqrt(most / (rows * columns))
        rows, columns = max(1, round(rows * shrink)), max(1, round(columns * shrink))
    return [
        Window(row, column, min(BLOCK, grid.rows - row), min(BLOCK, grid.columns - column))
        for row in _starts(grid.rows, rows)
        for column in _starts(grid.columns, columns)
    ]


def _starts(length: int, count: int) -> list[int]:
    """First pixels of `count` blocks that do not overlap where there is room."""
    if count * BLOCK >= length:
        return list(range(0, length, BLOCK))
    step = length / count
    return [int(number * step + (step - BLOCK) / 2) for number in range(count)]
