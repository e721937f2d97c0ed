"""Labels of places, from rasters or polygons in any CRS, laid onto the grid of a scene."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import numpy.typing as npt
import pyogrio
import pyproj
import rasterio.features
import shapely
from rasterio import windows as rasterio_windows
from rasterio.crs import CRS

from warte.core.data.tiles import Window
from warte.core.errors import InputError
from warte.earth.read.files import DAMAGE, opened, reading, told
from warte.earth.scene import Grid
from warte.earth.write import LABELS_TAG

IntArray = npt.NDArray[np.int32]

VECTORS = (".shp", ".gpkg", ".geojson", ".json", ".parquet", ".fgb", ".kml")
RASTER_BLOCK = 64  # pixels; of a raster of labels, pixels within one such square are one group
NONE = -1  # index of class and group of a pixel without a label
MAX_CLASSES = 1000  # of a raster; more values than that are no classes
EDGE_PX = 8  # pixels; longer edges of polygons are divided, because they bend in another CRS
MAX_CORNERS = 10_000  # that the edges of one polygon are divided into


@dataclass(frozen=True)
class Labels:
    """Labelled places: polygons, or a raster of classes; they can be sent to another process.

    path: where they are from. classes: names. crs: theirs, None for a raster that names none.
    shapes: polygons (or points) as WKB, none for a raster. of_shape: index into `classes` for each.
    values: of a raster, the value of each class. grid: of a raster, its own. notes: what was mended
    or left out.
    """

    path: str
    classes: tuple[str, ...]
    crs: CRS | None
    shapes: tuple[bytes, ...] = ()
    of_shape: tuple[int, ...] = ()
    values: tuple[int, ...] = ()
    grid: Grid | None = None
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
    if place.suffix.lower() in VECTORS:
        return _vector(place, field)
    if field is not None:
        raise InputError(f"{place} is a raster, it has no field {field}; leave --field out")
    return _raster(place)


def check_classes(labels: Labels, known: Sequence[str]) -> None:
    """See that a model knows the classes of labels.

    Raises:
        InputError: it does not know some; the message names them.
    """
    unknown = [name for name in labels.classes if name not in known]
    if unknown:
        raise InputError(
            f"{labels.path} has classes that the model has not: {', '.join(unknown)}; it knows "
            f"{', '.join(known)}"
        )


# Polygons ---------------------------------------------------------------------------------------


def _vector(path: Path, field: str | None) -> Labels:
    frame = _frame(path)
    if frame.crs is None:
        raise InputError(f"{path} has no CRS; set it, for example with ogr2ogr -a_srs EPSG:4326")
    field = _field(path, frame, field)
    shapes, notes = _mended(frame)
    named = ~frame[field].isna().to_numpy()
    good = named & ~shapely.is_empty(shapes)
    if not good.any():
        raise InputError(f"{path} holds no labelled polygons; give some with a class")
    if not good.all():
        notes.append(f"{int((~good).sum())} rows without polygon or class are left out")
    names = [_class_name(value) for value in frame[field][good]]
    number = {name: i for i, name in enumerate(_ordered(set(names)))}
    return Labels(
        str(path), tuple(number), CRS.from_user_input(frame.crs),
        tuple(shapely.to_wkb(shapes[good]).tolist()), tuple(number[name] for name in names),
        notes=tuple(notes),
    )  # fmt: skip


def _frame(path: Path) -> geopandas.GeoDataFrame:
    try:
        if path.suffix.lower() == ".parquet":
            frame = geopandas.read_parquet(path)
        else:
            layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
            if len(layers) > 1:
                raise InputError(
                    f"{path} has {len(layers)} layers ({', '.join(layers)}); give a file with one"
                )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about rows that are left out later, and said then
                frame = pyogrio.read_dataframe(path, layer=layers[0] if layers else None)
    except (*DAMAGE, shapely.errors.ShapelyError) as problem:
        raise InputError(f"cannot read labels from {path}: {told(problem)}") from problem
    if not isinstance(frame, geopandas.GeoDataFrame) or frame.empty:
        raise InputError(f"{path} holds no polygons")
    return frame


def _field(path: Path, frame: geopandas.GeoDataFrame, field: str | None) -> str:
    """The column of classes: the given one, or the only one that can be meant."""
    columns = [str(name) for name in frame.columns if name != frame.geometry.name]
    if field is not None:
        if field in columns:
            return field
        raise InputError(f"{path} has no field {field}; it has {', '.join(columns) or 'none'}")
    words = [name for name in columns if frame[name].dtype.kind not in "iufbM"]
    for choice in (columns, words):
        if len(choice) == 1:
            return choice[0]
    if not columns:
        raise InputError(f"{path} has no field that names the class; add one")
    raise InputError(f"{path}: which field is the class? give --field, one of {', '.join(columns)}")


def _class_name(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _ordered(names: set[str]) -> list[str]:
    """Names in the order of the alphabet, or of numbers where all are numbers."""
    if all(name.lstrip("-").isdigit() for name in names):
        return sorted(names, key=int)
    return sorted(names)


def _mended(frame: geopandas.GeoDataFrame) -> tuple[npt.NDArray[np.object_], list[str]]:
    """Valid polygons and points, empty where there is neither; and what was done."""
    shapes = frame.geometry.to_numpy().copy()
    missing = shapely.is_missing(shapes)
    shapes[missing] = shapely.Polygon()
    broken = ~shapely.is_valid(shapes)
    notes = []
    if broken.any():
        shapes[broken] = shapely.make_valid(shapes[broken])
        notes.append(f"{int(broken.sum())} invalid polygons were repaired")
    flat = shapely.force_2d(shapes)
    return np.array([_areal(shape) for shape in flat], object), notes


def _areal(shape: shapely.Geometry) -> shapely.Geometry:
    """The polygons or points of a shape, without lines."""
    if shape.geom_type in ("Polygon", "MultiPolygon", "Point", "MultiPoint"):
        return shape
    parts = [part for part in shapely.get_parts(shape) if part.geom_type.endswith("Polygon")]
    return shapely.union_all(parts) if parts else shapely.Polygon()


# Rasters ----------------------------------------------------------------------------------------


def _raster(path: Path) -> Labels:
    found: set[int] = set()
    with reading(path.name):
        data = opened(str(path))
        for _, window in data.block_windows(1):
            block = data.read(1, window=window, masked=True).compressed()
            values = np.unique(block[np.isfinite(block)])
            found |= {int(value) for value in values}
            if (values != np.floor(values)).any() or len(found) > MAX_CLASSES:
                raise InputError(f"{path} is no raster of classes: it holds other than whole "
                                 f"numbers, or more than {MAX_CLASSES} of them")  # fmt: skip
        grid = Grid(data.height, data.width, data.transform, data.crs)
        names = _names_of(data.tags())
    classes = tuple(sorted(value for value in found if value >= 0))
    if not classes:
        raise InputError(f"{path} holds no labels: all of it is no-data")
    named = tuple(names.get(str(value), str(value)) for value in classes)
    return Labels(str(path), named, grid.crs, values=classes, grid=grid)


def _names_of(tags: dict[str, str]) -> dict[str, str]:
    """Names of classes by value, as `write_cog` leaves them."""
    found = json.loads(tags.get(LABELS_TAG, "{}"))
    return {str(value): str(name) for value, name in found.items()}


# On a grid --------------------------------------------------------------------------------------


def placed(labels: Labels, grid: Grid) -> Labels:
    """Labels brought into the CRS of a grid. Do it once, then rasterise many windows.

    Edges of polygons are divided before, because straight lines bend in another CRS.

    Raises:
        InputError: the scene or the labels have no CRS, or no label lies on the scene.
    """
    try:
        if labels.grid is not None:
            return _raster_placed(labels, labels.grid, grid)
        return _polygons_placed(labels, grid)
    except pyproj.exceptions.ProjError as problem:
        raise InputError(
            f"{labels.path} cannot be laid onto the scene, from {labels.crs} to {grid.crs}: "
            f"{told(problem)}"
        ) from problem


def _polygons_placed(labels: Labels, grid: Grid) -> Labels:
    if grid.crs is None:
        raise InputError(f"the scene has no CRS, so {labels.path} cannot be laid onto it; set it")
    shapes = shapely.from_wkb(np.array(labels.shapes, object))
    if labels.crs != grid.crs:
        step = _pixel_in(labels, shapes, grid) * EDGE_PX
        longest = max(shapely.length(shapes).max() / MAX_CORNERS, step)
        shapes = shapely.segmentize(shapes, longest)
        shapes = geopandas.GeoSeries(shapes, crs=labels.crs).to_crs(grid.crs).to_numpy()
    finite = np.isfinite(shapely.bounds(shapes)).all(axis=1)
    box = shapely.total_bounds(shapes[finite]) if finite.any() else np.full(4, np.nan)
    _check_place(labels.path, tuple(map(float, box)), grid)
    shapes[~finite] = shapely.Polygon()  # cannot be on a scene that the CRS is made for
    return replace(labels, crs=grid.crs, shapes=tuple(shapely.to_wkb(shapes).tolist()))


def _pixel_in(labels: Labels, shapes: npt.NDArray[np.object_], grid: Grid) -> float:
    """About the size of a pixel in the CRS of the labels, where they are."""
    back = pyproj.Transformer.from_crs(labels.crs, grid.crs, always_xy=True)
    x, y = shapely.get_coordinates(shapes)[0]
    nudge = 1e-6 if labels.crs is not None and labels.crs.is_geographic else 0.1
    one, two = back.transform(x, y), back.transform(x, y + nudge)
    scale = math.dist(one, two) / nudge
    pixel = math.sqrt(abs(grid.transform.determinant))
    return pixel / scale if math.isfinite(scale) and scale > 0 else math.inf


def _raster_placed(labels: Labels, own: Grid, grid: Grid) -> Labels:
    if own.crs is None or grid.crs is None:
        same = own.shape == grid.shape and own.transform.almost_equals(grid.transform, 1e-9)
        if not same:
            raise InputError(f"{labels.path} or the scene has no CRS, and they do not lie on one "
                             "grid; set the CRS of both")  # fmt: skip
        return labels
    box = own.bounds
    if own.crs != grid.crs:
        over = pyproj.Transformer.from_crs(own.crs, grid.crs, always_xy=True)
        box = over.transform_bounds(*box)
    _check_place(labels.path, box, grid)
    return labels


def _check_place(path: str, box: tuple[float, ...], grid: Grid) -> None:
    """See that labels with these bounds, in the CRS of the grid, can lie on it.

    Raises:
        InputError: they do not.
    """
    left, bottom, right, top = grid.bounds
    aside = max(box[0] - right, left - box[2], 0.0), max(box[1] - top, bottom - box[3], 0.0)
    if all(map(math.isfinite, box)) and aside == (0.0, 0.0):
        return
    digits = 5 if grid.crs is not None and grid.crs.is_geographic else 0
    mine, scene = (
        ", ".join(f"{value:.{digits}f}" for value in part) for part in (box, grid.bounds)
    )
    raise InputError(
        f"{path} does not lie on the scene: labels reach over ({mine}), the scene over ({scene}) "
        f"(left, bottom, right, top){_apart(aside, box, grid)}; give labels of this place"
    )


def _apart(aside: tuple[float, float], box: tuple[float, ...], grid: Grid) -> str:
    """How far labels are from the scene, in words."""
    if grid.crs is None or not all(map(math.isfinite, (*aside, *box))):
        return ""
    if not grid.crs.is_geographic:
        return f", {math.hypot(*aside) * grid.crs.linear_units_factor[1] / 1000:,.1f} km apart"
    left, bottom, right, top = grid.bounds
    from_ = min(max(box[0], left), right), min(max(box[1], bottom), top)
    to = min(max(from_[0], box[0]), box[2]), min(max(from_[1], box[1]), box[3])
    if not all(-90 <= value <= 90 for value in (from_[1], to[1])):
        return ""
    metres = pyproj.Geod(ellps="WGS84").inv(*from_, *to)[2]
    return f", {metres / 1000:,.1f} km apart"


def rasterise(labels: Labels, grid: Grid, window: Window) -> tuple[IntArray, IntArray]:
    """Class and group of the pixels of a window of a grid, both (rows, columns), -1 for none.

    A pixel belongs to the polygon that its centre lies in; where two overlap, to the later one.
    Groups are polygons (their number among the labels, from 0), or squares of a raster: what must
    not be divided between training and test.

    Raises:
        InputError: as for `placed`, which is called where the labels have another CRS.
    """
    if labels.grid is not None:
        return _from_raster(placed(labels, grid), grid, window)
    if labels.crs != grid.crs:
        labels = placed(labels, grid)
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
    own = labels.grid
    warped = own is not None and own.crs is not None and own != grid
    with reading(Path(labels.path).name):
        # Warped, what lies outside of the raster is NaN, so that it is not taken for a class 0.
        data = opened(labels.path, grid, "nearest") if warped else opened(labels.path)
        place = rasterio_windows.Window(window.column, window.row, window.columns, window.rows)
        block = data.read(1, window=place, masked=True)
    known = np.asarray(labels.values)
    values = np.where(np.ma.getmaskarray(block) | ~np.isfinite(block.data), NONE, block.data)
    index = np.searchsorted(known, values).clip(max=known.size - 1)
    labelled = known[index] == values
    classes = np.where(labelled, index, NONE).astype(np.int32)
    rows = (window.row + np.arange(window.rows)) // RASTER_BLOCK
    columns = (window.column + np.arange(window.columns)) // RASTER_BLOCK
    across = -(-grid.columns // RASTER_BLOCK)
    groups = np.where(labelled, rows[:, None] * across + columns, NONE).astype(np.int32)
    return classes, groups
