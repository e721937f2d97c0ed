"""Scenes of one place brought onto one grid: cropped, and moved by less than some pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from affine import Affine

from warte.core.data.tiles import Window
from warte.core.errors import InputError
from warte.earth.scene import (
    BoolArray,
    Float32Array,
    Grid,
    Reader,
    Scene,
    check_crs,
    same_grid,
)

FloatArray = npt.NDArray[np.float64]
STILL = 0.05  # shifts smaller than this are left as they are (pixels)
CLEAR = 12.0  # standard deviations by which the best place must exceed the others
TAPS = 4  # pixels of the cubic kernel


@dataclass(frozen=True)
class Moved:
    """Reads another reader's pixels as if they lay elsewhere.

    Pixel (row, column) of this reader is the inner pixel (row + down, column + right); parts of a
    pixel are interpolated by cubic convolution (Keys 1981, IEEE ASSP 29, 1153). rows, columns: of
    the inner reader. What lies outside, or takes an invalid pixel, is not valid.
    """

    inner: Reader
    rows: int
    columns: int
    down: float
    right: float

    def read(self, window: Window, bands: Sequence[int]) -> tuple[Float32Array, BoolArray]:
        """See `warte.earth.scene.Reader`."""
        down, right = math.floor(self.down), math.floor(self.right)
        outer = Window(
            window.row + down - 1, window.column + right - 1,
            window.rows + TAPS - 1, window.columns + TAPS - 1,
        )  # fmt: skip
        values, valid = self._padded(outer, bands)
        for axis, part in ((1, self.down - down), (2, self.right - right)):
            values, valid = _interpolated(values, valid, part, axis)
        values[:, ~valid] = np.nan
        return values, valid

    def _padded(self, outer: Window, bands: Sequence[int]) -> tuple[Float32Array, BoolArray]:
        """The inner pixels of a window that may reach over the edge."""
        values = np.zeros((len(bands), outer.rows, outer.columns), np.float32)
        valid = np.zeros((outer.rows, outer.columns), bool)
        top, left = max(0, outer.row), max(0, outer.column)
        rows = min(self.rows, outer.row + outer.rows) - top
        columns = min(self.columns, outer.column + outer.columns) - left
        if rows > 0 and columns > 0:
            inner = Window(top, left, rows, columns)
            place = inner.within(outer)
            found, seen = self.inner.read(inner, bands)
            seen = seen & np.isfinite(found).all(axis=0)
            values[(slice(None), *place)] = np.where(seen, found, 0)
            valid[place] = seen
        return values, valid


def _interpolated(
    values: Float32Array, valid: BoolArray, part: float, axis: int
) -> tuple[Float32Array, BoolArray]:
    """Values between pixels 1 and 2 of each four along an axis; three pixels fewer."""
    weights = _cubic(part)
    size = values.shape[axis] - TAPS + 1
    total = np.zeros(tuple(size if n == axis else s for n, s in enumerate(values.shape)))
    seen = np.ones(total.shape[1:], bool)
    for tap, weight in enumerate(weights):
        if weight:
            total += weight * values.take(range(tap, tap + size), axis)
            seen &= valid.take(range(tap, tap + size), axis - 1)
    return total.astype(np.float32), seen


def _cubic(part: float) -> tuple[float, ...]:
    """Weights of four neighbours for a place `part` (0..1) behind the second."""
    return (
        ((-0.5 * part + 1) * part - 0.5) * part,
        (1.5 * part - 2.5) * part * part + 1,
        ((-1.5 * part + 2) * part + 0.5) * part,
        (0.5 * part - 0.5) * part * part,
    )


def moved(scene: Scene, grid: Grid, down: float, right: float) -> Scene:
    """The scene on another grid, of which pixel (0, 0) is the scene's pixel (down, right)."""
    reader = scene.reader
    if isinstance(reader, Moved):  # one interpolation, not two
        down, right, reader = down + reader.down, right + reader.right, reader.inner
        rows, columns = scene.reader.rows, scene.reader.columns  # type: ignore[attr-defined]
    else:
        rows, columns = scene.grid.rows, scene.grid.columns
    if (down, right) == (0, 0) and grid.shape == (rows, columns):
        return replace(scene, grid=grid, reader=reader)
    return replace(scene, grid=grid, reader=Moved(reader, rows, columns, down, right))


