"""Georeferenced results: Cloud Optimized GeoTIFFs, and regions with areas as vectors."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.features
import rasterio.shutil
import shapely
from rasterio import windows as rasterio_windows
from rasterio.enums import ColorInterp

from warte.core.data.tiles import Window
from warte.core.errors import OutputError
from warte.earth.scene import Grid, pixel_area_ha

if TYPE_CHECKING:  # it takes memory that the writing of pictures has no use for
    import geopandas

Colours = Mapping[int, tuple[int, int, int]]

BLOCK = 512  # pixels of the side of a block in the files
CACHE = 64_000_000  # bytes of blocks that GDAL may keep in memory
LABELS_TAG = "CLASSES"  # names of classes, as JSON from value to name


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
        with rasterio.Env(GDAL_CACHEMAX=CACHE), rasterio.open(
            raw, "w", driver="GTiff", height=grid.rows, width=grid.columns, count=len(bands),
            dtype=dtype, crs=grid.crs, transform=grid.transform, nodata=nodata,
            compress="deflate", tiled=True, blockxsize=BLOCK, blockysize=BLOCK,
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
        with rasterio.Env(GDAL_CACHEMAX=CACHE, GDAL_PAM_ENABLED="NO"):
            with rasterio.open(raw, "r+") as file:
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
            rasterio.shutil.copy(
                raw, part, driver="COG", compress="DEFLATE", blocksize=BLOCK, bigtiff="IF_SAFER",
                predictor=predictor, overview_resampling="NEAREST" if whole else "AVERAGE",
                num_threads="1",
            )  # fmt: skip
        os.replace(part, path)
        if raw != path:
            raw.unlink()
    except (OSError, rasterio.errors.RasterioError) as problem:
        raise OutputError(f"cannot write {path}: {problem}; free space, then again") from problem
    finally:
        part.unlink(missing_ok=True)


def write_regions(folder: Path, frame: geopandas.GeoDataFrame) -> None:
    """Write regions as `regions.gpkg` and `regions.parquet` (GeoParquet) into a folder.

    Raises:
        OutputError: they cannot be written.
    """
    import pyogrio

    frame.to_parquet(folder / "regions.parquet")
    pyogrio.write_dataframe(frame, folder / "regions.gpkg", layer="regions", driver="GPKG")


def polygons_of(
    path: Path, *, band: int = 1, skip: Sequence[int] = (), smallest: int = 1
) -> geopandas.GeoDataFrame:
    """The regions of equal value in a picture of classes.

    Args:
        path: a picture of whole numbers.
        band: from 1.
        skip: values of which no regions are wanted; nodata never has any.
        smallest: pixels that a region must have.

    Returns:
        A frame with value (int64), pixels (int64), area_ha (float64, NaN without a CRS) and
        geometry in the CRS of the picture; neighbours share an edge, not only a corner.
    """
    import geopandas

    with rasterio.Env(GDAL_CACHEMAX=CACHE), rasterio.open(path) as file:
        grid = Grid(file.height, file.width, file.transform, file.crs)
        found = [
            (int(value), shapely.geometry.shape(shape))
            for shape, value in _shapes(file, band)
            if value != file.nodata and value not in skip
        ]
    values = np.array([value for value, _ in found], np.int64)
    shapes = np.array([shape for _, shape in found], object)
    pixels = np.round(shapely.area(shapes)).astype(np.int64)
    kept = pixels >= smallest
    shapes = shapes[kept]
    areas = areas_ha(shapes, grid)
    geometry = shapely.transform(shapes, lambda points: _placed(points, grid))
    return geopandas.GeoDataFrame(
        {"value": values[kept], "pixels": pixels[kept], "area_ha": areas},
        geometry=list(geometry),
        crs=grid.crs,
    )


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


def _shapes(file: Any, band: int) -> Iterator[tuple[dict[str, Any], float]]:
    """Polygons of equal value with corners in (column, row)."""
    yield from rasterio.features.shapes(rasterio.band(file, band))


def _placed(points: npt.NDArray[np.float64], grid: Grid) -> npt.NDArray[np.float64]:
    column, row = points.T
    return np.stack(grid.places(column, row), axis=1)
