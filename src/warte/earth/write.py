"""Georeferenced results: Cloud Optimized GeoTIFFs, and regions with areas as vectors."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.features
import rasterio.shutil
import shapely
from affine import Affine
from rasterio import windows as rasterio_windows
from rasterio.enums import ColorInterp, Resampling

from warte.core.data.tiles import Window
from warte.core.errors import OutputError
from warte.earth.read.files import opened, reading
from warte.earth.scene import Grid, pixel_area_ha

if TYPE_CHECKING:  # it takes memory that the writing of pictures has no use for
    import geopandas

Colours = Mapping[int, tuple[int, int, int]]

BLOCK = 512  # pixels of the side of a block in the files
RAW_BLOCK = 256  # the same before they are finished: making overviews holds rows of blocks
CACHE = 16_000_000  # bytes of blocks that GDAL may keep in memory
STRIP_PX = 500_000  # pixels that are made polygons at once
LABELS_TAG = "CLASSES"  # names of classes, as JSON from value to name


def open_picture(path: Path, mode: str = "r", **profile: Any) -> Any:
    """A picture of this program's own, opened by rasterio, whether it lies on the Earth or not.

    Raises rasterio.errors.RasterioError, also where the disk is full.
    """
    with warnings.catch_warnings():
        # A scene without a place is nothing to be warned of: its results have none, either.
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        return rasterio.open(path, mode, **profile)


def write_cog(
    path: Path,
    grid: Grid,
    blocks: Iterable[tuple[Window, npt.NDArray[Any]]],
    *,
    dtype: str,
    nodata: float | None,
    bands: Sequence[str],
    colours: Colours | None = None,
    labels: Mapping[int, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Write a Cloud Optimized GeoTIFF from its windows; what no window covers is nodata.

    Args:
        path: the file; it appears whole or not at all.
        grid: size, place and CRS.
        blocks: windows and their values (bands, rows, columns), in any order.
        dtype: NumPy's name of a type that TIFF knows.
        nodata: value of pixels that are not valid, None where all are.
        bands: a name for each band.
        colours, labels: of a class picture: its colours (0 to 255) and names, by value.
        tags: words for the file's metadata.

    Raises:
        OutputError: the file cannot be written.
    """
    raw = path.with_name(f".{path.name}.raw.tif")
    try:
        with rasterio.Env(GDAL_CACHEMAX=CACHE), open_picture(
            raw, "w", driver="GTiff", height=grid.rows, width=grid.columns, count=len(bands),
            dtype=dtype, crs=grid.crs, transform=grid.transform, nodata=nodata,
            compress="deflate", tiled=True, blockxsize=RAW_BLOCK, blockysize=RAW_BLOCK,
            bigtiff="if_safer",
        ) as file:  # fmt: skip
            file.update_tags(**(tags or {}))
            for window, values in blocks:
                place = rasterio_windows.Window(
                    window.column, window.row, window.columns, window.rows
                )
                file.write(np.asarray(values, dtype), window=place)
        finish_cog(raw, path, nodata=nodata, colours=colours, labels=labels, bands=tuple(bands))
    except (OSError, rasterio.errors.RasterioError) as problem:
        raise OutputError(f"cannot write {path}: {problem}; free space, then again") from problem
    finally:
        raw.unlink(missing_ok=True)


