"""Whole scenes, window by window: a function of pixels becomes georeferenced pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio import windows as rasterio_windows

from warte.core.data.tiles import windows
from warte.earth.scene import Pixels, Scene, same_grid

Report = Callable[[str, int, int | None], None]  # (step, done, total or None)
Work = Callable[[Sequence[Pixels]], Mapping[str, npt.NDArray[Any]]]

TILE = 512  # pixels of a window's side


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
        blend: pixels over which the results of neighbours are blended into each other; only for
            outputs of floating point.
        pool: from `warte.core.execute.executor`; None works here.
        report: called with ("windows", done, total).

    Raises:
        InputError: the scenes do not lie on one grid, or no pixel of them is valid.
    """
    grid = same_grid(scenes)
    places = list(windows(grid.rows, grid.columns, tile))
    files = {
        output.name: rasterio.open(
            out / output.name, "w", driver="GTiff", height=grid.rows, width=grid.columns,
            count=len(output.bands), dtype=output.dtype, crs=grid.crs, transform=grid.transform,
            nodata=output.nodata, compress="deflate", tiled=True,
        )
        for output in outputs
    }  # fmt: skip
    for done, core in enumerate(places, 1):
        seen = core.grown(margin, grid.rows, grid.columns)
        pixels = [scene.read(seen, bands) for scene in scenes]
        valid = np.logical_and.reduce([part.valid for part in pixels])[core.within(seen)]
        found = work(pixels) if valid.any() else {}
        for output in outputs:
            values = np.full((len(output.bands), *valid.shape), output.nodata, output.dtype)
            if found:
                part = found[output.name][(slice(None), *core.within(seen))]
                values[:, valid] = part[:, valid]
            place = rasterio_windows.Window(core.column, core.row, core.columns, core.rows)
            files[output.name].write(values, window=place)
        if report is not None:
            report("windows", done, len(places))
    for file in files.values():
        file.close()
