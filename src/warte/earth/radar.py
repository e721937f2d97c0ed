"""Radar: decibels, speckle filters and the equivalent number of looks.

Arrays are (..., rows, columns) of power (linear, not dB), NaN where not valid. A filter looks
`margin` pixels around each pixel; with that margin, windows of a picture give what the whole
picture gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from warte.core.data.tiles import Window
from warte.core.errors import InputError, SettingsError
from warte.earth.scene import BoolArray, Float32Array, Reader, Scene

FloatArray = npt.NDArray[np.float64]

FILTERS = ("lee", "refined-lee")


def to_db(power: npt.ArrayLike) -> FloatArray:
    """Decibels of power; NaN where it is not above 0."""
    power = np.asarray(power, np.float64)
    return 10 * np.log10(np.where(power > 0, power, np.nan))


def from_db(decibels: npt.ArrayLike) -> FloatArray:
    """Power of decibels."""
    return np.asarray(10 ** (np.asarray(decibels, np.float64) / 10))


def equivalent_looks(power: npt.ArrayLike) -> float:
    """The equivalent number of looks of an even area: mean squared over variance.

    Raises:
        InputError: fewer than two pixels are valid, or they do not vary.
    """
    values = np.asarray(power, np.float64)
    values = values[np.isfinite(values)]
    if values.size < 2 or values.var() == 0:
        raise InputError("no looks can be told from fewer than two pixels that differ")
    return float(values.mean() ** 2 / values.var(ddof=1))


def lee(power: npt.ArrayLike, looks: float, size: int = 7) -> FloatArray:
    """Lee's filter: the mean of a square where that is even, the pixel where it is not.

    Lee 1980, IEEE Transactions on Pattern Analysis 2, 165: the weight of the pixel is
    var(x) / var(y), with var(x) = (var(y) - mean^2 / looks) / (1 + 1 / looks).

    Args:
        power: (..., rows, columns); NaN is left out and stays.
        looks: number of looks of the picture.
        size: side of the square, odd (pixels); the margin is half of it.

    Raises:
        SettingsError: the size is not odd, or looks are not above 0.
    """
    _check(looks, size)
    values = np.asarray(power, np.float64)
    valid = np.isfinite(values)
    count, mean, square = _moments(values, valid, lambda part: _box(part, size))
    return _blend(values, valid, count, mean, square, looks)


def refined_lee(power: npt.ArrayLike, looks: float) -> FloatArray:
    """Lee's refined filter: within 7 x 7 pixels, only the side of an edge that the pixel is on.

    Lee 1981, Computer Graphics and Image Processing 15, 380. Means of nine 3 x 3 squares tell the
    direction of the steepest step; of the two halves along it, that of the nearer mean is taken.
    The margin is 4 pixels.

    Args:
        power, looks: as for `lee`.

    Raises:
        SettingsError: looks are not above 0.
    """
    _check(looks, 7)
    values = np.asarray(power, np.float64)
    valid = np.isfinite(values)
    side = _side(values, valid)
    found = values.copy()
    for number, half in enumerate(_HALVES):
        here = side == number
        if here.any():
            parts = _moments(values, valid, lambda part, half=half: _weighted(part, half))  # type: ignore[misc]
            found[here] = _blend(values, valid, *parts, looks)[here]
    return found


def multitemporal(power: npt.ArrayLike, size: int = 7) -> FloatArray:
    """Quegan and Yu's filter of a series: each date takes looks from all others.

    Quegan and Yu 2001, IEEE Transactions on Geoscience and Remote Sensing 39, 2373, equation 12
    for uncorrelated dates: J_k = m_k / M * sum_i I_i / m_i, with m the mean of a square.

    Args:
        power: (dates, rows, columns); where a date is not valid, the others are used.
        size: side of the square, odd (pixels); the margin is half of it.

    Raises:
        SettingsError: the size is not odd.
    """
    _check(1.0, size)
    values = np.asarray(power, np.float64)
    valid = np.isfinite(values)
    _, mean, _ = _moments(values, valid, lambda part: _box(part, size))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(valid & (mean > 0), values / mean, 0.0)
        dates = (valid & (mean > 0)).sum(axis=0)
        found = mean * ratio.sum(axis=0) / dates
    return np.where(valid, np.where(mean > 0, found, 0.0), np.nan)


@dataclass(frozen=True)
class Filtered:
    """A reader that takes speckle out of what another reads in dB."""

    reader: Reader
    shape: tuple[int, int]
    looks: float
    refined: bool
    size: int

    def read(self, window: Window, bands: Sequence[int]) -> tuple[Float32Array, BoolArray]:
        """See `warte.earth.scene.Reader`."""
        seen = window.grown(4 if self.refined else self.size // 2, *self.shape)
        values, valid = self.reader.read(seen, bands)
        power = from_db(np.where(valid, values, np.nan))
        power = (
            refined_lee(power, self.looks) if self.refined else lee(power, self.looks, self.size)
        )
        cut = window.within(seen)
        return to_db(power)[(slice(None), *cut)].astype(np.float32), valid[cut].copy()


def despeckled(scene: Scene, filter_: str, *, looks: float, size: int = 7) -> Scene:
    """A scene of sigma nought in dB whose windows are filtered as they are read.

    Args:
        scene: in dB.
        filter_: "lee" or "refined-lee".
        looks: number of looks (about 4.4 for Sentinel-1 ground range products at 10 m).
        size: side of Lee's square, odd (pixels).

    Raises:
        InputError: the scene is not in dB.
        SettingsError: the filter is unknown, or its numbers are out of range.
    """
    if filter_ not in FILTERS:
        raise SettingsError(f"--speckle {filter_}; give one of {', '.join(FILTERS)}")
    _check(looks, size)
    if scene.quantity != "sigma0_db":
        raise InputError(f"{scene.name} is not sigma nought in dB, so it has no speckle to filter")
    reader = Filtered(scene.reader, scene.grid.shape, looks, filter_ == "refined-lee", size)
    return replace(scene, reader=reader, notes=(*scene.notes, f"speckle is filtered ({filter_})"))


def _check(looks: float, size: int) -> None:
    if not looks > 0:
        raise SettingsError(f"--looks {looks}; give a number above 0")
    if size < 3 or size % 2 == 0:
        raise SettingsError(f"--speckle-size {size}; give an odd number of 3 or more")


def _box(part: FloatArray, size: int) -> FloatArray:
    """Sums of squares of pixels; outside of the picture there is nothing.

    Not a running sum, whose rounding would depend on where the window begins.
    """
    return _weighted(part, np.ones((size, size)))


def _weighted(part: FloatArray, weights: FloatArray) -> FloatArray:
    flat = part.reshape(-1, *part.shape[-2:])
    sums = np.stack([ndimage.correlate(one, weights, mode="constant") for one in flat])
    return sums.reshape(part.shape)


def _moments(
    values: FloatArray, valid: BoolArray, sums: Callable[[FloatArray], FloatArray]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Number, mean and variance of the valid pixels around each."""
    known = np.where(valid, values, 0.0)
    count = sums(valid.astype(np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = sums(known) / count
        variance = np.maximum(sums(known**2) / count - mean**2, 0.0)
    return count, mean, variance


def _blend(
    values: FloatArray, valid: BoolArray, count: FloatArray, mean: FloatArray,
    variance: FloatArray, looks: float,
) -> FloatArray:  # fmt: skip
    """Lee's estimate from the moments around each pixel."""
    with np.errstate(divide="ignore", invalid="ignore"):
        signal = np.maximum((variance - mean**2 / looks) / (1 + 1 / looks), 0.0)
        weight = np.where(variance > 0, np.minimum(signal / variance, 1.0), 0.0)
        found = mean + weight * (values - mean)
    return np.where(valid & (count > 0), found, np.nan)


def _halves() -> list[FloatArray]:
    """The 7 x 7 pixels on one side of an edge through the middle, towards each of _RING."""
    down, across = np.mgrid[-3:4, -3:4]
    return [(down * y + across * x >= 0).astype(np.float64) for y, x in _RING]


# Steps from the middle to the eight around it (down, right), once around; the opposite is 4 on.
_RING = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))
_HALVES = _halves()
_STEP = 2  # pixels between the middles of the 3 x 3 squares, which overlap by one


