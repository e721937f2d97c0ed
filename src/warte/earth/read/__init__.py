"""Satellite pictures from files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio import windows as rasterio_windows

from warte.core.data.tiles import Window
from warte.core.errors import InputError
from warte.earth.scene import BoolArray, Float32Array, Grid, Scene


@dataclass(frozen=True)
class GeoTiff:
    """One file that GDAL reads, all bands in it."""

    path: str

    def read(self, window: Window, bands: Sequence[int]) -> tuple[Float32Array, BoolArray]:
        """See `warte.earth.scene.Reader`."""
        with rasterio.open(self.path) as data:
            place = rasterio_windows.Window(window.column, window.row, window.columns, window.rows)
            numbers = [band + 1 for band in bands]
            values = data.read(numbers, window=place).astype(np.float32)
            valid = (data.read_masks(numbers, window=place) > 0).all(axis=0)
        return values, valid


def read(place: str | os.PathLike[str]) -> Scene:
    """Open a scene; its pixels are read when they are asked for.

    Raises:
        InputError: the file is missing, damaged, or not a picture.
    """
    path = Path(place)
    try:
        with rasterio.open(path) as data:
            grid = Grid(data.height, data.width, data.transform, data.crs)
            bands = tuple(
                (text or f"band_{number}") for number, text in enumerate(data.descriptions, 1)
            )
    except rasterio.errors.RasterioIOError as problem:
        raise InputError(f"cannot read {path}: {problem}") from problem
    return Scene(path.stem, grid, bands, GeoTiff(str(path)), paths=(str(path),))
