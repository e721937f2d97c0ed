"""Pictures as another sensor, another day or another place would show them."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from warte.earth.scene import Float32Array
from warte.earth.train.settings import AugmentSettings

IntArray = npt.NDArray[np.int32]
T = TypeVar("T", bound=np.generic)


def sensor(
    values: Float32Array,
    low: npt.NDArray[np.floating],
    high: npt.NDArray[np.floating],
    settings: AugmentSettings,
    rng: np.random.Generator,
) -> Float32Array:
    """Other brightness, haze, saturation, sharpness and noise; bands may be lost.

    values: (bands, rows, columns), NaN where not valid and after it too. low, high: (bands,) the
    1 % and 99 % quantiles of the bands. The bands should be in order of wavelength, shortest
    first, for the haze.
    """
    bands = len(values)
    span = np.asarray(high - low, np.float64)
    column = (slice(None), None, None)
    gain = np.exp(rng.normal(0, settings.gain) + rng.normal(0, settings.band_gain, bands))
    haze = rng.uniform(0, settings.haze) * np.geomspace(1.0, 0.05, bands)
    offset = (rng.normal(0, settings.offset, bands) + haze) * span
    out = values * gain[column] + offset[column]
    if rng.random() < settings.saturation:
        level = (high - rng.uniform(0, 0.5, bands) * span) * gain + offset
        out = np.minimum(out, level[column])
    blur = rng.uniform(0, settings.blur)
    if blur > 0.2:
        out = blurred(out, blur)
    out = out + rng.normal(0, settings.noise, out.shape) * span[column]
    out[rng.random(bands) < settings.drop] = np.nan
    if not np.isfinite(out).any():  # all bands lost: nothing would be left to learn from
        return values
    return out.astype(np.float32)


def blurred(values: npt.NDArray[np.floating], spread: float) -> npt.NDArray[np.float64]:
    """A Gaussian over each band of (bands, rows, columns), of what is valid; NaN stay."""
    known = np.isfinite(values)
    width = (0, spread, spread)
    total = ndimage.gaussian_filter(np.where(known, values, 0.0), width, mode="constant")
    count = ndimage.gaussian_filter(known.astype(np.float64), width, mode="constant")
    out: npt.NDArray[np.float64] = np.where(known, total / np.maximum(count, 1e-9), np.nan)
    return out


def zoomed(
    values: Float32Array, labels: IntArray, groups: IntArray, factor: float
) -> tuple[Float32Array, IntArray, IntArray]:
    """The picture with `factor` times as many pixels along each side, labels with it.

    A smaller picture is smoothed first, as a sensor of larger pixels does.
    """
    rows, columns = labels.shape
    size = (max(1, round(rows * factor)), max(1, round(columns * factor)))
    smooth = blurred(values, 0.5 / factor) if factor < 1 else values
    places = [
        np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        for new, old in zip(size, (rows, columns), strict=True)
    ]
    nearest = np.ix_(*(np.rint(place).astype(int) for place in places))
    mesh = np.meshgrid(*places, indexing="ij")
    # Bilinear; a pixel beside a missing one is missing too.
    out = np.stack([ndimage.map_coordinates(band, mesh, order=1) for band in smooth])
    return out.astype(np.float32), labels[nearest], groups[nearest]


def turned(picture: npt.NDArray[T], turn: int) -> npt.NDArray[T]:
    """One of the eight turns and mirror pictures (turn 0..7) of (..., rows, columns)."""
    out = np.rot90(picture, turn % 4, axes=(-2, -1))
    return out[..., ::-1] if turn >= 4 else out
