"""Labels of places, from rasters or polygons in any CRS, laid onto the grid of a scene."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import geopandas
import numpy as np
import numpy.typing as npt
import pyogrio
import rasterio
import rasterio.features
import shapely
from rasterio import windows as rasterio_windows
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from warte.core.data.tiles import Window
from warte.core.errors import InputError
from warte.earth.scene import Grid
from warte.earth.write import LABELS_TAG

IntArray = npt.NDArray[np.int32]

VECTORS = (".shp", ".gpkg", ".geojson", ".json", ".parquet", ".fgb", ".kml")
RASTER_BLOCK = 64  # pixels; of a raster of labels, pixels within one such square are one group
NONE = -1  # index of class and group of a pixel without a label


@dataclass(frozen=True)
class Labels:
    """Labelled places: polygons, or a raster of classes; they can be sent to another process.

    path: where they are from. classes: names. crs: theirs. shapes: polygons as WKB, none for a
    raster. of_shape: index into `classes` for each polygon. values: of a raster, the value of each
    class. notes: what was mended or left out.
    """

    path: str
    classes: tuple[str, ...]
    crs: CRS
    shapes: tuple[bytes, ...] = ()
    of_shape: tuple[int, ...] = ()
    values: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


def read_labels(path: str | os.PathLike[str], *, field: str | None = None) -> Labels:
    """Read labels from polygons or from a raster of classes.

    Args:
        path: a vector file (shp, gpkg, geojson, parquet) or a raster of whole numbers, in which
            nodata and numbers below 0 are no labels.
        field: the column of a vector file that names the class.

    Raises:
        InputError: no such file, no CRS, no labels, or the field is missing or not clear.
    """
    place = Path(path)
    if not place.exists():
        raise InputError(f"{place} does not exist; give a vector file or a raster of labels")
    return _vector(place, field) if place.suffix.lower() in VECTORS else _raster(place)


def _vector(path: Path, field: str | None) -> Labels:
    try:
        frame = (
            geopandas.read_parquet(path)
            if path.suffix.lower() == ".parquet"
            else pyogrio.read_dataframe(path)
        )
    except (OSError, ValueError, pyogrio.errors.DataSourceError) as problem:
        raise InputError(f"cannot read labels from {path}: {problem}") from problem
    if frame.crs is None:
        raise InputError(f"{path} has no CRS; set it, for example with ogr2ogr -a_srs EPSG:4326")
    field = _field(path, frame, field)
    good = ~(frame.geometry.isna() | frame.geometry.is_empty | frame[field].isna())
    frame = frame[good]
    if frame.empty:
        raise InputError(f"{path} holds no labelled polygons")
    notes = [] if good.all() else [f"{int((~good).sum())} rows without polygon or class left out"]
    shapes = frame.geometry.to_numpy()
    broken = ~shapely.is_valid(shapes)
    if broken.any():
        shapes = np.where(broken, shapely.make_valid(shapes), shapes)
        notes.append(f"{int(broken.sum())} invalid polygons repaired")
    names = [str(value) for value in frame[field]]
    classes = tuple(sorted(set(names)))
    return Labels(
        str(path), classes, CRS.from_user_input(frame.crs), tuple(shapely.to_wkb(shapes)),
        tuple(classes.index(name) for name in names), notes=tuple(notes),
    )  # fmt: skip


def _field(path: Path, frame: geopandas.GeoDataFrame, field: str | None) -> str:
    """The column of classes: the given one, or the only one that can be meant."""
    columns = [str(name) for name in frame.columns if name != frame.geometry.name]
    if field is not None:
        if field in columns:
            return field
        raise InputError(f"{path} has no field {field}; it has {', '.join(columns) or 'none'}")
    words = [name for name in columns if frame[name].dtype.kind in "OUT" or
             str(frame[name].dtype) in ("str", "string", "category")]  # fmt: skip
    for choice in (columns, words):
        if len(choice) == 1:
            return choice[0]
    raise InputError(f"{path}: which field is the class? --field one of {', '.join(columns)}")


def _raster(path: Path) -> Labels:
    try:
        with rasterio.open(path) as file:
            if file.crs is None:
                raise InputError(f"{path} has no CRS; set it, for example with gdal_edit -a_srs")
            found: set[int] = set()
            for _, window in file.block_windows(1):
                block = file.read(1, window=window)
                found |= {int(value) for value in np.unique(block) if value != file.nodata}
            tag = file.tags().get(LABELS_TAG)
            crs = file.crs
    except rasterio.errors.RasterioError as problem:
        raise InputError(f"cannot read labels from {path}: {problem}") from problem
    names = json.loads(tag) if tag else {}
    values = tuple(sorted(value for value in found if value >= 0))
    if not values:
        raise InputError(f"{path} holds no labels: all of it is nodata")
    classes = tuple(names.get(str(value), str(value)) for value in values)
    return Labels(str(path), classes, crs, values=values)


def placed(labels: Labels, grid: Grid) -> Labels:
    """Labels brought into the CRS of a grid, so that windows of it are rasterised fast.

    Raises:
        InputError: the grid has no CRS, or no label lies on it.
    """
    if grid.crs is None:
        raise InputError(f"the scene has no CRS, so {labels.path} cannot be laid onto it")
    if not labels.shapes or labels.crs == grid.crs:
        return labels
    shapes = shapely.from_wkb(np.array(labels.shapes, object))
    series = geopandas.GeoSeries(shapes, crs=labels.crs).to_crs(grid.crs)
    return replace(labels, crs=grid.crs, shapes=tuple(shapely.to_wkb(series.to_numpy())))


def rasterise(labels: Labels, grid: Grid, window: Window) -> tuple[IntArray, IntArray]:
    """Class and group of the pixels of a window of a grid, both (rows, columns), -1 for none.

    A pixel belongs to the polygon that its centre lies in; where two overlap, to the later one.
    Groups are polygons (their number in the file, from 0), or squares of a raster.
    """
    labels = placed(labels, grid)
    if not labels.shapes:
        return _from_raster(labels, grid, window)
    shapes = shapely.from_wkb(np.array(labels.shapes, object))
    part = grid.part(window)
    near = shapely.intersects(shapes, shapely.box(*part.bounds))
    groups = np.full(part.shape, NONE, np.int32)
    if near.any():
        rasterio.features.rasterize(
            [(shapes[i], int(i)) for i in np.flatnonzero(near)],
            out=groups,
            transform=part.transform,
        )
    of_shape = np.append(np.asarray(labels.of_shape, np.int32), np.int32(NONE))
    return of_shape[groups], groups


def _from_raster(labels: Labels, grid: Grid, window: Window) -> tuple[IntArray, IntArray]:
    with rasterio.open(labels.path) as file, WarpedVRT(
        file, crs=grid.crs, transform=grid.transform, height=grid.rows, width=grid.columns,
        resampling=Resampling.nearest, nodata=file.nodata,
    ) as warped:  # fmt: skip
        place = rasterio_windows.Window(window.column, window.row, window.columns, window.rows)
        block = warped.read(1, window=place, masked=True)
    known = np.asarray(labels.values)
    index = np.searchsorted(known, block.data).clip(max=known.size - 1)
    labelled = (known[index] == block.data) & ~np.ma.getmaskarray(block)
    classes = np.where(labelled, index, NONE).astype(np.int32)
    rows = (window.row + np.arange(window.rows)) // RASTER_BLOCK
    columns = (window.column + np.arange(window.columns)) // RASTER_BLOCK
    across = -(-grid.columns // RASTER_BLOCK)
    groups = np.where(labelled, rows[:, None] * across + columns, NONE).astype(np.int32)
    return classes, groups
