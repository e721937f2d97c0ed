"""Files that GDAL reads: opened safely, stacked to one scene, with what is valid."""

from __future__ import annotations

import datetime
import logging
import math
import os
import struct
import threading
import warnings
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio import windows as rasterio_windows
from rasterio._err import CPLE_BaseError, stack_errors
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds

from warte.core.data.tiles import Window
from warte.core.errors import InputError, SettingsError
from warte.earth.read.fill import Fill, find_fill
from warte.earth.scene import (
    BoolArray,
    Float32Array,
    Grid,
    Quantity,
    Scene,
    difference,
    no_crs_notes,
)

FillChoice = Literal["auto", "none"] | float

DRIVERS = ("GTiff", "JP2OpenJPEG", "JP2KAK", "JPEG", "PNG", "VRT", "ENVI", "HFA", "NITF", "COSAR")
OPTIONS = {
    "GDAL_CACHEMAX": 16_000_000,  # bytes
    "GDAL_HTTP_CONNECTTIMEOUT": 10,  # seconds
    "GDAL_HTTP_TIMEOUT": 60,
    "GDAL_HTTP_MAX_RETRY": 2,
    "GDAL_NUM_THREADS": 1,
}
REMOTE = ("http://", "https://")
MAX_BLOCK = 256 << 20  # bytes of a block, which GDAL has to hold whole
MAX_RATIO = 20_000  # of a picture to its file; no compression of a real one reaches that
OPEN_FILES = 32  # that a thread keeps open
# What GDAL, rasterio and NumPy raise for files that are cut short or damaged.
DAMAGE = (
    *(rasterio.errors.RasterioError, CPLE_BaseError, OSError, ValueError, TypeError, KeyError),
    *(IndexError, OverflowError, MemoryError, AttributeError, SyntaxError, RuntimeError),
    *(zlib.error, struct.error, ArithmeticError, EOFError),
)

