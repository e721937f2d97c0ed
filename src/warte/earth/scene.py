"""A satellite picture as this package sees it: a grid, bands with names, and windows of pixels."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.crs import CRS

from warte.core.data.tiles import Window
from warte.core.errors import InputError

Float32Array = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
ArrayOrFloat = TypeVar("ArrayOrFloat", npt.NDArray[np.float64], float)

# What the numbers of a scene mean.
Quantity = Literal["reflectance", "sigma0_db", "radiance", "number"]
# Names of bands that all sensors share; others keep the name that their file gives ("band_7").
BANDS = (
    "coastal", "blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "nir09",
    "cirrus", "swir16", "swir22", "lwir11", "lwir12", "pan", "vv", "vh", "hh", "hv",
)  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """Where the pixels of a picture lie.

    rows, columns: size (pixels). transform: from (column, row) of a pixel's upper left corner to
    coordinates of the CRS. crs: None where the file says none (then areas are in pixels).
    """

    rows: int
    columns: int
    transform: Affine
    crs: CRS | None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows, self.columns

    @property
    def whole(self) -> Window:
        """The window that holds all pixels."""
        return Window(0, 0, self.rows, self.columns)

    def places(self, column: ArrayOrFloat, row: ArrayOrFloat) -> tuple[ArrayOrFloat, ArrayOrFloat]:
        """Coordinates of (column, row); whole numbers are corners of pixels, 0.5 is a centre."""
        t = self.transform
        return t.a * column + t.b * row + t.c, t.d * column + t.e * row + t.f

    def part(self, window: Window) -> Grid:
        """The grid of a window."""
        x, y = self.places(float(window.column), float(window.row))
        t = self.transform
        return Grid(window.rows, window.columns, Affine(t.a, t.b, x, t.d, t.e, y), self.crs)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right, top, in the CRS."""
        corners = [
            self.places(float(column), float(row))
            for column in (0, self.columns) for row in (0, self.rows)
        ]  # fmt: skip
        xs, ys = zip(*corners, strict=True)
        return min(xs), min(ys), max(xs), max(ys)


@dataclass(frozen=True)
class Pixels:
    """The pixels of one window.

    values: (bands, rows, columns) float32, NaN where not valid. valid: (rows, columns) bool, False
    for no-data, fill, and what a quality band excludes. window: where they lie in the scene.
    """

    values: Float32Array
    valid: BoolArray
    window: Window


class Reader(Protocol):
    """What a scene reads its pixels with: a small frozen dataclass that can be pickled.

    A reader holds paths and numbers only. It opens its files when they are read, so a scene can be
    sent to another process.
    """

    def read(self, window: Window, bands: Sequence[int]) -> tuple[Float32Array, BoolArray]:
        """Values (bands, rows, columns) with scale and offset applied, and which are valid.

        window: lies inside the grid. bands: indices from 0 into the scene's bands.
        """
        ...


@dataclass(frozen=True)
class Scene:
    """A picture of which windows can be read; it can be sent to another process.

    name: for messages and file names. grid: where it lies. bands: their names, see BANDS.
    quantity: what the numbers mean. time: UTC, when it was taken. sensor: "sentinel-2",
    "landsat-7"... or "" where the file does not say. notes: what was found while opening, such as
    a fill value that no tag names; shown to the user.
    """

    name: str
    grid: Grid
    bands: tuple[str, ...]
    reader: Reader
    quantity: Quantity = "number"
    time: datetime.datetime | None = None
    sensor: str = ""
    paths: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default_factory=tuple)

    def read(self, window: Window | None = None, bands: Sequence[str] | None = None) -> Pixels:
        """The pixels of a window (the whole picture by default), of some bands (all by default).

        Raises:
            InputError: the scene lacks a band, or a file cannot be read there.
        """
        window = window or self.grid.whole
        values, valid = self.reader.read(window, self.indices(bands))
        valid &= np.isfinite(values).all(axis=0)
        values[:, ~valid] = np.nan
        return Pixels(values, valid, window)

    def indices(self, bands: Sequence[str] | None) -> list[int]:
        """Where bands of these names stand, from 0.

        Raises:
            InputError: the scene lacks one.
        """
        if bands is None:
            return list(range(len(self.bands)))
        for band in bands:
            if band not in self.bands:
                raise InputError(f"{self.name} has no band {band}; it has {', '.join(self.bands)}")
        return [self.bands.index(band) for band in bands]


def no_crs_notes(grid: Grid) -> tuple[str, ...]:
    """What a user should know of a grid without CRS; nothing of others."""
    if grid.crs is not None:
        return ()
    return (
        "no CRS is given: areas are in pixels, and labels in a CRS cannot be laid on; "
        "set it with gdal_edit.py -a_srs",
    )


def check_crs(scenes: Sequence[Scene]) -> None:
    """See that all scenes have a CRS, or none of them.

    Raises:
        InputError: some have one and others have not; the message names one of each.
    """
    without = [scene for scene in scenes if scene.grid.crs is None]
    others = [scene for scene in scenes if scene.grid.crs is not None]
    if without and others:
        one, other = without[0], others[0]
        raise InputError(
            f"{one.name} has no CRS and {other.name} has {other.grid.crs}; allowed are scenes "
            f"that all have one, or none; set it with gdal_edit.py -a_srs, or leave out the "
            f"{len(without)} without"
        )


