"""Small pictures of large scenes: what a person sees first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from rasterio.enums import Resampling

from warte.core.data.tiles import Window
from warte.earth.scene import Scene
from warte.earth.write import open_picture

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]
Report = Callable[[str, int, int | None], None]

SIDE = 2048  # pixels at most along a side of a picture in the page
STRIP = 2**16  # pixels of a scene that are read at once
SAMPLE = 2**20  # pixels from which the percentiles are taken
STRETCH = (1.0, 99.0)  # percentiles that become black and white
# Bands that make a picture, the first set that the scene has: red, green, blue.
TRIPLES = (("red", "green", "blue"), ("nir", "red", "green"), ("swir16", "nir", "red"))
RADAR = (("vv", "vh"), ("hh", "hv"))
# From low to high (dark violet over red to pale yellow); evenly rising in lightness.
HEAT = ((10, 7, 34), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164))


def steps(rows: int, columns: int, side: int = SIDE) -> int:
    """How many pixels of the scene, along a side, make one of the picture."""
    return max(1, -(-max(rows, columns) // side))


def chosen_bands(bands: Sequence[str]) -> tuple[str, ...]:
    """The bands that become red, green and blue; one band alone becomes grey.

    Without names of colours they are spread over the bands, the last third as red.
    """
    for triple in TRIPLES:
        if set(triple) <= set(bands):
            return triple
    for pair in RADAR:
        if set(pair) <= set(bands):
            return (pair[0], pair[1], pair[0])
    if len(bands) < 3:
        return (bands[0],)
    if len(bands) < 5:  # a picture made to be looked at: red first
        return (bands[0], bands[1], bands[2])
    if len(bands) < 10:  # a sensor's own order: blue first
        return (bands[2], bands[1], bands[0])
    return tuple(bands[int(share * len(bands))] for share in (0.6, 0.35, 0.1))


def quicklook(
    scene: Scene, *, side: int = SIDE, report: Report | None = None
) -> tuple[ByteArray, int]:
    """A picture of the whole scene and how many pixels make one of it.

    Returns (rows, columns, 4) uint8: red, green, blue, and 255 where any pixel is valid. Each is
    the mean of a square of valid pixels, stretched between percentiles 1 and 99. The scene is read
    in strips.
    """
    step = steps(*scene.grid.shape, side)
    bands = chosen_bands(scene.bands)
    strip = max(step, STRIP // scene.grid.columns // step * step)
    high, wide = -(-scene.grid.rows // step), -(-scene.grid.columns // step)
    values = np.empty((len(bands), high, wide), np.float32)
    for row in range(0, scene.grid.rows, strip):
        window = Window(row, 0, min(strip, scene.grid.rows - row), scene.grid.columns)
        part = block_mean(scene.read(window, bands).values, step)
        values[:, row // step : row // step + part.shape[1]] = part
        if report is not None:
            report("picture", min(row + strip, scene.grid.rows), scene.grid.rows)
    return _coloured(values), step


def block_mean(values: npt.NDArray[np.floating], step: int) -> FloatArray:
    """Means of squares of (bands, rows, columns), NaN left out; (bands, rows/step, columns/step).

    Squares at the lower and right edge may be cut.
    """
    bands, rows, columns = values.shape
    high, wide = -(-rows // step), -(-columns // step)
    padded = np.full((bands, high * step, wide * step), np.nan)
    padded[:, :rows, :columns] = values
    squares = padded.reshape(bands, high, step, wide, step)
    seen = np.isfinite(squares)
    count = seen.sum(axis=(2, 4))
    total = np.where(seen, squares, 0.0).sum(axis=(2, 4))
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _coloured(values: npt.NDArray[np.float32]) -> ByteArray:
    """Each band stretched by itself; one band becomes grey."""
    valid = np.isfinite(values).all(axis=0)
    picture = np.zeros((*valid.shape, 4), np.uint8)
    picture[valid, 3] = 255
    if not valid.any():
        return picture
    for channel in range(3):
        band = values[min(channel, len(values) - 1)][valid]
        low, high = np.percentile(band[:: max(1, band.size // SAMPLE)], STRETCH)
        share = (band - np.float32(low)) / np.float32(max(high - low, 1e-12))
        picture[valid, channel] = np.rint(255 * np.clip(share, 0, 1))
    return picture


def class_picture(
    path: Path, colours: Mapping[int, tuple[int, int, int]], *, hidden: Sequence[int] = (),
    band: int = 1, side: int = SIDE,
) -> tuple[ByteArray, int]:  # fmt: skip
    """A picture of a class raster (nearest pixel) and how many pixels make one of it.

    Returns (rows, columns, 4) uint8; no-data and the values in `hidden` are transparent.
    """
    with open_picture(path) as data:
        step = steps(data.height, data.width, side)
        values = data.read(band, out_shape=_shape(data, step), resampling=Resampling.nearest)
    table = np.zeros((256, 4), np.uint8)
    for value, colour in colours.items():
        if value not in hidden:
            table[value] = (*colour, 255)
    return table[values], step


def score_picture(
    path: Path, *, band: int = 1, side: int = SIDE
) -> tuple[ByteArray, int, tuple[float, float]]:
    """A picture of a raster of numbers from dark violet to yellow, its step, and both ends.

    Returns (rows, columns, 4) uint8 (no-data transparent), the step, and the numbers that are
    drawn darkest and brightest: percentiles 2 and 99.8 of those that are read.
    """
    with open_picture(path) as data:
        step = steps(data.height, data.width, side)
        shape = _shape(data, step)
        values = data.read(
            band, out_shape=shape, masked=True, resampling=Resampling.nearest
        ).astype(np.float64)
    values = values.filled(np.nan)
    valid = np.isfinite(values)
    picture = np.zeros((*shape, 4), np.uint8)
    if not valid.any():
        return picture, step, (0.0, 0.0)
    low, high = (float(end) for end in np.percentile(values[valid], (2.0, 99.8)))
    share = np.clip((values[valid] - low) / max(high - low, 1e-12), 0, 1)
    picture[valid, :3] = heat(share)
    picture[valid, 3] = 255
    return picture, step, (low, high)


def heat(share: FloatArray) -> ByteArray:
    """Colours (N, 3) uint8 of numbers from 0 (dark violet) to 1 (yellow)."""
    anchors = np.array(HEAT, dtype=np.float64)
    at = np.linspace(0, 1, len(anchors))
    return np.stack(
        [np.rint(np.interp(share, at, anchors[:, channel])) for channel in range(3)], axis=-1
    ).astype(np.uint8)


def png(picture: ByteArray) -> bytes:
    """A picture (rows, columns, 4) as PNG, transparency included."""
    return _encoded(".png", cv2.cvtColor(picture, cv2.COLOR_RGBA2BGRA), [])


def jpeg(picture: ByteArray, quality: int = 85) -> bytes:
    """A picture (rows, columns, 4) as JPEG; what is transparent becomes black."""
    opaque = np.where(picture[..., 3:] > 0, picture[..., :3], 0).astype(np.uint8)
    return _encoded(
        ".jpg", cv2.cvtColor(opaque, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )


def _encoded(kind: str, picture: npt.NDArray[Any], options: list[int]) -> bytes:
    done, data = cv2.imencode(kind, picture, options)
    if not done:
        raise ValueError(f"OpenCV could not write a {kind} of {picture.shape}")
    return data.tobytes()


def _shape(data: Any, step: int) -> tuple[int, int]:
    return -(-data.height // step), -(-data.width // step)
