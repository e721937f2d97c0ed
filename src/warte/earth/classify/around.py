"""What surrounds a pixel: means and spreads over boxes, with pixels missing.

Every sum is taken in the same order wherever the window begins, so that a picture gives the same
numbers in one piece and in tiles.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

FloatArray = npt.NDArray[np.floating]
Float64Array = npt.NDArray[np.float64]


def box_sum(values: FloatArray, radius: int) -> Float64Array:
    """Sums over squares of 2 radius + 1 pixels around each pixel of (..., rows, columns).

    Beyond the edges there is nothing to add.
    """
    ones = np.ones(2 * radius + 1)
    out = np.asarray(values, dtype=np.float64)
    for axis in (-2, -1):
        out = ndimage.correlate1d(out, ones, axis=axis, mode="constant", cval=0.0)
    return out


def box_mean(values: FloatArray, radius: int) -> Float64Array:
    """Means over squares, of the pixels that are not NaN; NaN where there is none."""
    known = np.isfinite(values)
    total = box_sum(np.where(known, values, 0.0), radius)
    count = box_sum(known, radius)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0.5)


def box_spread(values: FloatArray, radius: int) -> Float64Array:
    """Standard deviations over squares, of the pixels that are not NaN; NaN where there is none."""
    square = box_mean(np.square(values, dtype=np.float64), radius)
    return np.sqrt(np.maximum(square - box_mean(values, radius) ** 2, 0.0))


def features(values: FloatArray, radii: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """The bands, and their means and spreads over boxes of each radius.

    values: (bands, rows, columns), NaN where not valid. Returns (bands * (1 + 2 * radii), rows,
    columns) float32: all bands, then for each radius the means of all bands and the spreads.
    """
    parts = [np.asarray(values, dtype=np.float64)]
    for radius in radii:
        parts += [box_mean(values, radius), box_spread(values, radius)]
    return np.concatenate(parts).astype(np.float32)
