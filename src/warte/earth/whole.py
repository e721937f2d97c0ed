"""Whole scenes, window by window: a function of pixels becomes georeferenced pictures.

Windows are computed anywhere and joined here, in fixed order, so that the files are the same
whatever the number of workers. What is finished is kept beside the results until all of it is: a
run that was killed goes on where it was, and its files are those of a run that was not.
"""

from __future__ import annotations

import pickle
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio import windows as rasterio_windows

from warte.core.data.disk import is_disk_full
from warte.core.data.resume import Pieces, file_facts, fingerprint, pieces
from warte.core.data.tiles import Tile, Tiling, Window
from warte.core.errors import InputError, OutputError
from warte.core.execute import ordered
from warte.earth.scene import Grid, Pixels, Scene, same_grid
from warte.earth.write import finish_cog, open_picture

Report = Callable[[str, int, int | None], None]  # (step, done, total or None)
Arrays = Mapping[str, npt.NDArray[Any]]
Work = Callable[[Sequence[Pixels]], Arrays]

TILE = 512  # pixels of a window's side
BLOCK = 256  # pixels of the side of a block in the raw pictures; overviews hold rows of them
CACHE = 16_000_000  # bytes of blocks that GDAL may keep; its own choice grows with the memory
VALID = ""  # name of the array that says which pixels of a core are valid


@dataclass(frozen=True)
class Output:
    """One georeferenced picture to be written.

    name: file name, such as "clusters.tif". dtype: NumPy's name, such as "uint8". nodata: value of
    pixels that are not valid. bands: a name for each band. colours: of a class picture, from value
    to red, green, blue (0..255). labels: of a class picture, from value to what it is called.
    """

    name: str
    dtype: str
    nodata: float
    bands: tuple[str, ...]
    colours: Mapping[int, tuple[int, int, int]] | None = None
    labels: Mapping[int, str] | None = None


def map_scenes(
    scenes: Sequence[Scene],
    work: Work,
    outputs: Sequence[Output],
    out: Path,
    *,
    bands: Sequence[str] | None = None,
    margin: int = 0,
    tile: int = TILE,
    blend: int = 0,
    align: int = 1,
    after: Callable[[Arrays], Arrays] | None = None,
    pool: Executor | None = None,
    report: Report | None = None,
) -> None:
    """Apply `work` to every window of scenes on one grid and write what it returns as COGs.

    Args:
        scenes: one or more on the same grid; `work` gets the pixels of each.
        work: can be pickled where there is a pool. It gets the pixels of one window with its
            margin, and returns for each output's name an array (bands, rows, columns) of that
            window, margin included. It is not called where no pixel of the window is valid. What
            it returns for pixels that are not valid in all scenes is replaced by nodata.
        outputs: the pictures to write into `out`.
        bands: the bands to read, by name.
        margin: pixels around each window that `work` sees and whose results are thrown away.
        tile: side of a window without margin (pixels).
        blend: pixels over which the results of neighbours are blended into each other, centred on
            the cut; only for arrays of floating point, others are cut.
        align: windows with their margin begin and end at multiples of this, or at the edges of
            the picture; a U-Net of depth d wants 2**d.
        after: makes further outputs from the joined arrays of one window without margin, such as
            classes from blended probabilities. `work` may return arrays that are for it alone.
            Where a pixel is not valid its arguments hold anything.
        pool: from `warte.core.execute.executor`; None works here.
        report: called with ("windows", done, total).

    The same call after a kill uses the windows that were finished, if scenes, work and settings
    are the same and can be pickled.

    Raises:
        InputError: the scenes do not lie on one grid, or no pixel of them is valid.
        SettingsError: the tile is smaller than the blend.
        OutputError: the disk is full.
    """
    grid = same_grid(scenes)
    tiling = Tiling(grid.rows, grid.columns, tile, margin, blend - blend % 2, align)
    piece = _Piece(tuple(scenes), work, None if bands is None else tuple(bands), tiling)
    key = _key(piece)
    try:
        with (
            rasterio.Env(GDAL_CACHEMAX=CACHE),
            pieces(out, key) as kept,
            _pictures(outputs, grid, kept.folder, out) as pictures,
        ):
            found = False
            for index in _computed(piece, kept, pool, report):
                joined = _joined(tiling, index, kept)
                found |= bool(joined)
                pictures.write(tiling[index].core, joined, after)
            if not found:
                names = " and ".join(scene.name for scene in scenes)
                raise InputError(
                    f"{names} has no pixel that is valid in all scenes and bands; look at its "
                    "no-data value and masks"
                )
    except OSError as problem:
        if not is_disk_full(problem):
            raise
        raise OutputError(
            f"the disk of {out.parent} is full; nothing was kept; make room, try again"
        ) from problem


