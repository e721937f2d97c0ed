"""Pictures of a run beside pictures or polygons of the truth, window by window."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyogrio
import rasterio
from rasterio import windows as rasterio_windows
from scipy.ndimage import maximum_filter, minimum_filter

from warte.core.data.tiles import Window, windows
from warte.core.errors import InputError
from warte.earth.evaluate.measures import (
    Calibration,
    IntArray,
    Ranks,
    Scores,
    change_scores,
    class_scores,
    cluster_scores,
    match_regions,
    squared,
)
from warte.earth.labels import VECTORS, Labels, placed, rasterise, read_labels
from warte.earth.scene import Grid
from warte.earth.write import LABELS_TAG, polygons_of

TILE = 1024  # pixels of a window's side
NONE = -1  # no label, no class, no group
CLUSTER_NOISE = 255  # value of clusters.tif that belongs to no cluster
NO_DAY = -1  # of the truth's days


@dataclass
class Counts:
    """Pixels by group, value of the truth, and value that was found."""

    cells: dict[tuple[int, int, int], int] = field(default_factory=dict)

    def add(self, group: IntArray, true: IntArray, said: IntArray) -> None:
        """Count the pixels that have a label; arrays of one shape, NONE for nothing."""
        known = true != NONE
        keys = np.column_stack([group[known], true[known], said[known]])
        for key, number in zip(*np.unique(keys, axis=0, return_counts=True), strict=True):
            cell = int(key[0]), int(key[1]), int(key[2])
            self.cells[cell] = self.cells.get(cell, 0) + int(number)

    def tables(self) -> tuple[list[int], list[int], IntArray, int]:
        """Values of the truth, values found, counts (groups, truth, found), unclassified.

        Groups are in the order of their numbers.
        """
        groups = sorted({cell[0] for cell in self.cells})
        true = sorted({cell[1] for cell in self.cells})
        said = sorted({cell[2] for cell in self.cells} - {NONE})
        counts = np.zeros((len(groups), len(true), len(said)), np.int64)
        missing = 0
        for (group, row, column), number in self.cells.items():
            if column == NONE:
                missing += number
            else:
                counts[groups.index(group), true.index(row), said.index(column)] = number
        return true, said, counts, missing


def classes(folder: Path, name: str, truth: Path, field: str | None, tolerance: int) -> Scores:
    """Scores of classes.tif, with those of probabilities.tif if it is there."""
    counts, calibration = Counts(), Calibration()
    with opened(folder / name) as file:
        labels, said_names = truth_on(truth, file, field), names_of(file)
        stated = Stated.of(folder, labels.names)
        for window, true, group in labels.windows(grid_of(file), tolerance):
            counts.add(group, true, values_of(file, window))
            if stated is not None:
                stated.add(calibration, window, true)
    rows, columns, tables, missing = counts.tables()
    _some(counts, truth, folder / name)
    names = _named(rows, labels.names), _named(columns, said_names)
    scores = class_scores(tables.sum(axis=0), names, missing)
    groups = None
    if labels.labels is not None:
        every = tuple(scores.table["class"])
        groups = squared(tables, names, every).transpose(0, 2, 1)
    return Scores(
        "classes", {**scores.numbers, **calibration.numbers()}, scores.table, names,
        scores.confusion, groups,
    )  # fmt: skip


def clusters(folder: Path, name: str, truth: Path, field: str | None, tolerance: int) -> Scores:
    """Scores of clusters.tif."""
    counts = Counts()
    with opened(folder / name) as file:
        labels = truth_on(truth, file, field)
        for window, true, group in labels.windows(grid_of(file), tolerance):
            said = values_of(file, window)
            counts.add(group, true, np.where(said == CLUSTER_NOISE, NONE, said))
    _some(counts, truth, folder / name)
    rows, columns, tables, missing = counts.tables()
    names = _named(rows, labels.names), _named(columns, {})
    return cluster_scores(tables.sum(axis=0), names, missing)


def anomalies(folder: Path, name: str, truth: Path) -> Scores:
    """Scores of anomaly.tif: auc, average_precision, share, and of regions.gpkg one to one."""
    with opened(folder / name) as file, opened(truth) as true_file:
        _same_place(file, true_file)
        places = list(windows(file.height, file.width, TILE))
        true_scores = [_scored(file, true_file, window, 1) for window in places]
        ranks = Ranks.of(np.concatenate(true_scores))
        for window in places:
            ranks.add(_scored(file, true_file, window, 0))
    numbers = ranks.numbers()
    regions = folder / "regions.gpkg"
    if regions.exists():
        numbers |= match_regions(pyogrio.read_dataframe(regions), _true_regions(truth))
    return Scores("anomalies", numbers, pd.DataFrame())


def change(folder: Path, name: str, truth: Path) -> Scores:
    """Scores of change.tif, with the days of change_date.tif where both have them."""
    counts, errors = Counts(), dict[str, dict[int, int]]()
    with opened(folder / name) as file, opened(truth) as true_file:
        _same_place(file, true_file)
        true_names = {0: "no change"} | names_of(true_file)
        said_names = {0: "no change"} | names_of(file)
        days = Days.of(folder, truth)
        for window in windows(file.height, file.width, TILE):
            true, said = values_of(true_file, window), values_of(file, window)
            true = np.where(said == NONE, NONE, true)
            counts.add(np.zeros_like(true), true, said)
            if days is not None:
                days.add(errors, window, true, said, true_names)
    _some(counts, truth, folder / name)
    return _change_scores(counts, true_names, said_names, errors)


def arrays(found: npt.NDArray[Any], truth: npt.NDArray[Any], what: str, tolerance: int) -> Scores:
    """Scores of arrays (rows, columns); values below 0 are nothing."""
    if found.shape != truth.shape or found.ndim != 2:
        raise InputError(
            f"arrays of the shapes {found.shape} and {truth.shape} cannot be compared; "
            "give two of one shape (rows, columns)"
        )
    if what == "anomalies":
        known = ~np.isnan(found.astype(np.float64))
        ranks = Ranks.of(found[known & (truth == 1)].astype(np.float64))
        ranks.add(found[known & (truth == 0)].astype(np.float64))
        return Scores("anomalies", ranks.numbers(), pd.DataFrame())
    said, true = (np.where(one < 0, NONE, one).astype(np.int64) for one in (found, truth))
    counts = Counts()
    if what == "change":
        counts.add(np.zeros_like(true), np.where(said == NONE, NONE, true), said)
        return _change_scores(counts, {0: "no change"}, {0: "no change"}, {})
    counts.add(np.zeros_like(true), inner(true, tolerance), said)
    rows, columns, tables, missing = counts.tables()
    names = _named(rows, {}), _named(columns, {})
    score = cluster_scores if what == "clusters" else class_scores
    return score(tables.sum(axis=0), names, missing)


@dataclass(frozen=True)
class Truth:
    """Labels on the grid of a result: a raster of that grid, or labels that are laid on it."""

    path: Path
    labels: Labels | None
    names: dict[int, str]

    def windows(self, grid: Grid, tolerance: int) -> Iterator[tuple[Window, IntArray, IntArray]]:
        """Windows with the value and the group of each pixel, NONE for no label."""
        for window in windows(grid.rows, grid.columns, TILE):
            seen = window.grown(tolerance, grid.rows, grid.columns)
            inside = window.within(seen)
            if self.labels is None:
                with opened(self.path) as file:
                    true = values_of(file, seen)
                group = np.zeros_like(true)
            else:
                values, groups = rasterise(self.labels, grid, seen)
                true, group = values.astype(np.int64), groups.astype(np.int64)
            yield window, inner(true, tolerance)[inside], group[inside]


def truth_on(path: Path, file: Any, field: str | None) -> Truth:
    """The truth for an open result.

    Raises:
        InputError: it cannot be brought onto its grid.
    """
    if path.suffix.lower() not in VECTORS:
        with opened(path) as other:
            if _at_one_place(file, other):
                return Truth(path, None, names_of(other))
            if file.crs is None or other.crs is None:
                _same_place(file, other)
    labels = placed(read_labels(path, field=field), grid_of(file))
    return Truth(path, labels, dict(enumerate(labels.classes)))


def inner(true: IntArray, tolerance: int) -> IntArray:
    """Labels without those that are at most `tolerance` pixels from another class."""
    if tolerance == 0:
        return true
    side = 2 * tolerance + 1
    alone = maximum_filter(true, side) == minimum_filter(true, side)
    return np.where(alone, true, NONE)


@dataclass(frozen=True)
class Stated:
    """probabilities.tif, with the band of each value of the truth."""

    path: Path
    band_of: dict[int, int]

    @classmethod
    def of(cls, folder: Path, true_names: dict[int, str]) -> Stated | None:
        """None where there is no such file, or its bands are named otherwise than the truth."""
        path = folder / "probabilities.tif"
        if not path.exists():
            return None
        with opened(path) as file:
            bands = {name: number for number, name in enumerate(file.descriptions)}
        band_of = {value: bands[name] for value, name in true_names.items() if name in bands}
        return cls(path, band_of) if band_of else None

    def add(self, calibration: Calibration, window: Window, true: IntArray) -> None:
        """Count the pixels of a window whose class has a band."""
        with opened(self.path) as file:
            chances = np.moveaxis(_read(file, window, None), 0, -1).astype(np.float64)
        known = np.isin(true, list(self.band_of)) & np.isfinite(chances).all(axis=-1)
        place = np.array([self.band_of[int(value)] for value in true[known]], np.int64)
        calibration.add(chances[known], place)


@dataclass(frozen=True)
class Days:
    """Days on which changes were found and on which they happened."""

    found: Path
    true: Path

    @classmethod
    def of(cls, folder: Path, truth: Path) -> Days | None:
        """None where one of the two files is not there."""
        found, true = folder / "change_date.tif", truth.with_name("change_date.tif")
        return cls(found, true) if found.exists() and true.exists() else None

    def add(
        self, errors: dict[str, dict[int, int]], window: Window, true: IntArray, said: IntArray,
        names: dict[int, str],
    ) -> None:  # fmt: skip
        """Count how many days the true day lies outside of the interval that was found."""
        with opened(self.found) as file, opened(self.true) as true_file:
            first, last = _read(file, window, None)[[0, -1]].astype(np.int64)
            day = _read(true_file, window, [1])[0].astype(np.int64)
        known = (true > 0) & (said > 0) & (day != NO_DAY)
        off = np.maximum(np.maximum(first - day, day - last), 0)
        for kind in np.unique(true[known]):
            of_kind = errors.setdefault(names.get(int(kind), str(kind)), {})
            values, numbers = np.unique(off[known & (true == kind)], return_counts=True)
            for value, number in zip(values, numbers, strict=True):
                of_kind[int(value)] = of_kind.get(int(value), 0) + int(number)


def opened(path: Path) -> Any:
    """A raster file.

    Raises:
        InputError: it is none.
    """
    try:
        return rasterio.open(path)
    except rasterio.errors.RasterioIOError as problem:
        raise InputError(f"cannot read {path}: {problem}") from problem


def values_of(file: Any, window: Window) -> IntArray:
    """Whole numbers of the first band, NONE for no-data."""
    values = _read(file, window, [1])[0].astype(np.int64)
    if file.nodata is not None:
        values[values == int(file.nodata)] = NONE
    return values


def names_of(file: Any) -> dict[int, str]:
    """Names of the values of a picture of classes, as far as its tags say them."""
    tag = file.tags().get(LABELS_TAG)
    return {int(value): str(name) for value, name in json.loads(tag).items()} if tag else {}


def grid_of(file: Any) -> Grid:
    """Where its pixels lie."""
    return Grid(file.height, file.width, file.transform, file.crs)


def _change_scores(
    counts: Counts,
    true_names: dict[int, str],
    said_names: dict[int, str],
    errors: dict[str, dict[int, int]],
) -> Scores:
    true, said, tables, _ = counts.tables()
    rows, columns = sorted({0, *true}), sorted({0, *said})
    whole = np.zeros((len(rows), len(columns)), np.int64)
    place = np.ix_([rows.index(value) for value in true], [columns.index(value) for value in said])
    whole[place] = tables.sum(axis=0)
    return change_scores(whole, (_named(rows, true_names), _named(columns, said_names)), errors)


def _scored(file: Any, true_file: Any, window: Window, value: int) -> npt.NDArray[np.float64]:
    """Scores of the pixels of a window whose truth is this."""
    scores = _read(file, window, [1])[0].astype(np.float64)
    found: npt.NDArray[np.float64] = scores[
        ~np.isnan(scores) & (values_of(true_file, window) == value)
    ]
    return found


def _true_regions(truth: Path) -> geopandas.GeoDataFrame:
    polygons = truth.with_suffix(".gpkg")
    beside = truth.parent.parent / polygons.name
    for path in (polygons, beside):
        if path.exists():
            return pyogrio.read_dataframe(path)
    return polygons_of(truth, skip=(0,))


def _read(file: Any, window: Window, bands: list[int] | None) -> npt.NDArray[Any]:
    place = rasterio_windows.Window(window.column, window.row, window.columns, window.rows)
    try:
        values: npt.NDArray[Any] = file.read(bands, window=place)
    except rasterio.errors.RasterioIOError as problem:
        raise InputError(f"cannot read {file.name}: {problem}") from problem
    return values


def _at_one_place(one: Any, two: Any) -> bool:
    return bool(
        one.shape == two.shape
        and one.crs == two.crs
        and one.transform.almost_equals(two.transform, precision=1e-9)
    )


def _same_place(one: Any, two: Any) -> None:
    if not _at_one_place(one, two):
        raise InputError(
            f"{one.name} ({one.height} x {one.width} pixels, {one.crs}) and {two.name} "
            f"({two.height} x {two.width} pixels, {two.crs}) do not lie on one grid; "
            "give the truth on the grid of the result"
        )


def _some(counts: Counts, truth: Path, found: Path) -> None:
    if not counts.cells:
        raise InputError(f"no label of {truth} lies on {found}; give labels of that place")


def _named(values: list[int], names: dict[int, str]) -> tuple[str, ...]:
    return tuple(names.get(value, str(value)) for value in values)
