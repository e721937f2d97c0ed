"""Regions of unusual pixels, as polygons; the memory is that of the unusual pixels."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import geopandas
import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.features
import shapely
from affine import Affine
from rasterio import windows as rasterio_windows
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from warte.core.data.tiles import windows
from warte.earth.scene import BoolArray, Grid, pixel_area_ha

FloatArray = npt.NDArray[np.float64]
# From the evidence and the mass of regions to how many as odd chance makes.
Chance = Callable[[FloatArray, FloatArray], FloatArray]

TILE = 1024  # pixels of a side of what is read at once
# Down and to the right: each pair of neighbours, edges and corners, is seen once.
NEIGHBOURS = ((0, 1), (1, -1), (1, 0), (1, 1))


def regions_of(
    path: Path, grid: Grid, threshold: float, smallest: int, chance: Chance, false_regions: float
) -> geopandas.GeoDataFrame:
    """Pixels of a score picture above a threshold that touch, by an edge or a corner.

    smallest: pixels that a region has at least. chance: how many regions of such an evidence and
    mass or more chance makes in the picture, from arrays of both. The evidence is the sum of a
    region's scores; a score is -log10 of a chance, so the sum is that of the chance that as many
    independent pixels of the background are all as high. The mass is the sum of what they have
    above the threshold, see `texture`. false_regions: see `reported`.

    Returns columns region (int64, from 1, the most evidence first), score (float64, mean), peak
    (float64), evidence (float64), chance (float64), pixels (int64), area_ha (float64, NaN without a
    CRS), x and y (float64, of the peak's centre, in the picture's coordinates), row and column
    (int64, of the peak) and the geometry, a polygon along the edges of the pixels, or several of
    them where they touch by a corner.
    """
    rows, columns, scores = _unusual(path, grid, threshold)
    labels = _labels(rows, columns, grid.columns)
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], np.arange(labels.max(initial=-1) + 2))
    areas = np.full(grid.rows, np.nan) if grid.crs is None else pixel_area_ha(grid)
    sizes = np.diff(starts)
    evidence = np.bincount(labels, scores, len(sizes)).astype(np.float64)
    chances = chance(evidence, evidence - threshold * sizes)
    chances[sizes < smallest] = np.inf
    ends = list(pairwise(starts))
    found = []
    for number in np.flatnonzero(reported(chances, false_regions)):
        part = order[slice(*ends[number])]
        peak = part[scores[part].argmax()]
        x, y = _place(grid.transform, columns[peak] + 0.5, rows[peak] + 0.5)
        found.append(
            {
                "score": scores[part].mean(), "peak": scores[peak], "evidence": evidence[number],
                "chance": chances[number], "pixels": len(part),
                "area_ha": areas[rows[part]].sum(), "x": x, "y": y, "row": rows[peak],
                "column": columns[peak], "geometry": _outline(rows[part], columns[part], grid),
            }
        )  # fmt: skip
    return _frame(found, grid)


def reported(chances: FloatArray, false_regions: float) -> BoolArray:
    """Which regions to report, given how many as odd as each chance makes in such a picture.

    In a picture without anomalies chance makes no more of them than `false_regions`; where there
    are anomalies, no larger share of what is reported is chance (Benjamini and Hochberg, Journal of
    the Royal Statistical Society B 57 (1995) 289).
    """
    rising = np.sort(chances)
    allowed = np.flatnonzero(rising <= false_regions * np.arange(1, len(rising) + 1))
    return chances <= (rising[allowed[-1]] if len(allowed) else -np.inf)


def _frame(found: list[dict[str, object]], grid: Grid) -> geopandas.GeoDataFrame:
    types = {
        "score": "float64", "peak": "float64", "evidence": "float64", "chance": "float64",
        "pixels": "int64", "area_ha": "float64",
        "x": "float64", "y": "float64", "row": "int64", "column": "int64",
    }  # fmt: skip
    frame = geopandas.GeoDataFrame(
        found, columns=[*types, "geometry"], geometry="geometry", crs=grid.crs
    ).astype(types)
    frame = frame.sort_values(["evidence", "row", "column"], ascending=[False, True, True])
    frame = frame.reset_index(drop=True)
    frame.insert(0, "region", np.arange(1, len(frame) + 1, dtype=np.int64))
    return frame


def _unusual(
    path: Path, grid: Grid, threshold: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Rows, columns and scores of the pixels above the threshold, in order of rows."""
    rows, columns, scores = [], [], []
    with rasterio.open(path) as file:
        for window in windows(grid.rows, grid.columns, TILE):
            place = rasterio_windows.Window(window.column, window.row, window.columns, window.rows)
            image = file.read(1, window=place)
            row, column = np.nonzero(image > threshold)  # NaN is above nothing
            rows.append(row + window.row)
            columns.append(column + window.column)
            scores.append(image[row, column].astype(np.float64))
    row, column = np.concatenate(rows), np.concatenate(columns)
    order = np.lexsort((column, row))
    return row[order], column[order], np.concatenate(scores)[order]


def _labels(
    rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], width: int
) -> npt.NDArray[np.int32]:
    """The region of each pixel, from 0; pixels are in order of rows."""
    count = len(rows)
    if count == 0:
        return np.zeros(0, np.int32)
    places = rows * width + columns
    pairs = []
    for down, right in NEIGHBOURS:
        there = np.nonzero((columns + right >= 0) & (columns + right < width))[0]
        wanted = places[there] + down * width + right
        at = np.minimum(np.searchsorted(places, wanted), count - 1)
        same = places[at] == wanted
        pairs.append(np.stack([there[same], at[same]]))
    one, two = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(len(one), np.int8), (one, two)), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def _outline(
    rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], grid: Grid
) -> shapely.Geometry:
    top, left = int(rows.min()), int(columns.min())
    mask = np.zeros((int(rows.max()) - top + 1, int(columns.max()) - left + 1), np.uint8)
    mask[rows - top, columns - left] = 1
    step = grid.transform
    x, y = _place(step, left, top)
    place = Affine(step.a, step.b, x, step.d, step.e, y)
    shapes = [
        shapely.geometry.shape(shape)
        for shape, _ in rasterio.features.shapes(mask, mask.astype(bool), transform=place)
    ]
    return shapes[0] if len(shapes) == 1 else shapely.MultiPolygon(shapes)


def _place(step: Affine, column: float, row: float) -> tuple[float, float]:
    """Coordinates of a place in the picture."""
    return (
        float(step.a * column + step.b * row + step.c),
        float(step.d * column + step.e * row + step.f),
    )
