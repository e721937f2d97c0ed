"""Zarr stores with CF or GeoZarr coordinates."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rioxarray  # noqa: F401  (gives datasets .rio)
import xarray
from affine import Affine
from rasterio.crs import CRS

from warte.core.data.tiles import Window
from warte.core.errors import InputError
from warte.earth.read.files import DAMAGE, MAX_BLOCK, told
from warte.earth.read.names import band_name, sensor_of, time_of_iso
from warte.earth.scene import BANDS, BoolArray, Float32Array, Grid, Scene, no_crs_notes

ACROSS = ("x", "lon", "longitude", "columns", "X")
DOWN = ("y", "lat", "latitude", "rows", "Y")


@dataclass(frozen=True)
class Layer:
    """A band of a store: its variable, and its place along further dimensions of it."""

    variable: str
    place: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Store:
    """A reader of layers of a Zarr store. dimensions: the names of rows and columns."""

    path: str
    layers: tuple[Layer, ...]
    dimensions: tuple[str, str]

    def read(self, window: Window, bands: Sequence[int]) -> tuple[Float32Array, BoolArray]:
        """See `warte.earth.scene.Reader`."""
        values = np.empty((len(bands), window.rows, window.columns), np.float32)
        rows, columns = window.slices
        down, across = self.dimensions
        try:
            data = _opened(self.path)
            for number, band in enumerate(bands):
                layer = self.layers[band]
                part = data[layer.variable].isel({**dict(layer.place), down: rows, across: columns})
                values[number] = part.transpose(down, across).to_numpy()
        except DAMAGE as problem:
            raise InputError(f"cannot read {self.path}: {told(problem)}") from problem
        return values, np.asarray(np.isfinite(values).all(axis=0))


def read_store(path: Path, *, bands: Sequence[str] | None) -> Scene:
    """The scene of a store: each variable (rows, columns) is a band, or each of its layers.

    Scale, offset and fill are those of the CF conventions.

    Raises:
        InputError: it is damaged, holds no picture, or several dates.
    """
    try:
        data = _opened(str(path))
        down, across = _dimensions(path, data)
        layers = _layers(path, data, down, across)
        names = list(layers)
        missing = [band for band in bands or () if band not in names]
        if missing:
            raise InputError(f"{path} has no band {missing[0]}; it has {', '.join(names)}")
        chosen = tuple(bands or names)
        grid, notes = _grid(data, down, across, layers[chosen[0]].variable)
    except DAMAGE as problem:
        raise InputError(f"cannot read {path}: {told(problem)}") from problem
    reader = Store(str(path), tuple(layers[name] for name in chosen), (down, across))
    time = time_of_iso(str(data.attrs.get("datetime", "")))
    return Scene(path.stem, grid, chosen, reader, time=time, paths=(str(path),),
                 sensor=_sensor(path, data), notes=notes)  # fmt: skip


def _sensor(path: Path, data: xarray.Dataset) -> str:
    return sensor_of(str(data.attrs.get("platform", ""))) or sensor_of(path.name)


@lru_cache(maxsize=4)
def _opened(path: str) -> xarray.Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return xarray.open_dataset(path, engine="zarr", chunks=None, decode_coords="all")


def _dimensions(path: Path, data: xarray.Dataset) -> tuple[str, str]:
    down = next((name for name in DOWN if name in data.sizes), None)
    across = next((name for name in ACROSS if name in data.sizes), None)
    if down is None or across is None:
        raise InputError(f"{path} has dimensions {', '.join(map(str, data.sizes))}; those of a "
                         "picture are called y and x, or lat and lon")  # fmt: skip
    return down, across


def _layers(path: Path, data: xarray.Dataset, down: str, across: str) -> dict[str, Layer]:
    """Where each band is."""
    sensor = _sensor(path, data)
    layers: dict[str, Layer] = {}
    for key, variable in data.data_vars.items():
        if not {down, across} <= set(variable.dims) or variable.dtype.kind not in "iuf":
            continue
        _check_chunks(path, str(key), variable)
        others = [str(name) for name in variable.dims if name not in (down, across)]
        single = tuple((name, 0) for name in others if variable.sizes[name] == 1)
        several = [name for name in others if variable.sizes[name] > 1]
        if len(several) > 1 or (several and several[0] in ("time", "t")):
            raise InputError(f"{path}: {key} has {' and '.join(several)}; give one date at a time")
        if not several:
            layers[band_name(str(key), sensor) or str(key)] = Layer(str(key), single)
        for name in several:
            for number in range(variable.sizes[name]):
                told_ = str(data[name].values[number]) if name in data.coords else ""
                word = told_ if not told_.isdigit() else ""
                own = band_name(word, sensor) or word or f"band_{number + 1}"
                layers[own] = Layer(str(key), (*single, (name, number)))
    if not layers:
        raise InputError(f"{path} holds no variable of numbers along {down} and {across}")
    from_several = len({layer.variable for layer in layers.values()}) > 1
    # The order of variables in a store is that in which its folders were listed.
    return dict(sorted(layers.items(), key=lambda item: _rank(item[0]))) if from_several else layers


def _rank(name: str) -> tuple[int, str]:
    return (BANDS.index(name) if name in BANDS else len(BANDS), name)


def _check_chunks(path: Path, key: str, variable: xarray.DataArray) -> None:
    chunks = variable.encoding.get("chunks") or variable.shape
    size = math.prod(chunks) * variable.encoding.get("dtype", variable.dtype).itemsize
    if size > MAX_BLOCK:
        raise InputError(f"{path}: {key} has chunks of {size / 2**20:.0f} MiB, 256 are allowed; "
                         "rewrite it with smaller chunks")  # fmt: skip


def _grid(
    data: xarray.Dataset, down: str, across: str, variable: str
) -> tuple[Grid, tuple[str, ...]]:
    """The grid, from coordinates of the centres and the CRS of CF or GeoZarr."""
    attributes = {**data.attrs, **data[variable].attrs}
    crs = data[variable].rio.crs or data.rio.crs
    for key in ("proj:code", "proj:epsg", "proj:wkt2", "crs"):
        if crs is None and attributes.get(key):
            crs = CRS.from_user_input(attributes[key])
    rows, columns = data.sizes[down], data.sizes[across]
    if across in data.coords and down in data.coords and min(rows, columns) > 1:
        x, width = _even(variable, data[across].to_numpy())
        y, height = _even(variable, data[down].to_numpy())
        transform = Affine(width, 0, x - width / 2, 0, height, y - height / 2)
    elif "spatial:transform" in attributes:
        transform = Affine(*attributes["spatial:transform"][:6])
    else:
        transform = Affine.identity()
    grid = Grid(rows, columns, transform, crs)
    return grid, no_crs_notes(grid)


def _even(variable: str, centres: npt.NDArray[Any]) -> tuple[float, float]:
    """The first of evenly spaced coordinates, and their step."""
    step = float(centres[-1] - centres[0]) / (centres.size - 1)
    if step == 0 or np.ptp(np.diff(centres)) > 1e-3 * abs(step):
        raise InputError(f"{variable}: coordinates are not evenly spaced; regrid it first")
    return float(centres[0]), step