@dataclass(frozen=True)
class _Piece:
    """What a worker does: read one window, compute it, keep what counts."""

    scenes: tuple[Scene, ...]
    work: Work
    bands: tuple[str, ...] | None
    tiling: Tiling

    def __call__(self, index: int) -> dict[str, npt.NDArray[Any]]:
        """Arrays by name, and which pixels of the core are valid; {} where none of them counts."""
        tile = self.tiling[index]
        with rasterio.Env(GDAL_CACHEMAX=CACHE):
            pixels = [scene.read(tile.seen, self.bands) for scene in self.scenes]
        valid = np.logical_and.reduce([part.valid for part in pixels])
        if not valid[tile.kept.within(tile.seen)].any():
            return {}
        arrays = {VALID: valid[tile.core.within(tile.seen)]}
        for name, values in self.work(pixels).items():
            window = _region(self.tiling, tile, values.dtype)
            arrays[name] = values[(slice(None), *window.within(tile.seen))]
        return arrays


def _key(piece: _Piece) -> str:
    """What tells this call from others; a fresh one where the work cannot be pickled."""
    paths = [path for scene in piece.scenes for path in scene.paths]
    try:
        return fingerprint(piece, file_facts(paths))
    except (pickle.PicklingError, AttributeError, TypeError):  # a local function, for example
        return secrets.token_hex()


def _region(tiling: Tiling, tile: Tile, dtype: npt.DTypeLike) -> Window:
    """The part of a tile whose values of this type count."""
    blended = tiling.blend and np.issubdtype(dtype, np.floating)
    return tile.kept if blended else tile.core


def _computed(
    piece: _Piece, kept: Pieces, pool: Executor | None, report: Report | None
) -> Iterator[int]:
    """Have all windows computed; yields their numbers in order, when their neighbours are kept."""
    tiling, count = piece.tiling, len(piece.tiling)
    results = ordered(pool, piece, [index for index in range(count) if index not in kept])
    ready = 0
    for index in range(count):
        if index not in kept:
            kept.put(index, next(results))
        while ready < count and tiling.neighbours(ready)[-1] <= index:
            yield ready
            ready += 1
        if report is not None:
            report("windows", index + 1, count)


def _joined(tiling: Tiling, index: int, kept: Pieces) -> dict[str, npt.NDArray[Any]]:
    """The arrays of one core, blended with those of its neighbours; {} where none is valid."""
    tile, own = tiling[index], kept.get(index)
    if VALID not in own or not own[VALID].any():
        return {}
    joined = {}
    for name, values in own.items():
        if _region(tiling, tile, values.dtype) == tile.core:
            joined[name] = np.asarray(values)
        else:
            joined[name] = _blended(tiling, index, kept, name).astype(values.dtype)
    return joined


def _blended(tiling: Tiling, index: int, kept: Pieces, name: str) -> npt.NDArray[np.float64]:
    """The weighted sum of all that tiles say about one core: (bands, rows, columns)."""
    core = tiling[index].core
    bands = len(kept.get(index)[name])
    total = np.zeros((bands, core.rows, core.columns))
    for number in tiling.neighbours(index):
        arrays, tile = kept.get(number), tiling[number]
        shared = core.shared(tile.kept)
        if name in arrays and shared is not None:
            part = arrays[name][(slice(None), *shared.within(tile.kept))]
            weight = tiling.weights(tile)[shared.within(tile.kept)]
            total[(slice(None), *shared.within(core))] += weight * part
    return total


@dataclass(frozen=True)
class _Pictures:
    """The files that are being written, by output."""

    outputs: Sequence[Output]
    files: Sequence[Any]

    def write(
        self,
        core: Window,
        joined: Arrays,
        after: Callable[[Arrays], Arrays] | None,
    ) -> None:
        """Write one core; nodata where it is not valid, or not a number."""
        found = {**joined, **after(joined)} if joined and after else joined
        place = rasterio_windows.Window(core.column, core.row, core.columns, core.rows)
        for output, file in zip(self.outputs, self.files, strict=True):
            values = np.full(
                (len(output.bands), core.rows, core.columns), output.nodata, output.dtype
            )
            if found:
                part, valid = found[output.name], found[VALID]
                known = valid & ~np.isnan(part)
                np.copyto(values, part, where=known, casting="unsafe")
            file.write(values, window=place)


@contextmanager
def _pictures(
    outputs: Sequence[Output], grid: Grid, folder: Path, out: Path
) -> Iterator[_Pictures]:
    """Raw pictures in `folder`, which become COGs in `out` when the block has ended well."""
    raw = [folder / f"raw-{number}.tif" for number in range(len(outputs))]
    with ExitStack() as stack:
        files = [
            stack.enter_context(
                open_picture(
                    place, "w", driver="GTiff", height=grid.rows, width=grid.columns,
                    count=len(output.bands), dtype=output.dtype, crs=grid.crs,
                    transform=grid.transform, nodata=output.nodata, tiled=True, blockxsize=BLOCK,
                    blockysize=BLOCK, bigtiff="if_safer",
                )
            )
            for place, output in zip(raw, outputs, strict=True)
        ]  # fmt: skip
        yield _Pictures(outputs, files)
    for place, output in zip(raw, outputs, strict=True):
        finish_cog(
            place, out / output.name, nodata=output.nodata, colours=output.colours,
            labels=output.labels, bands=output.bands,
        )  # fmt: skip
