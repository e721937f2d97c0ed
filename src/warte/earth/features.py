"""What pixels are compared by: their bands, textures around them, or learned patches.

Every feature of a pixel depends on the window around it alone and is computed by sums of fixed
order, or of whole numbers that float64 holds exactly. So tiles do not show, whatever their size.
Pixels that are not valid, and what lies outside the picture, have no part in it.

Textures: local mean, local standard deviation, and contrast, which is the root of the mean squared
difference of neighbours: Haralick, Shanmugam & Dinstein, "Textural features for image
classification", IEEE Trans. SMC 3 (1973), f2, without its grey levels.
Learned: principal components of the patches of the scenes themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from warte.earth.scene import Float32Array, Pixels

Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

LEVELS = 2**20  # of the widest band in a learned feature
WEIGHT_BITS = 20  # of a weight of a learned feature: products of both and their sums are exact


class Features(Protocol):
    """A picklable way to make features of pixels."""

    @property
    def margin(self) -> int:
        """Pixels around a window that its features depend on."""
        ...

    def names(self, bands: Sequence[str]) -> tuple[str, ...]:
        """A name for each feature of pictures with these bands."""
        ...

    def of(self, pixels: Pixels) -> Float32Array:
        """Features (features, rows, columns) float32; of pixels that are not valid anything."""
        ...


@dataclass(frozen=True)
class Bands:
    """The bands themselves."""

    margin: int = 0

    def names(self, bands: Sequence[str]) -> tuple[str, ...]:
        """See `Features`."""
        return tuple(bands)

    def of(self, pixels: Pixels) -> Float32Array:
        """See `Features`."""
        return pixels.values


@dataclass(frozen=True)
class Textures:
    """Mean, standard deviation and contrast of each band in a square window.

    radius: pixels from the centre to the side of the window, which is 2 radius + 1 wide.
    """

    radius: int = 2

    @property
    def margin(self) -> int:
        """See `Features`."""
        return self.radius

    def names(self, bands: Sequence[str]) -> tuple[str, ...]:
        """See `Features`."""
        return tuple(f"{what}_{band}" for what in ("mean", "std", "contrast") for band in bands)

    def of(self, pixels: Pixels) -> Float32Array:
        """See `Features`; in the units of the bands."""
        valid, radius = pixels.valid, self.radius
        number = np.maximum(_box(valid.astype(np.float64), radius), 1)
        found = np.empty((3, *pixels.values.shape), np.float32)
        pairs = _pairs(valid, radius)
        for band, raw in enumerate(pixels.values):
            values = np.where(valid, raw, 0).astype(np.float64)
            mean = _box(values, radius) / number
            square = _box(values * values, radius) / number
            found[0, band] = mean
            found[1, band] = np.sqrt(np.maximum(square - mean * mean, 0))
            found[2, band] = np.sqrt(_contrast(values, valid, radius) / pairs)
        return found.reshape(-1, *valid.shape)


def _box(values: Float64Array, radius: int) -> Float64Array:
    """Sums over squares around each pixel; what lies outside counts 0.

    Adds shifted pictures: running sums would depend on where the window begins.
    """
    for axis in (0, 1):
        values = _slide(values, axis, radius, radius)
    return values


def _slide(values: Float64Array, axis: int, before: int, after: int) -> Float64Array:
    """Sums over the pixels from `before` places before each one to `after` behind it."""
    length = values.shape[axis]
    total = np.zeros_like(values)
    moved_total, moved = np.moveaxis(total, axis, 0), np.moveaxis(values, axis, 0)
    for step in range(-before, after + 1):
        to = slice(max(0, -step), min(length, length - step))
        if to.start < to.stop:
            moved_total[to] += moved[to.start + step : to.stop + step]
    return total


def _differences(
    values: Float64Array, valid: BoolArray, axis: int
) -> tuple[Float64Array, Float64Array]:
    """Squared difference of each pixel and the next one along an axis, and where both are valid."""
    here = [slice(None), slice(None)]
    there = [slice(None), slice(None)]
    here[axis], there[axis] = slice(None, -1), slice(1, None)
    both = np.zeros(values.shape)
    both[tuple(here)] = valid[tuple(here)] & valid[tuple(there)]
    squared = np.zeros(values.shape)
    squared[tuple(here)] = np.square(values[tuple(there)] - values[tuple(here)])
    return squared * both, both


def _inside(values: Float64Array, axis: int, radius: int) -> Float64Array:
    """Sums over the pairs along an axis that lie inside the square around each pixel."""
    return _slide(_slide(values, axis, radius, radius - 1), 1 - axis, radius, radius)


def _contrast(values: Float64Array, valid: BoolArray, radius: int) -> Float64Array:
    parts = [_inside(_differences(values, valid, axis)[0], axis, radius) for axis in (0, 1)]
    return parts[0] + parts[1]


def _pairs(valid: BoolArray, radius: int) -> Float64Array:
    """How many pairs of neighbours the square around each pixel holds, 1 where none."""
    nothing = np.zeros(valid.shape)
    parts = [_inside(_differences(nothing, valid, axis)[1], axis, radius) for axis in (0, 1)]
    return np.maximum(parts[0] + parts[1], 1)


@dataclass(frozen=True)
class Patches:
    """Principal components of patches.

    radius: as of `Textures`. filters: (components, bands, side, side) float64, whole multiples of
    2**-WEIGHT_BITS. low: (bands,) and step, a power of two: values are taken as whole numbers of
    steps from low, up to LEVELS. Pixels of a patch that are not valid count as the mean of those
    that are.
    """

    radius: int
    filters: Float64Array
    low: Float64Array
    step: float

    @property
    def margin(self) -> int:
        """See `Features`."""
        return self.radius

    def names(self, bands: Sequence[str]) -> tuple[str, ...]:
        """See `Features`."""
        return tuple(f"component_{number}" for number in range(1, len(self.filters) + 1))

    def of(self, pixels: Pixels) -> Float32Array:
        """See `Features`; in the units of the bands."""
        side = 2 * self.radius + 1
        rows, columns = pixels.valid.shape
        levels = self._levels(pixels)
        number = np.maximum(_box(pixels.valid.astype(np.float64), self.radius), 1)
        means = np.rint(np.stack([_box(band, self.radius) for band in levels]) / number)
        padded = np.pad(levels, ((0, 0), (self.radius,) * 2, (self.radius,) * 2))
        valid = np.pad(pixels.valid, self.radius)
        total = np.zeros((len(self.filters), rows * columns))
        for row, column in np.ndindex(side, side):
            place = (slice(row, row + rows), slice(column, column + columns))
            part = np.where(valid[place], padded[:, place[0], place[1]], means)
            total += self.filters[:, :, row, column] @ part.reshape(len(part), -1)
        return (total * self.step).reshape(-1, rows, columns).astype(np.float32)

    def _levels(self, pixels: Pixels) -> Float64Array:
        """Values as whole numbers of steps, (bands, rows, columns); 0 where not valid."""
        filled = np.where(pixels.valid, pixels.values, 0).astype(np.float64)
        steps = np.rint((filled - self.low[:, None, None]) / self.step)
        return np.where(pixels.valid, np.clip(steps, 0, LEVELS), 0)


def learn_patches(patches: Float32Array, radius: int, components: int) -> Patches:
    """Principal components of a sample of patches.

    Args:
        patches: (n, bands, side, side), NaN where not valid.
        radius: of the patches (pixels).
        components: how many, at most as many as a patch has numbers.
    """
    number, bands, side, _ = patches.shape
    flat = patches.reshape(number, bands, -1).astype(np.float64)
    filled = np.where(np.isnan(flat), np.nanmean(flat, axis=2, keepdims=True), flat)
    low, high = filled.min(axis=(0, 2)), filled.max(axis=(0, 2))
    widest = max(float((high - low).max()), 2.0**-100)
    step = 2.0 ** np.ceil(np.log2(widest / LEVELS))
    vectors = filled.reshape(number, -1)
    _, axes = np.linalg.eigh(np.cov(vectors, rowvar=False))
    found = axes[:, ::-1][:, :components].T
    # The sign of an axis is not defined: its largest number is positive.
    largest = np.abs(found).argmax(axis=1)
    found = found * np.sign(found[np.arange(len(found)), largest])[:, None]
    rounded = np.ldexp(np.rint(np.ldexp(found, WEIGHT_BITS)), -WEIGHT_BITS)
    return Patches(radius, rounded.reshape(-1, bands, side, side), low, float(step))
