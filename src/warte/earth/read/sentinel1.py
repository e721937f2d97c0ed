"""Sentinel-1 ground range products in SAFE folders, calibrated to sigma nought in dB.

ESA, Sentinel-1 Product Specification, S1-RS-MDA-52-7441; radiometric calibration: sigma nought =
(number^2 - noise) / A^2, with A and the noise interpolated between the vectors of the annotation.
Pixels are laid onto a UTM grid by the tie points of the product, without terrain correction.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio import windows as rasterio_windows
from rasterio.crs import CRS
from rasterio.transform import GCPTransformer
from rasterio.warp import transform as reproject
from scipy.interpolate import RegularGridInterpolator

from warte.core.data.tiles import Window
from warte.core.errors import InputError
from warte.earth.read.files import opened, reading
from warte.earth.read.metadata import numbers, understood, words, xml_of
from warte.earth.read.names import time_of_iso
from warte.earth.scene import BoolArray, Float32Array, Grid, Scene

FloatArray = npt.NDArray[np.float64]

NODE_PX = 32  # pixels between places whose line and sample are computed; linear between
_IMAGE = re.compile(r"-(vv|vh|hh|hv)-", re.IGNORECASE)
LONLAT = CRS.from_epsg(4326)


@dataclass(frozen=True, eq=False)
class Table:
    """Numbers at lines (n,) and samples (m,) of an image (n, m), linear between."""

    lines: FloatArray
    samples: FloatArray
    values: FloatArray

    def at(self, line: FloatArray, sample: FloatArray) -> FloatArray:
        """Values at places; beyond the ends, those of the ends."""
        table = RegularGridInterpolator((self.lines, self.samples), self.values)
        line = np.clip(line, self.lines[0], self.lines[-1])
        return np.asarray(table((line, np.clip(sample, self.samples[0], self.samples[-1]))))


@dataclass(frozen=True)
class Azimuth:
    """Noise along the lines, for a block of the image (first and last line and sample)."""

    block: tuple[float, float, float, float]
    lines: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Channel:
    """One polarisation: its image, A, and the noise to be taken off (None: none)."""

    path: str
    amplitude: Table
    noise: Table | None
    azimuth: tuple[Azimuth, ...] = ()

    def sigma0(self, number: FloatArray, line: FloatArray, sample: FloatArray) -> FloatArray:
        """Sigma nought (linear) of numbers at places of the image; NaN where there is none."""
        power = number**2
        if self.noise is not None:
            noise = self.noise.at(line, sample)
            for part in self.azimuth:
                top, bottom, left, right = part.block
                inside = (line >= top) & (line <= bottom) & (sample >= left) & (sample <= right)
                noise = np.where(inside, noise * np.interp(line, part.lines, part.values), noise)
            power = power - noise
        found = power / self.amplitude.at(line, sample) ** 2
        return np.where((number > 0) & (found > 0), found, np.nan)


@dataclass(frozen=True, eq=False)
class Radar:
    """A reader that calibrates channels and lays them onto a grid (the nearest pixel)."""

    grid: Grid
    channels: tuple[Channel, ...]

    def read(self, window: Window, bands: Sequence[int]) -> tuple[Float32Array, BoolArray]:
        """See `warte.earth.scene.Reader`; values in dB."""
        values = np.full((len(bands), window.rows, window.columns), np.nan, np.float32)
        for place, band in enumerate(bands):
            channel = self.channels[band]
            with reading(Path(channel.path).name):
                data = opened(channel.path)
                line, sample = _places(data, self.grid, window)
                number = _nearest(data, line, sample)
            with np.errstate(divide="ignore", invalid="ignore"):
                values[place] = 10 * np.log10(channel.sigma0(number, line, sample))
        return values, np.asarray(np.isfinite(values).all(axis=0))


def read_sentinel1(folder: Path, *, bands: Sequence[str] | None, denoise: bool) -> Scene:
    """The scene of a product: sigma nought in dB on a UTM grid.

    Raises:
        InputError: it is damaged, complex, or lacks a band.
    """
    images = {
        match[1].lower(): path
        for path in sorted((folder / "measurement").glob("*.tif*"))
        if (match := _IMAGE.search(path.name))
    }
    if not images:
        raise InputError(f"{folder} has no image in measurement; fetch the product again")
    missing = [band for band in bands or () if band not in images]
    if missing:
        raise InputError(f"{folder} has no band {missing[0]}; it has {', '.join(images)}")
    names = tuple(bands or images)
    channels = tuple(_channel(folder, images[name], denoise) for name in names)
    annotation = folder / "annotation" / f"{images[names[0]].stem}.xml"
    root = xml_of(annotation)
    step = understood(annotation, lambda: (
        float(words(root, "azimuthPixelSpacing")), float(words(root, "rangePixelSpacing"))
    ))  # fmt: skip
    time = time_of_iso(understood(annotation, lambda: words(root, "startTime")))
    with reading(images[names[0]].name):
        data = opened(channels[0].path)
        if np.dtype(data.dtypes[0]).kind == "c":
            raise InputError(f"{folder} is single look complex; give the ground range product")
        grid = _utm_grid(data, images[names[0]].name, max(step))
    note = "laid onto UTM by tie points, heights of the terrain are not corrected"
    return Scene(
        folder.name.removesuffix(".SAFE"), grid, names, Radar(grid, channels), "sigma0_db", time,
        "sentinel-1", tuple(str(images[name]) for name in names), (note,),
    )  # fmt: skip


def _channel(folder: Path, image: Path, denoise: bool) -> Channel:
    calibration = folder / "annotation" / "calibration"
    path = calibration / f"calibration-{image.stem}.xml"
    root = xml_of(path)
    amplitude = understood(path, lambda: _table(root, "calibrationVector", "pixel", "sigmaNought"))
    if not denoise:
        return Channel(str(image), amplitude, None)
    path = calibration / f"noise-{image.stem}.xml"
    noise = xml_of(path)
    # Before processor version 2.90 there is one kind of noise vector.
    kind, value = (
        ("noiseRangeVector", "noiseRangeLut")
        if next(noise.iter("noiseRangeVector"), None) is not None
        else ("noiseVector", "noiseLut")
    )
    table = understood(path, lambda: _table(noise, kind, "pixel", value))
    azimuth = understood(path, lambda: tuple(map(_azimuth, noise.iter("noiseAzimuthVector"))))
    return Channel(str(image), amplitude, table, azimuth)


def _table(root: ET.Element, kind: str, place: str, value: str) -> Table:
    """Vectors along the range at several lines, on the samples of the first of them."""
    found: dict[float, FloatArray] = {}
    samples: FloatArray | None = None
    for vector in root.iter(kind):
        own = numbers(vector, place)
        samples = own if samples is None else samples
        found[float(words(vector, "line"))] = np.interp(samples, own, numbers(vector, value))
    if samples is None:
        raise KeyError(kind)
    lines = np.array(sorted(found))
    values = np.stack([found[line] for line in lines])
    if lines.size == 1:  # the same everywhere along the track
        lines, values = np.array([lines[0], lines[0] + 1]), np.repeat(values, 2, axis=0)
    return Table(lines, samples, values)


def _azimuth(vector: ET.Element) -> Azimuth:
    names = ("firstAzimuthLine", "lastAzimuthLine", "firstRangeSample", "lastRangeSample")
    top, bottom, left, right = (float(words(vector, name)) for name in names)
    values = numbers(vector, "noiseAzimuthLut")
    return Azimuth((top, bottom, left, right), tuple(numbers(vector, "line")), tuple(values))


def _utm_grid(data: Any, name: str, step: float) -> Grid:
    """The UTM grid that holds the tie points, with square pixels of `step` metres.

    Raises:
        InputError: there are no tie points.
    """
    points, crs = data.gcps
    if len(points) < 4:
        raise InputError(f"{name} has {len(points)} tie points, 4 are needed; fetch it again")
    lon, lat = reproject(crs or LONLAT, LONLAT, [p.x for p in points], [p.y for p in points])
    zone = int((np.mean(lon) + 180) // 6) % 60 + 1
    utm = CRS.from_epsg((32600 if np.mean(lat) >= 0 else 32700) + zone)
    x, y = reproject(LONLAT, utm, lon, lat)
    left, top = math.floor(min(x) / step) * step, math.ceil(max(y) / step) * step
    rows = math.ceil((top - min(y)) / step)
    columns = math.ceil((max(x) - left) / step)
    return Grid(rows, columns, Affine(step, 0, left, 0, -step, top), utm)


def _places(data: Any, grid: Grid, window: Window) -> tuple[FloatArray, FloatArray]:
    """Line and sample of the image for each pixel of a window, from 0, at centres.

    Computed at nodes that are the same for all windows, so that these fit together.
    """
    rows = _nodes(window.row, window.rows)
    columns = _nodes(window.column, window.columns)
    across, down = np.meshgrid(columns + 0.5, rows + 0.5)
    x, y = grid.places(across.ravel(), down.ravel())
    points, crs = data.gcps
    lon, lat = reproject(grid.crs, crs or LONLAT, x, y)
    with GCPTransformer(points, tps=True) as transformer:
        line, sample = transformer.rowcol(lon, lat, op=np.asarray)
    inner = np.meshgrid(
        window.row + np.arange(window.rows), window.column + np.arange(window.columns),
        indexing="ij",
    )  # fmt: skip
    shape = (rows.size, columns.size)
    # Tie points name corners of pixels: 0.5 is the centre of the first.
    return tuple(
        RegularGridInterpolator((rows, columns), np.reshape(part, shape))(tuple(inner)) - 0.5
        for part in (line, sample)
    )


def _nodes(first: int, count: int) -> FloatArray:
    low, high = first // NODE_PX, -(-(first + count) // NODE_PX)
    return np.arange(low, high + 1, dtype=np.float64) * NODE_PX


def _nearest(data: Any, line: FloatArray, sample: FloatArray) -> FloatArray:
    """The number of the nearest pixel of the image, 0 (no-data) outside of it."""
    # What cannot be laid anywhere (NaN, infinite) lies outside.
    row, column = (
        np.rint(np.nan_to_num(np.clip(part, -2, 1e9), nan=-2)).astype(np.int64)
        for part in (line, sample)
    )
    inside = (row >= 0) & (row < data.height) & (column >= 0) & (column < data.width)
    found = np.zeros(line.shape)
    if not inside.any():
        return found
    row, column = row[inside], column[inside]
    top, left = int(row.min()), int(column.min())
    place = rasterio_windows.Window(
        left, top, int(column.max()) - left + 1, int(row.max()) - top + 1
    )
    found[inside] = data.read(1, window=place)[row - top, column - left]
    return found