def finish_cog(
    raw: Path,
    path: Path,
    *,
    nodata: float | None,
    colours: Colours | None,
    labels: Mapping[int, str] | None,
    bands: Sequence[str],
) -> None:
    """Turn a tiled GeoTIFF into a Cloud Optimized one and remove it.

    Args:
        raw: the GeoTIFF; it may be `path` itself.
        path: the file that appears, whole or not at all.
        nodata, colours, labels, bands: as for `write_cog`. Overviews of classes (with colours or
            labels) and of whole numbers take the nearest pixel, others the mean.

    Raises:
        OutputError: the file cannot be written.
    """
    part = path.with_name(f".{path.name}.part.tif")
    try:
        with rasterio.Env(
            GDAL_CACHEMAX=CACHE, GDAL_PAM_ENABLED="NO", GDAL_OVR_CHUNK_MAX_SIZE=CACHE // 4
        ):
            with open_picture(raw, "r+") as file:
                whole = np.issubdtype(np.dtype(file.dtypes[0]), np.integer)
                predictor = "STANDARD" if whole else "FLOATING_POINT"
                if nodata is not None:
                    file.nodata = nodata
                for number, name in enumerate(bands, 1):
                    file.set_band_description(number, name)
                if colours is not None:
                    file.write_colormap(1, {value: (*rgb, 255) for value, rgb in colours.items()})
                    file.colorinterp = [ColorInterp.palette]
                if labels is not None:
                    named = {str(value): name for value, name in labels.items()}
                    file.update_tags(**{LABELS_TAG: json.dumps(named, ensure_ascii=False)})
                levels = _levels(file.height, file.width)
                # Made here, the copy needs half the memory that its own overviews would take.
                if levels:
                    file.build_overviews(
                        levels, Resampling.nearest if whole else Resampling.average
                    )
            rasterio.shutil.copy(
                raw, part, driver="COG", compress="DEFLATE", blocksize=BLOCK, bigtiff="IF_SAFER",
                predictor=predictor, overviews="FORCE_USE_EXISTING", num_threads="1",
            )  # fmt: skip
        os.replace(part, path)
        if raw != path:
            raw.unlink()
    except (OSError, rasterio.errors.RasterioError) as problem:
        raise OutputError(f"cannot write {path}: {problem}; free space, then again") from problem
    finally:
        part.unlink(missing_ok=True)


def _levels(rows: int, columns: int) -> list[int]:
    """Factors of the overviews, until one fits into a block."""
    levels: list[int] = []
    while max(rows, columns) > BLOCK * 2 ** len(levels):
        levels.append(2 ** (len(levels) + 1))
    return levels


def write_regions(folder: Path, frame: geopandas.GeoDataFrame) -> None:
    """Write regions as `regions.gpkg` and `regions.parquet` (GeoParquet) into a folder.

    The same regions give the same files; a frame without rows gives files without rows.

    Raises:
        OutputError: they cannot be written.
    """
    import pyogrio

    before = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": "2000-01-01T00:00:00.000Z"})
    try:
        frame.to_parquet(folder / "regions.parquet", index=False)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="'crs' was not provided")
            pyogrio.write_dataframe(
                frame.reset_index(drop=True), folder / "regions.gpkg", layer="regions",
                driver="GPKG", geometry_type=None if len(frame) else "Polygon",
            )  # fmt: skip
    except (OSError, RuntimeError) as problem:
        raise OutputError(f"cannot write regions: {problem}; free space, then again") from problem
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": before})


def polygons_of(
    path: Path, *, band: int = 1, skip: Sequence[int] = (), smallest: int = 1
) -> geopandas.GeoDataFrame:
    """The regions of equal value in a picture of classes.

    It is read in strips, and what is too small is dropped on the way, so that memory is needed for
    a strip and the regions that are returned.

    Args:
        path: a picture of whole numbers.
        band: from 1.
        skip: values of which no regions are wanted; nodata never has any.
        smallest: pixels that a region must have.

    Returns:
        A frame with value (int64), pixels (int64), area_ha (float64, NaN without a CRS) and
        geometry in the CRS of the picture, from top to bottom; neighbours share an edge, not only
        a corner.

    Raises:
        InputError: the picture cannot be read.
    """
    import geopandas

    with reading(path.name):
        file = opened(str(path))
        grid = Grid(file.height, file.width, file.transform, file.crs)
        found = list(_whole_pieces(file, band, skip, smallest))
    found.sort(key=lambda piece: (piece.top, piece.shape.bounds[0], piece.value))
    shapes = np.array([piece.shape for piece in found], object)
    geometry = shapely.transform(shapes, lambda points: _placed(points, grid))
    columns = {
        "value": np.array([piece.value for piece in found], np.int64),
        "pixels": np.array([piece.pixels for piece in found], np.int64),
        "area_ha": areas_ha(shapes, grid),
    }
    return geopandas.GeoDataFrame(columns, geometry=list(geometry), crs=grid.crs)


@dataclass(frozen=True)
class _Piece:
    """A region, or what of it lies in the strips seen so far; corners are (column, row)."""

    value: int
    shape: shapely.Polygon

    @property
    def pixels(self) -> int:
        return round(self.shape.area)

    @property
    def top(self) -> float:
        return float(self.shape.bounds[1])

    @property
    def bottom(self) -> float:
        return float(self.shape.bounds[3])


