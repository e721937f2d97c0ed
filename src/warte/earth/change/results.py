"""The pictures, polygons and table of changes."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import numpy.typing as npt
import pandas as pd
import rasterio
from affine import Affine
from rasterio import features
from rasterio import windows as rasterio_windows
from scipy import ndimage
from shapely import Polygon
from shapely.geometry import shape

from warte.core.data.tiles import Window, windows
from warte.earth.change.align import moved_to
from warte.earth.change.kinds import COLOURS, NODATA
from warte.earth.scene import Grid, pixel_area_ha
from warte.earth.whole import TILE, Output

KIND, SCORE, DATE = "change.tif", "change_score.tif", "change_date.tif"
PERIOD = "period.tif"  # patches of one kind and one time; removed when the polygons are made
TABLE = "change.csv"
NEVER = -2_147_483_648  # of change_date.tif: no data, or no change
TABLE_COLUMNS = ("kind", "date_from", "date_to", "pixels", "area_ha")
REGION_COLUMNS = ("kind", "date_from", "date_to", "score", "pixels", "area_ha", "geometry")
EPOCH = datetime.date(1970, 1, 1)
EIGHT = np.ones((3, 3), int)


def outputs(names: Mapping[int, str]) -> list[Output]:
    """The pictures of a run, for `warte.earth.whole.map_scenes`."""
    labels = {0: "no change", **names}
    palette = {code: COLOURS.get(code, (150, 150, 150)) for code in labels}
    return [
        Output(KIND, "uint8", NODATA, ("kind",), colours=palette, labels=labels),
        Output(SCORE, "float32", float("nan"), ("score",)),
        Output(DATE, "int32", NEVER, ("date_from", "date_to")),
        Output(PERIOD, "int32", 0, ("period",)),
    ]


def finish(
    kind: npt.NDArray[np.uint8], score: npt.NDArray[np.float32], dates: npt.NDArray[np.int64],
    days: npt.NDArray[np.int64], valid: npt.NDArray[np.bool_], smallest: int,
    periods: npt.NDArray[np.int64] | None = None,
) -> Mapping[str, npt.NDArray[Any]]:  # fmt: skip
    """The pictures of a window from its kinds, scores and indices of dates.

    kind, score, valid: (rows, columns). dates: (2, rows, columns) index into `days` of the last
    date before and the first after. smallest: patches with fewer pixels are dropped. periods: one
    number for each date after which a change may be seen; changes of one number make one polygon.
    """
    kind = without_specks(np.where(valid, kind, 0).astype(np.uint8), smallest)
    changed = kind > 0
    when = np.where(changed, days[dates], NEVER).astype(np.int32)
    period = dates[1] if periods is None else periods[dates[1]]
    group = np.where(changed, (period + 1) * 256 + kind, 0).astype(np.int32)
    return {KIND: kind[None], SCORE: score[None], DATE: when, PERIOD: group[None]}


def without_specks(kind: npt.NDArray[np.uint8], smallest: int) -> npt.NDArray[np.uint8]:
    """Patches of changed pixels (of any kind, eight neighbours) smaller than `smallest` removed.

    Exact for a window that is seen with a margin of `smallest` pixels: a smaller patch that reaches
    into the window lies within the margin whole.
    """
    if smallest == 1:
        return kind
    patches, _ = ndimage.label(kind > 0, EIGHT)
    counts = np.bincount(patches.ravel())
    keep = counts >= smallest
    keep[0] = False
    return np.where(keep[patches], kind, 0).astype(np.uint8)


def iso(days: float) -> str:
    """A date as 2014-07-20."""
    return (EPOCH + datetime.timedelta(days=int(days))).isoformat()


def areas(folder: Path, grid: Grid, names: Mapping[int, str]) -> tuple[pd.DataFrame, int]:
    """Write change.csv and return it, and how many pixels are valid.

    One row for each kind and interval: date_from and date_to (ISO; the first and last day on which
    it can have happened), pixels, area_ha.
    """
    hectares = _hectares(grid)
    found: dict[tuple[int, int, int], list[float]] = {}
    valid = 0
    with rasterio.open(folder / KIND) as kinds, rasterio.open(folder / DATE) as dates:
        for core in windows(grid.rows, grid.columns, TILE):
            place = rasterio_windows.Window(core.column, core.row, core.columns, core.rows)
            kind = kinds.read(1, window=place)
            valid += int((kind != NODATA).sum())
            changed = (kind != 0) & (kind != NODATA)
            row = np.broadcast_to(np.arange(core.row, core.row + core.rows)[:, None], kind.shape)
            keys = np.column_stack(
                [kind[changed], *dates.read(window=place)[:, changed], row[changed]]
            ).astype(np.int64)
            for key, count in zip(*np.unique(keys, axis=0, return_counts=True), strict=True):
                entry = found.setdefault(tuple(int(part) for part in key[:3]), [0, 0.0])  # type: ignore[arg-type]
                entry[0] += int(count)
                entry[1] += int(count) * hectares[key[3]]
    rows = [
        (names[kind], iso(first), iso(last), int(count), area)
        for (kind, first, last), (count, area) in sorted(found.items())
    ]
    table = pd.DataFrame(rows, columns=list(TABLE_COLUMNS))
    table.to_csv(folder / TABLE, index=False, float_format="%.4f")
    return table, valid


def regions(folder: Path, grid: Grid, names: Mapping[int, str]) -> geopandas.GeoDataFrame:
    """The patches of one kind and one time as polygons; removes the picture they come from.

    Columns: kind, date_from and date_to (ISO, the median of the pixels' days), score (mean),
    pixels, area_ha, geometry. Ordered by score times pixels, the greatest first.
    """
    with rasterio.open(folder / PERIOD) as data:
        found = [
            (shape(outline), int(value))
            for outline, value in features.shapes(rasterio.band(data, 1))
            if value
        ]
    (folder / PERIOD).unlink()
    geometry = geopandas.GeoSeries([outline for outline, _ in found], crs=grid.crs)
    facts = _facts(folder, grid, geometry)
    frame = geopandas.GeoDataFrame(
        {
            "kind": pd.Series([names[value % 256] for _, value in found], dtype=object),
            "date_from": pd.Series([iso(day) for day in facts[:, 3]], dtype=object),
            "date_to": pd.Series([iso(day) for day in facts[:, 4]], dtype=object),
            "score": facts[:, 2] / facts[:, 0],
            "pixels": facts[:, 0].astype(np.int64),
            "area_ha": facts[:, 1],
        },
        geometry=geometry,
    )
    order = np.argsort(-facts[:, 2], kind="stable")
    return frame.iloc[order].reset_index(drop=True)


def _facts(folder: Path, grid: Grid, outlines: geopandas.GeoSeries) -> npt.NDArray[np.float64]:
    """(polygons, 5) pixels, hectares, sum of the scores, and the median days before and after."""
    shapes, tree = outlines.to_numpy(), outlines.sindex
    hectares = _hectares(grid)
    facts = np.zeros((len(shapes), 5))
    days: list[npt.NDArray[np.int32]] = [np.empty((3, 0), np.int32)]
    with rasterio.open(folder / SCORE) as scores, rasterio.open(folder / DATE) as dates:
        for core in windows(grid.rows, grid.columns, TILE):
            place = rasterio_windows.Window(core.column, core.row, core.columns, core.rows)
            transform = moved_to(grid.transform, core.row, core.column)
            near = np.sort(tree.query(_outline(transform, core), predicate="intersects"))
            if not len(near):
                continue
            owner = features.rasterize(
                [(shapes[number], int(number) + 1) for number in near],
                out_shape=(core.rows, core.columns), dtype="int32",
                transform=transform,
            )  # fmt: skip
            inside = owner > 0
            own = owner[inside] - 1
            row = core.row + np.nonzero(inside)[0]
            score = scores.read(1, window=place)[inside].astype(np.float64)
            for column, weight in enumerate((None, hectares[row], score)):
                facts[:, column] += np.bincount(own, weight, len(shapes))
            days.append(np.vstack([own[None], dates.read(window=place)[:, inside]]))
    table = pd.DataFrame(np.concatenate(days, axis=1).T, columns=["own", "first", "last"])
    middle = table.groupby("own").median()
    facts[middle.index, 3:] = middle.to_numpy()
    return facts


def _outline(transform: Affine, core: Window) -> Polygon:
    """A window, whose first pixel's corner `transform` places, on the ground."""
    a, b, c, d, e, f = transform[:6]
    corners = ((0, 0), (core.columns, 0), (core.columns, core.rows), (0, core.rows))
    return Polygon([(a * x + b * y + c, d * x + e * y + f) for x, y in corners])


def _hectares(grid: Grid) -> npt.NDArray[np.float64]:
    """(rows,) of a pixel; NaN where there is no CRS."""
    return np.full(grid.rows, np.nan) if grid.crs is None else pixel_area_ha(grid)