def on_one_grid(scenes: Sequence[Scene]) -> list[Scene]:
    """The scenes on the part of the first one's grid that all cover.

    Grids of one CRS and pixel size may start at different places, by parts of a pixel too.

    Raises:
        InputError: CRS or pixel sizes differ, or there is no part that all cover; or nothing says
            where the scenes lie, and they differ in size.
    """
    check_crs(scenes)
    first = scenes[0].grid
    if _lies_nowhere(first):
        same_grid(scenes)
    offsets = [_offset(first, scene.grid) for scene in scenes]
    if any(offset is None for offset in offsets):
        same_grid(scenes)
    places = [offset for offset in offsets if offset is not None]
    top = max(math.ceil(row - 1e-6) for row, _ in places)
    left = max(math.ceil(column - 1e-6) for _, column in places)
    bottom = min(
        math.floor(row + scene.grid.rows + 1e-6)
        for (row, _), scene in zip(places, scenes, strict=True)
    )
    right = min(
        math.floor(column + scene.grid.columns + 1e-6)
        for (_, column), scene in zip(places, scenes, strict=True)
    )
    if bottom - top < 1 or right - left < 1:
        raise InputError(
            f"the scenes {', '.join(scene.name for scene in scenes[:4])} have no ground in common; "
            "give scenes of one place"
        )
    grid = Grid(bottom - top, right - left, moved_to(first.transform, top, left), first.crs)
    return [
        moved(scene, grid, _whole(top - row), _whole(left - column))
        for scene, (row, column) in zip(scenes, places, strict=True)
    ]


def moved_to(transform: Affine, row: int, column: int) -> Affine:
    """The transform of a window whose first pixel is (row, column)."""
    a, b, c, d, e, f = transform[:6]
    return Affine(a, b, c + column * a + row * b, d, e, f + column * d + row * e)


def _whole(value: float) -> float:
    return float(round(value)) if abs(value - round(value)) < 1e-6 else value


def _lies_nowhere(grid: Grid) -> bool:
    """Whether the grid is plain rows and columns, with no place of its own."""
    return grid.crs is None and grid.transform == Affine.identity()


def _offset(first: Grid, other: Grid) -> tuple[float, float] | None:
    """Row and column of the other's corner in the first; None where the pixels differ."""
    if first.crs != other.crs:
        return None
    one = np.array(first.transform[:6]).reshape(2, 3)[:, :2]
    two = np.array(other.transform[:6]).reshape(2, 3)[:, :2]
    # The far corner may be off by a thousandth of a pixel.
    reach = max(first.rows, first.columns, other.rows, other.columns)
    if np.abs(one - two).max() * reach > 1e-3 * np.abs(one).max():
        return None
    away = (other.transform.c - first.transform.c, other.transform.f - first.transform.f)
    column, row = np.linalg.solve(one, away)
    return float(row), float(column)


def shift_between(one: FloatArray, two: FloatArray) -> tuple[float, float] | None:
    """Rows and columns by which the content of `two` lies behind that of `one`.

    None where no place fits clearly better than the others.

    one, two: (blocks, size, size) of the same places, pictures of edges, 0 where nothing is seen.
    Phase correlation, summed over the blocks (Kuglin & Hines 1975); the top of the peak by a
    parabola through its neighbours.
    """
    size = one.shape[-1]
    hann = np.hanning(size + 2)[1:-1]
    taper = hann[:, None] * hann[None, :]
    spectra = []
    for blocks in (one, two):
        mean = blocks.mean(axis=(1, 2), keepdims=True)
        spectra.append(np.fft.rfft2((blocks - mean) * taper))
    cross = spectra[1] * spectra[0].conj()
    weight = np.abs(cross)
    # Each block has the same say, and its weak waves less than the strong ones: noise is white.
    cross = (cross / np.sqrt(weight + 1e-12 * weight.max() + 1e-300)).sum(axis=0)
    top = np.fft.irfft2(cross, s=(size, size))
    if (top.max() - top.mean()) / (top.std() + 1e-300) < CLEAR:
        return None
    row, column = np.unravel_index(int(top.argmax()), top.shape)
    down = row + _parabola(top[(row - 1) % size, column], top[row, column],
                           top[(row + 1) % size, column])  # fmt: skip
    right = column + _parabola(top[row, (column - 1) % size], top[row, column],
                               top[row, (column + 1) % size])  # fmt: skip
    half = size / 2
    return (float((down + half) % size - half), float((right + half) % size - half))


def _parabola(before: float, at: float, after: float) -> float:
    """Where the parabola through three points has its top, from the middle one (-0.5..0.5)."""
    curve = before - 2 * at + after
    return 0.0 if curve >= 0 else float(np.clip(0.5 * (before - after) / curve, -0.5, 0.5))


def edges(values: FloatArray, valid: BoolArray) -> FloatArray:
    """(blocks, size, size) strength of edges over all bands; 0 beside what is not valid.

    values: (blocks, bands, size, size). Edges keep their place where the colours of a season turn.
    """
    spread = np.array(
        [
            max(band[valid].std(), 1e-12) if valid.any() else 1.0
            for band in np.moveaxis(values, 1, 0)
        ]
    )
    filled = np.where(valid[:, None], values, 0) / spread[:, None, None]
    total = np.zeros(valid.shape)
    inside = valid.copy()
    for axis in (1, 2):
        step = (np.roll(filled, -1, axis + 1) - np.roll(filled, 1, axis + 1)) / 2
        total += (step**2).sum(axis=1)
        inside &= np.roll(valid, 1, axis) & np.roll(valid, -1, axis)
    inside[:, [0, -1]] = False
    inside[:, :, [0, -1]] = False
    strength = np.where(inside, np.sqrt(total), 0)
    return np.minimum(strength, np.quantile(strength, 0.98))