def _side(values: FloatArray, valid: BoolArray) -> npt.NDArray[np.intp]:
    """Which half of _HALVES each pixel belongs to."""
    count, mean, _ = _moments(values, valid, lambda part: _box(part, 3))
    mean = np.where(count > 0, mean, np.nan)
    centre = np.where(np.isfinite(mean), mean, 0.0)
    ring = [_moved(mean, _STEP * y, _STEP * x) for y, x in _RING]
    # Where a square is not valid the pixel's own mean stands for it: no step.
    ring = [np.where(np.isfinite(part), part, centre) for part in ring]
    sides = [ring[i - 1] + ring[i] + ring[(i + 1) % 8] for i in range(8)]
    steps = np.stack([np.abs(sides[i] - sides[i + 4]) for i in range(4)])
    edge = steps.argmax(axis=0)
    one, two = np.choose(edge, ring[:4]), np.choose(edge, ring[4:])
    return np.asarray(np.where(np.abs(one - centre) <= np.abs(two - centre), edge, edge + 4))


def _moved(part: FloatArray, rows: int, columns: int) -> FloatArray:
    """part[row + rows, column + columns] at each pixel, NaN outside."""
    found = np.full_like(part, np.nan)
    height, width = part.shape[-2:]
    target = (slice(max(0, -rows), min(height, height - rows)),
              slice(max(0, -columns), min(width, width - columns)))  # fmt: skip
    source = (slice(max(0, rows), min(height, height + rows)),
              slice(max(0, columns), min(width, width + columns)))  # fmt: skip
    if target[0].start < target[0].stop and target[1].start < target[1].stop:
        found[(..., *target)] = part[(..., *source)]
    return found