# Remarks of GDAL go to a log; without a handler Python would print them.
logging.getLogger("rasterio").addHandler(logging.NullHandler())
_opening = threading.Lock()  # filters of warnings are shared by all threads
_threads = threading.local()


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Whatever is wrong with a file while it is read becomes an InputError of one line."""
    # GDAL remembers the last error of the thread, and rasterio takes it for that of a later call
    # whose result cannot tell success from failure (colours of a band, for one). Entering this
    # block forgets it.
    with stack_errors():
        pass
    try:
        with rasterio.Env(**OPTIONS):
            yield
    except DAMAGE as problem:
        what = "; if it is cut short or damaged, fetch it again" * _of_file(problem)
        raise InputError(f"cannot read {name}: {told(problem)}{what}") from problem


def _of_file(problem: BaseException) -> bool:
    return isinstance(problem, rasterio.errors.RasterioIOError | CPLE_BaseError)


def told(problem: BaseException) -> str:
    """What a problem says, in one line of moderate length; GDAL's own words, not rasterio's."""
    while _of_file(problem) and problem.__cause__ is not None:
        problem = problem.__cause__
    said = " ".join(str(problem).split()) or type(problem).__name__
    return said if len(said) <= 200 else f"{said[:197]}..."


def opened(path: str, grid: Grid | None = None, resampling: str = "") -> Any:
    """An open dataset, kept open for this thread; inside of `reading` only.

    grid, resampling: what it is resampled to, where it is not read as it is.
    """
    kept: OrderedDict[Any, Any] = _threads.__dict__.setdefault("kept", OrderedDict())
    facts = os.stat(path) if os.path.exists(path) else None
    # A forked process must not share the place in a file with its parent.
    key = (
        os.getpid(),
        path,
        grid,
        resampling,
        facts and (facts.st_mtime_ns, facts.st_size, facts.st_ino),
    )
    if key not in kept:
        kept[key] = _open(path) if grid is None else _warped(path, grid, resampling)
        while len(kept) > OPEN_FILES:
            kept.popitem(last=False)
    kept.move_to_end(key)
    return kept[key]


def _open(path: str) -> Any:
    with _opening, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # rasterio.open takes one driver; others would guess at texts and archives.
        data = rasterio.DatasetReader(path, driver=list(DRIVERS), sharing=False)
    _check_size(path, data)
    return data


def _warped(path: str, grid: Grid, resampling: str) -> Any:
    data = opened(path)
    if data.crs is None or grid.crs is None:
        raise InputError(f"{Path(path).name} lies on another grid and has no CRS; give bands of "
                         "one grid, or set the CRS")  # fmt: skip
    with _opening, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return WarpedVRT(
            data, crs=grid.crs, transform=grid.transform, height=grid.rows, width=grid.columns,
            resampling=Resampling[resampling], dtype="float32", nodata=math.nan,
        )  # fmt: skip


def _check_size(path: str, data: Any) -> None:
    """Refuse, before anything is allocated, what claims more than it can hold.

    Raises:
        InputError: it does.
    """
    name = Path(path).name
    pixel = max(np.dtype(dtype).itemsize for dtype in data.dtypes)
    together = data.count if data.profile.get("interleave") == "pixel" else 1
    for rows, columns in set(data.block_shapes):
        size = rows * columns * pixel * together
        if size > MAX_BLOCK:
            raise InputError(
                f"{name} has blocks of {columns} x {rows} pixels ({size / 2**20:.0f} MiB, 256 are "
                "allowed); rewrite it with gdal_translate -co TILED=YES"
            )
    if not os.path.isfile(path) or data.driver == "VRT":
        return
    file_size = os.path.getsize(path)
    rows, columns = data.block_shapes[0]
    blocks = math.ceil(data.height / rows) * math.ceil(data.width / columns)
    listed = 4 * blocks * (1 if together > 1 else data.count)  # bytes, of a TIFF's index at least
    claimed = data.height * data.width * pixel * data.count
    if data.driver == "GTiff" and blocks > 8 and listed > file_size:
        lost = f"{blocks} blocks, more than it can list"
    elif data.driver != "GTiff" and claimed > MAX_RATIO * file_size:
        lost = f"{claimed / 2**20:.0f} MiB of pixels"
    else:
        return
    raise InputError(f"{name} claims {lost} in {file_size} bytes; it is damaged, fetch it again")


@dataclass(frozen=True)
class Band:
    """A band of a file. A pixel's value is scale * number + offset.

    number: from 1. nodata: a number that is no-data, besides what the file's tags say. kelvin:
    for thermal radiance L, the constants K1 and K2 of K2 / ln(K1 / L + 1). resampling: how it is
    brought to the grid; "" where it lies on it.
    """

    path: str
    number: int = 1
    scale: float = 1.0
    offset: float = 0.0
    nodata: float | None = None
    kelvin: tuple[float, float] | None = None
    resampling: str = ""


@dataclass(frozen=True)
class Quality:
    """A band that says which pixels are good: none of these bits, none of these classes."""

    band: Band
    bits: int = 0
    classes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Stack:
    """A reader of bands from one file or many."""

    grid: Grid
    bands: tuple[Band, ...]
    quality: Quality | None = None
    fill: Fill | None = None

    def read(self, window: Window, bands: Sequence[int]) -> tuple[Float32Array, BoolArray]:
        """See `warte.earth.scene.Reader`."""
        values = np.empty((len(bands), window.rows, window.columns), np.float32)
        valid = np.ones((window.rows, window.columns), bool)
        for place, index in enumerate(bands):
            band = self.bands[index]
            with reading(Path(band.path).name):
                raw, good = _read_band(band, self.grid, window)
                values[place] = _scaled(raw, band)
                valid &= good
        if self.quality is not None:
            valid &= self._good(self.quality, window)
        if self.fill is not None:
            valid &= ~self.fill.runs.mask(window)
        return values, valid

    def raw(self, window: Window, band: int) -> npt.NDArray[Any]:
        """The numbers of one band as they stand in the file."""
        with reading(Path(self.bands[band].path).name):
            return _read_band(self.bands[band], self.grid, window)[0]

    def _good(self, quality: Quality, window: Window) -> BoolArray:
        with reading(Path(quality.band.path).name):
            raw, good = _read_band(quality.band, self.grid, window)
        # Outside of a quality band that is resampled there is no number.
        known = np.isfinite(raw)
        flags = np.where(known, raw, 0).astype(np.int64)
        return np.asarray(
            good & known & (flags & quality.bits == 0) & ~np.isin(flags, quality.classes)
        )


def _read_band(band: Band, grid: Grid, window: Window) -> tuple[npt.NDArray[Any], BoolArray]:
    data = opened(band.path, grid if band.resampling else None, band.resampling)
    place = rasterio_windows.Window(window.column, window.row, window.columns, window.rows)
    raw = data.read(band.number, window=place)
    flags = data.mask_flag_enums[band.number - 1]
    good = np.ones(raw.shape, bool)
    if MaskFlags.nodata in flags:
        nodata = data.nodatavals[band.number - 1]
        good &= ~np.isnan(raw) if math.isnan(nodata) else raw != nodata
    elif MaskFlags.all_valid not in flags:
        good &= data.read_masks(band.number, window=place) > 0
    if band.nodata is not None:
        good &= raw != band.nodata
    return raw, good


def _scaled(raw: npt.NDArray[Any], band: Band) -> npt.NDArray[Any]:
    if (band.scale, band.offset) != (1.0, 0.0):
        raw = raw * np.float64(band.scale) + band.offset
    if band.kelvin is None:
        return raw
    one, two = band.kelvin
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(two / np.log(one / raw + 1))


@dataclass(frozen=True)
class Facts:
    """What is known of a scene besides its pixels; as in `Scene`."""

    name: str
    quantity: Quantity = "number"
    time: datetime.datetime | None = None
    sensor: str = ""
    notes: tuple[str, ...] = ()


def stack(
    facts: Facts,
    bands: Sequence[tuple[str, Band]],
    *,
    chosen: Sequence[str] | None = None,
    quality: Quality | None = None,
    fill: FillChoice = "auto",
    grid: Grid | None = None,
    resolutions: Mapping[str, object] | None = None,
) -> Scene:
    """A scene of named bands, on the finest of their grids or on a given one.

    Bands that lie on another grid are resampled where that is meant: a grid is given, or the
    product says that they have another resolution. Otherwise something is wrong with them.

    Args:
        resolutions: what the product says of a band's resolution, in whatever unit.

    Raises:
        InputError: a name is there twice, a chosen one is not there, a file cannot be read, holds
            complex numbers, or does not lie on the grid or ground of the others.
        SettingsError: the fill is no number.
    """
    _check_names(facts.name, [name for name, _ in bands], chosen)
    grids = [_grid(band) for _, band in bands]
    wanted = [number for number, (name, _) in enumerate(bands) if chosen is None or name in chosen]
    finest = min(wanted, key=lambda i: abs(grids[i].transform.determinant))
    target = grid or grids[finest]
    notes = [*facts.notes, *no_crs_notes(target)]
    laid = []
    for number, ((name, band), own) in enumerate(zip(bands, grids, strict=True)):
        if not difference(own, target):
            laid.append(band)
            continue
        if number in wanted:
            _check_ground(facts.name, name, own, target)
            if grid is None:
                _check_resolution(facts.name, (name, bands[finest][0]), (own, target), resolutions)
            notes.append(f"{name} is resampled from {_step(own)} to {_step(target)} (bilinear)")
        laid.append(replace(band, resampling="bilinear"))
    if quality is not None:
        quality = replace(quality, band=_laid_quality(quality.band, target))
    whole = Stack(target, tuple(laid), quality)
    whole, said = _filled(whole, fill)
    order = wanted if chosen is None else [[n for n, _ in bands].index(name) for name in chosen]
    return Scene(
        facts.name, target, tuple(bands[i][0] for i in order),
        replace(whole, bands=tuple(whole.bands[i] for i in order)), facts.quantity, facts.time,
        facts.sensor, tuple(dict.fromkeys(bands[i][1].path for i in order)),
        (*notes, *said),
    )  # fmt: skip


def _check_names(scene: str, names: Sequence[str], chosen: Sequence[str] | None) -> None:
    if not names:
        raise InputError(f"{scene} holds no bands")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{scene} has band {', '.join(twice)} more than once; keep one of each")
    missing = [name for name in chosen or () if name not in names]
    if missing:
        raise InputError(f"{scene} has no band {', '.join(missing)}; it has {', '.join(names)}")


def _grid(band: Band) -> Grid:
    with reading(Path(band.path).name):
        data = opened(band.path)
        if np.dtype(data.dtypes[band.number - 1]).kind == "c":
            raise InputError(
                f"{Path(band.path).name} holds complex numbers (single look complex); give the "
                "detected product, or its folder with the metadata"
            )
        return Grid(data.height, data.width, data.transform, data.crs)


def _check_resolution(
    scene: str,
    names: tuple[str, str],
    grids: tuple[Grid, Grid],
    resolutions: Mapping[str, object] | None,
) -> None:
    """See that a band may lie on another grid than the finest one.

    Raises:
        InputError: nothing says that it has another resolution, or it covers other ground.
    """
    said = [(resolutions or {}).get(name) for name in names]
    own, target = grids
    if None not in said and said[0] != said[1] and _covers(own, target):
        return
    raise InputError(
        f"{scene}: bands {names[1]} and {names[0]} do not lie on one grid: "
        f"{difference(target, own)}; bring them onto one with gdalwarp, or leave one out"
    )


def _covers(own: Grid, target: Grid) -> bool:
    """Whether two grids of one CRS cover the same ground, within a pixel of the coarser one."""
    if own.crs != target.crs:
        return False
    pixel = max(math.sqrt(abs(grid.transform.determinant)) for grid in (own, target))
    ends = zip(own.bounds, target.bounds, strict=True)
    return all(abs(one - two) <= pixel for one, two in ends)


def _check_ground(scene: str, name: str, own: Grid, target: Grid) -> None:
    """See that a band can be brought to a grid.

    Raises:
        InputError: it has no CRS, or lies elsewhere.
    """
    if own.crs is None or target.crs is None:
        raise InputError(
            f"{scene}: band {name} has {own.rows} x {own.columns} pixels, others {target.rows} x "
            f"{target.columns}, and no CRS says how they lie; give bands of one grid"
        )
    mine, others = _extent(own, target), _extent(target, target)
    if mine[0] > others[2] or mine[2] < others[0] or mine[1] > others[3] or mine[3] < others[1]:
        raise InputError(f"{scene}: band {name} lies in another place than the others; "
                         "give bands of one scene")  # fmt: skip


def _laid_quality(band: Band, target: Grid) -> Band:
    own = _grid(band)
    return replace(band, resampling="nearest") if difference(own, target) else band


def _extent(grid: Grid, target: Grid) -> tuple[float, float, float, float]:
    """Left, bottom, right, top in the CRS of the target."""
    if grid.crs == target.crs:
        return grid.bounds
    with reading("a CRS"):
        left, bottom, right, top = transform_bounds(grid.crs, target.crs, *grid.bounds)
    return left, bottom, right, top


def _step(grid: Grid) -> str:
    unit = "degrees" if grid.crs is not None and grid.crs.is_geographic else "m"
    return f"{math.sqrt(abs(grid.transform.determinant)):.6g} {unit}"


def _filled(whole: Stack, fill: FillChoice) -> tuple[Stack, list[str]]:
    """The stack with its fill, and what there is to say about it.

    Raises:
        SettingsError: the fill is no number.
    """
    if fill == "none":
        return whole, []
    if fill != "auto":
        try:
            value = float(fill)
        except ValueError:
            raise SettingsError(f"--fill {fill}; give auto, none or a number") from None
        return replace(
            whole, bands=tuple(replace(band, nodata=value) for band in whole.bands)
        ), [f"{value:g} is taken for no-data, as asked"]  # fmt: skip
    if any(_tagged(band) for band in whole.bands):
        return whole, []
    if any(band.path.startswith("/vsi") for band in whole.bands):
        return whole, ["fill is not looked for at an address, it would be fetched whole"]
    places = [number for number, band in enumerate(whole.bands) if not band.resampling]
    found = find_fill(
        lambda window, number: whole.raw(window, places[number]), whole.grid, len(places),
        block_rows=max(_block_rows(whole.bands[place]) for place in places),
    )  # fmt: skip
    if found is None:
        return whole, []
    share = found.pixels / (whole.grid.rows * whole.grid.columns)
    return replace(whole, fill=found), [
        f"{found.pixels:,} pixels ({share:.1%}) hold {found.value:g} in all bands and reach the "
        "border, and no tag names them: taken for no-data (--fill none keeps them)"
    ]


def _block_rows(band: Band) -> int:
    with reading(Path(band.path).name):
        return int(opened(band.path).block_shapes[band.number - 1][0])


def _tagged(band: Band) -> bool:
    """Whether a file says itself what is not valid."""
    if band.nodata is not None:
        return True
    with reading(Path(band.path).name):
        return MaskFlags.all_valid not in opened(band.path).mask_flag_enums[band.number - 1]


def bands_of(path: str) -> list[tuple[str, str, Band]]:
    """The bands of a file: its own description, its colour ("red" or ""), and the band.

    Bands of transparency are left out; GDAL takes them for masks.
    """
    with reading(Path(path).name):
        data = opened(path)
        found = []
        for number in range(1, data.count + 1):
            colour = data.colorinterp[number - 1]
            if colour == ColorInterp.alpha:
                continue
            rgb = colour.name if colour.name in ("red", "green", "blue") else ""
            band = Band(
                path, number, data.scales[number - 1] or 1.0, data.offsets[number - 1] or 0.0
            )
            found.append((data.descriptions[number - 1] or "", rgb, band))
        return found
