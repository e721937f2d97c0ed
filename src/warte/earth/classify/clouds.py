"""What tells clouds and their shadows from the ground, whatever the sensor and the place.

A sensor's brightness depends on its calibration, the sun and the haze, so each pixel is compared
with the ground around it rather than with fixed limits. A shadow is dark in the near infrared and
lies on one side of a cloud, at the same distance for all clouds of a height: that direction is
found in the picture itself, without labels, by correlating what is bright and white with what is
dark (the idea of matching objects is that of Zhu & Woodcock 2012, Remote Sensing of Environment
118, 83; haze-optimised transform: Zhang et al. 2002, RSE 82, 173; whiteness: Gomez-Chova et al.
2007, IEEE TGRS 45, 4105).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from warte.core.data.tiles import Window
from warte.earth.classify.around import box_mean

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
BLOCK = 8  # pixels of a side that become one value of the background
AROUND = 8  # blocks on each side whose values give the background of one
SMOOTH = 4  # blocks on each side over which the background is smoothed
GROUND = 0.4  # this quantile of the surroundings is taken as ground without cloud
FARTHEST = 72  # pixels between a cloud and its shadow that are looked for
NEAREST = 3
STEPS = (0.5, 0.75, 0.9, 1.0, 1.1, 1.3, 1.6)  # of the common distance: clouds lie lower and higher
PEAK = 6.0  # a distance is believed when its correlation stands out by so many spreads
RADII = (2, 6, 16)  # pixels of the boxes
LEAST = 5e-3  # reflectance below which the logarithm is cut


def reach(shadow: tuple[int, int] | None) -> int:
    """How far a channel looks (pixels), for the direction of the shadows in the scene."""
    background = (AROUND + SMOOTH + 2) * BLOCK
    ray = 0 if shadow is None else int(np.ceil(max(STEPS) * max(map(abs, shadow)))) + RADII[0]
    return background + max(ray, RADII[-1])


def channels(
    values: Float32Array, window: Window, shadow: tuple[int, int] | None
) -> dict[str, Float32Array]:
    """Named channels, each (rows, columns) float32, NaN where not valid or not known.

    values: (6, rows, columns) reflectance of BANDS, NaN where not valid. window: where they lie in
    the scene. shadow: rows and columns from a cloud to its shadow (pixels), None if not known.
    """
    seen = _seen(values, window)
    out = dict(seen)
    for radius in RADII:
        for name in ("dark", "cloud", "brighter", "whiteness"):
            out[f"{name} {radius}"] = box_mean(seen[name], radius)
    out |= _rays(seen, shadow)
    return {name: channel.astype(np.float32) for name, channel in out.items()}


def _seen(values: Float32Array, window: Window) -> dict[str, Float64Array]:
    """Each pixel by itself and against the ground around it."""
    with np.errstate(invalid="ignore"):
        bands = np.maximum(values.astype(np.float64), LEAST)
    blue, green, red, nir, swir16, _ = bands
    visible = (blue + green + red) / 3
    least = np.minimum(np.minimum(blue, green), red)
    whiteness = (abs(blue - visible) + abs(green - visible) + abs(red - visible)) / visible
    haze = blue - 0.5 * red
    logs = np.log(bands)
    drops = [log - background(log, window) for log in logs]
    brighter = least - background(least, window)
    out = {f"{name} against ground": drop for name, drop in zip(BANDS, drops, strict=True)}
    # Dark in both of these: water is dark in the two as well, but lies on no side of a cloud.
    out["dark"] = np.maximum(-np.maximum(drops[3], drops[4]), 0.0)
    out["brighter"] = brighter
    out["whiteness"] = whiteness
    out["cloud"] = np.clip(brighter / 0.15, 0, 1) * np.clip((0.9 - whiteness) / 0.4, 0, 1)
    out["haze"] = haze
    out["haze against ground"] = haze - background(haze, window)
    out["visible"] = visible
    out["least"] = least
    out["ndvi"] = (nir - red) / (nir + red)
    out["ndsi"] = (green - swir16) / (green + swir16)
    out["ndwi"] = (green - nir) / (green + nir)
    out["ndmi"] = (nir - swir16) / (nir + swir16)
    return out


def _rays(seen: dict[str, Float64Array], shadow: tuple[int, int] | None) -> dict[str, Float64Array]:
    """How much cloud lies towards the sun of a pixel, and how much dark lies away from it."""
    parts = {"near": STEPS[:2], "there": STEPS[2:5], "far": STEPS[5:]}
    nothing = np.full(seen["cloud"].shape, np.nan)
    if shadow is None:
        return {f"{what} {part}": nothing for part in parts for what in ("sunward", "beyond")}
    cloud, dark = box_mean(seen["cloud"], RADII[0]), box_mean(seen["dark"], RADII[0])
    out = {}
    for part, steps in parts.items():
        places = [(round(shadow[0] * step), round(shadow[1] * step)) for step in steps]
        back = [(-row, -column) for row, column in places]
        out[f"sunward {part}"] = _largest([moved(cloud, *place) for place in places])
        out[f"beyond {part}"] = _largest([moved(dark, *place) for place in back])
    return out


def _largest(parts: Sequence[Float64Array]) -> Float64Array:
    """The largest of what is known in each pixel, NaN where nothing is."""
    return np.fmax.reduce(parts)


def moved(values: Float64Array, rows: int, columns: int) -> Float64Array:
    """The picture moved down and to the right by whole pixels, NaN where it leaves."""
    out = np.full(values.shape, np.nan)
    height, width = values.shape
    if abs(rows) >= height or abs(columns) >= width:
        return out
    out[max(rows, 0) : height + min(rows, 0), max(columns, 0) : width + min(columns, 0)] = values[
        max(-rows, 0) : height + min(-rows, 0), max(-columns, 0) : width + min(-columns, 0)
    ]
    return out


def background(values: Float64Array, window: Window) -> Float64Array:
    """What the ground around each pixel is like: a low quantile of the surroundings, smooth.

    values: (rows, columns), NaN where not known. The blocks lie on the scene's own raster, so that
    a tile of it gives the same.
    """
    top, left = window.row % BLOCK, window.column % BLOCK
    rows, columns = values.shape
    bottom, right = -(top + rows) % BLOCK, -(left + columns) % BLOCK
    padded = np.pad(values, ((top, bottom), (left, right)), constant_values=np.nan)
    low = _quantile(_block_means(padded))
    weights = np.exp(-0.5 * (np.arange(-SMOOTH, SMOOTH + 1) / (SMOOTH / 2)) ** 2)
    known = np.isfinite(low)
    total, count = np.where(known, low, 0.0), known.astype(np.float64)
    for axis in (0, 1):
        total = ndimage.correlate1d(total, weights, axis=axis, mode="constant")
        count = ndimage.correlate1d(count, weights, axis=axis, mode="constant")
    smooth = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 1e-9)
    return _stretched(smooth)[top : top + rows, left : left + columns]


def _block_means(values: Float64Array) -> Float64Array:
    """Means of BLOCK x BLOCK pixels, NaN where fewer than a quarter of them are known."""
    known = np.isfinite(values)
    total, count = np.where(known, values, 0.0), known.astype(np.float64)
    # Added one row and one column at a time: the order is the same in any window.
    for axis in (0, 1):
        total, count = _eighths(total, axis), _eighths(count, axis)
    enough = count >= BLOCK * BLOCK / 4
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=enough)


def _eighths(values: Float64Array, axis: int) -> Float64Array:
    """Sums of BLOCK rows, or of BLOCK columns."""
    lines = np.moveaxis(values, axis, 0)
    out = lines[::BLOCK].copy()
    for step in range(1, BLOCK):
        out += lines[step::BLOCK]
    return np.moveaxis(out, 0, axis)


def _quantile(blocks: Float64Array) -> Float64Array:
    """The quantile GROUND of the known blocks around each block, NaN where none is known."""
    side = 2 * AROUND + 1
    around = np.lib.stride_tricks.sliding_window_view(
        np.pad(blocks, AROUND, constant_values=np.nan), (side, side)
    )
    ordered = np.sort(around.reshape(*blocks.shape, side * side), axis=-1)  # NaN come last
    count = np.isfinite(ordered).sum(axis=-1)
    place = np.floor(GROUND * np.maximum(count - 1, 0)).astype(np.int64)
    return np.take_along_axis(ordered, place[..., None], axis=-1)[..., 0]


def _stretched(blocks: Float64Array) -> Float64Array:
    """Linear between the centres of blocks, one value per pixel; the edges keep their values."""
    out = blocks
    for axis in (0, 1):
        lines = np.moveaxis(out, axis, 0)
        count = len(lines)
        place = (np.arange(count * BLOCK) + 0.5) / BLOCK - 0.5
        first = np.floor(place).astype(np.int64)
        part = (place - first)[:, None]
        low, high = lines[np.clip(first, 0, count - 1)], lines[np.clip(first + 1, 0, count - 1)]
        mixed = low * (1 - part) + high * part
        mixed = np.where(np.isfinite(low), np.where(np.isfinite(high), mixed, low), high)
        out = np.moveaxis(mixed, 0, axis)
    return out


def shadow_direction(parts: Sequence[tuple[Float32Array, Window]]) -> tuple[int, int] | None:
    """Rows and columns from the clouds of a scene to their shadows, None if none stands out.

    parts: some windows of the scene, each (6, rows, columns) reflectance and where it lies. The
    correlations of all windows are added.
    """
    side = 2 * FARTHEST + 1
    total = np.zeros((side, side))
    for values, window in parts:
        seen = _seen(values, window)
        total += _correlation(seen["cloud"], np.minimum(seen["dark"], 1.0))
    row, column = np.mgrid[-FARTHEST : FARTHEST + 1, -FARTHEST : FARTHEST + 1]
    distance = np.hypot(row, column)
    ring = (distance >= NEAREST) & (distance <= FARTHEST)
    spread = float(total[ring].std())
    if spread == 0:
        return None
    best = np.where(ring, total, -np.inf).argmax()
    if total.flat[best] < np.median(total[ring]) + PEAK * _robust_spread(total[ring]):
        return None
    return int(row.flat[best]), int(column.flat[best])


def _robust_spread(values: Float64Array) -> float:
    """Spread by the lower half, which a peak does not widen."""
    middle, low = np.quantile(values, (0.5, 0.1587))
    return float(max(middle - low, np.finfo(float).tiny))


def _correlation(cloud: Float64Array, dark: Float64Array) -> Float64Array:
    """Sum of cloud(x) * dark(x + d) for all d up to FARTHEST, both without their slow part."""
    first, second = (_detail(part) for part in (cloud, dark))
    shape = tuple(length + FARTHEST for length in first.shape)  # what leaves does not come back
    spectrum = np.conj(np.fft.rfft2(first, s=shape)) * np.fft.rfft2(second, s=shape)
    whole = np.fft.irfft2(spectrum, s=shape)
    side = np.arange(-FARTHEST, FARTHEST + 1)
    return whole[np.ix_(side, side)]


def _detail(values: Float64Array) -> Float64Array:
    """A picture less its mean over wide boxes, 0 where not known."""
    return np.nan_to_num(values - box_mean(values, 40))