def _whole_pieces(file: Any, band: int, skip: Sequence[int], smallest: int) -> Iterator[_Piece]:
    """Regions, each as soon as no further strip can add to it."""
    height = max(1, STRIP_PX // file.width)
    waiting: list[_Piece] = []
    for top in range(0, file.height, height):
        bottom = min(top + height, file.height)
        pieces = [
            piece for piece in _strip(file, band, skip, top, bottom - top)
            if piece.pixels >= smallest or {top, bottom} & {piece.top, piece.bottom}
        ]  # fmt: skip
        joined = _joined(waiting, pieces, top, file.width)
        waiting = [piece for piece in joined if piece.bottom == bottom < file.height]
        for piece in joined:
            if piece.pixels >= smallest and not piece.bottom == bottom < file.height:
                yield piece


def _strip(file: Any, band: int, skip: Sequence[int], top: int, rows: int) -> Iterator[_Piece]:
    place = rasterio_windows.Window(0, top, file.width, rows)
    values = file.read(band, window=place)
    wanted = ~np.isin(values, list(skip))
    if file.nodata is not None:
        wanted &= values != file.nodata
    transform = Affine(1, 0, 0, 0, 1, top)
    for shape, value in rasterio.features.shapes(values, mask=wanted, transform=transform):
        yield _Piece(int(value), shapely.geometry.shape(shape))


def _joined(above: list[_Piece], below: list[_Piece], row: int, columns: int) -> list[_Piece]:
    """Pieces above and below a row, those of equal value that share an edge made one."""
    upper, lower = _owners(above, row, columns), _owners(below, row, columns)
    touching = np.unique(np.stack([upper, lower])[:, (upper >= 0) & (lower >= 0)], axis=1)
    pieces = [*above, *below]
    group = list(range(len(pieces)))

    def first(number: int) -> int:
        while group[number] != number:
            group[number] = number = group[group[number]]
        return number

    for one, two in touching.T.tolist():
        two += len(above)
        if pieces[one].value == pieces[two].value:
            group[first(two)] = first(one)
    members: dict[int, list[_Piece]] = {}
    for number, piece in enumerate(pieces):
        members.setdefault(first(number), []).append(piece)
    return [parts[0] if len(parts) == 1 else _one(parts) for parts in members.values()]


def _owners(pieces: list[_Piece], row: int, columns: int) -> npt.NDArray[np.int64]:
    """The piece that has an edge along the top of a row, for each column; -1 for none."""
    owner = np.full(columns, -1, np.int64)
    for number, piece in enumerate(pieces):
        if row not in (piece.top, piece.bottom):
            continue
        for ring in (piece.shape.exterior, *piece.shape.interiors):
            x, y = shapely.get_coordinates(ring).astype(np.int64).T
            along = np.flatnonzero((y[:-1] == row) & (y[1:] == row))
            for one, two in zip(x[along], x[along + 1], strict=True):
                owner[min(one, two) : max(one, two)] = number
    return owner


def _one(parts: list[_Piece]) -> _Piece:
    """One region of several pieces, without corners on the seams."""
    shape = shapely.union_all([part.shape for part in parts])
    return _Piece(parts[0].value, shapely.simplify(shape, 0.0))


def areas_ha(shapes: npt.NDArray[np.object_], grid: Grid) -> npt.NDArray[np.float64]:
    """Exact areas of polygons made of whole pixels, whose corners are (column, row); hectares.

    Green's theorem: the sum over vertical edges of the column times the area, for each column,
    between the rows. NaN where the grid has no CRS.
    """
    if grid.crs is None:
        return np.full(len(shapes), np.nan)
    below = np.concatenate([[0.0], np.cumsum(pixel_area_ha(grid))])
    return np.array([_area(shape, below) for shape in shapes], np.float64)


def _area(shape: shapely.Polygon, below: npt.NDArray[np.float64]) -> float:
    total = 0.0
    for number, ring in enumerate([shape.exterior, *shape.interiors]):
        column, row = shapely.get_coordinates(ring).T
        height = below[np.round(row).astype(np.int64)]
        area = abs(float(np.sum(column[1:] * np.diff(height))))
        total += -area if number else area
    return total


def _placed(points: npt.NDArray[np.float64], grid: Grid) -> npt.NDArray[np.float64]:
    column, row = points.T
    return np.stack(grid.places(column, row), axis=1)