def same_grid(scenes: Sequence[Scene]) -> Grid:
    """The grid that all scenes share.

    Raises:
        InputError: two differ in size, place or CRS; the message names both.
    """
    check_crs(scenes)
    first = scenes[0]
    for scene in scenes[1:]:
        what = difference(first.grid, scene.grid)
        if what:
            raise InputError(
                f"{first.name} and {scene.name} do not lie on one grid: {what}; "
                "bring them onto one grid first, for example with gdalwarp"
            )
    return first.grid


def difference(one: Grid, two: Grid) -> str:
    """What makes two grids different ones, in words; "" where they are the same."""
    if one.shape != two.shape:
        return f"{one.rows} x {one.columns} and {two.rows} x {two.columns} pixels"
    if one.crs != two.crs:
        return f"CRS {one.crs} and {two.crs}"
    if not one.transform.almost_equals(two.transform, precision=1e-9):
        return "different places or pixel sizes"
    return ""


@dataclass(frozen=True)
class Memory:
    """A reader of arrays. values: (bands, rows, columns). valid: (rows, columns)."""

    values: Float32Array
    valid: BoolArray

    def read(self, window: Window, bands: Sequence[int]) -> tuple[Float32Array, BoolArray]:
        """See `Reader`."""
        rows, columns = window.slices
        return self.values[list(bands), rows, columns].copy(), self.valid[rows, columns].copy()


def scene_of_array(
    values: npt.ArrayLike,
    bands: Sequence[str] | None = None,
    grid: Grid | None = None,
    *,
    valid: npt.ArrayLike | None = None,
    name: str = "array",
    quantity: Quantity = "number",
    time: datetime.datetime | None = None,
    sensor: str = "",
) -> Scene:
    """A scene whose pixels are in memory.

    Args:
        values: (bands, rows, columns) or (rows, columns); NaN is no-data.
        bands: names; band_1, band_2... by default.
        grid: where it lies; by default one without CRS, in pixels, that row 0 is the top of.
        valid: (rows, columns) bool; all by default.

    Raises:
        InputError: the sizes do not agree, or a name is there twice.
    """
    pixels = np.asarray(values, np.float32)
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or 0 in pixels.shape:
        raise InputError(
            f"{name}: an array of shape {pixels.shape}; give (bands, rows, columns) with pixels"
        )
    count, rows, columns = pixels.shape
    names = tuple(bands or (f"band_{number}" for number in range(1, count + 1)))
    if len(names) != count or len(set(names)) != count:
        raise InputError(
            f"{name}: {count} bands named {', '.join(names)}; give each a name of its own"
        )
    grid = grid or Grid(rows, columns, Affine.identity(), None)
    good = np.ones((rows, columns), bool) if valid is None else np.asarray(valid, bool)
    if grid.shape != (rows, columns) or good.shape != (rows, columns):
        raise InputError(
            f"{name}: {rows} x {columns} pixels, a grid of {grid.shape} and a mask of {good.shape}"
        )
    reader = Memory(pixels, good)
    return Scene(name, grid, names, reader, quantity=quantity, time=time, sensor=sensor)


def pixel_area_ha(grid: Grid) -> npt.NDArray[np.float64]:
    """The area of one pixel in each row (rows,), hectares.

    For longitude and latitude it is the exact area on the ellipsoid between two parallels and two
    meridians (Snyder 1987, Map Projections, equation 3-12). For a projected CRS it is that of the
    plane, the same in all rows: the scale of the projection (0.9992 to 1.002 in a UTM zone, for
    areas) is left out.

    Raises:
        InputError: the grid has no CRS.
    """
    if grid.crs is None:
        raise InputError("the picture has no CRS, so areas are not known; set one with gdal_edit")
    step = grid.transform
    if not (grid.crs.is_geographic or grid.crs.is_projected):
        raise InputError("the CRS of the picture is not one of the earth, so areas are not known")
    if not grid.crs.is_geographic:
        metres = grid.crs.linear_units_factor[1] ** 2
        return np.full(grid.rows, abs(step.determinant) * metres / 1e4)
    import pyproj  # here, because most runs do not need it

    geod = pyproj.CRS.from_user_input(grid.crs).get_geod()
    assert geod is not None  # a geographic CRS has an ellipsoid
    edge = np.arange(grid.rows + 1) * step.e + step.f + step.d * grid.columns / 2
    b, e = geod.b, np.sqrt(geod.es)
    sine = np.sin(np.radians(np.clip(edge, -90, 90)))
    # The area between the equator and a parallel, for each radian of longitude.
    inner = np.arctanh(e * sine) / e if e > 0 else sine
    zone = b * b / 2 * (sine / (1 - (e * sine) ** 2) + inner)
    return np.abs(np.diff(zone)) * np.radians(abs(step.a)) / 1e4
