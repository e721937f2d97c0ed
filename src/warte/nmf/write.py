"""Factors into files: w.npy, h.npy, components.csv, activations or abundance maps."""

from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from warte.core.errors import InputError, MissingExtraError
from warte.nmf.read import Grid

Array = npt.NDArray[Any]
Table = Literal["csv", "parquet"]


def component_names(count: int) -> list[str]:
    """component_1, component_2, ..."""
    return [f"component_{number}" for number in range(1, count + 1)]


def column_names(names: Sequence[str] | None, count: int) -> list[str]:
    """The names of the columns of a matrix; column_1, column_2, ... where it has none."""
    if names is not None:
        return list(names)
    return [f"column_{number}" for number in range(1, count + 1)]


def write_components(folder: Path, h: Array, columns: Sequence[str] | None) -> None:
    """Write h (k, m) into h.npy and, a row for each component, into components.csv."""
    np.save(folder / "h.npy", h)
    table = pd.DataFrame(h, columns=pd.Index(column_names(columns, h.shape[1])))
    table.insert(0, "component", component_names(len(h)), allow_duplicates=True)
    table.to_csv(folder / "components.csv", index=False, float_format="%.9g")


def write_activations(
    folder: Path,
    w: Array,
    *,
    rows: Sequence[str] | None = None,
    grid: Grid | None = None,
    table: Table = "csv",
) -> None:
    """Write w (n, k) into w.npy, and for people into abundances.tif or activations.csv/.parquet.

    Args:
        folder: an existing folder.
        w: (n, k); with `grid` one row for each kept pixel.
        rows: n names of the rows; counted from 1 where there are none.
        grid: the picture that the rows come from; then abundances.tif is written, not a table.
        table: kind of the table.

    Raises:
        MissingExtraError: rasterio or pyarrow is needed and not installed.
    """
    np.save(folder / "w.npy", w)
    if grid is not None:
        write_maps(folder / "abundances.tif", w, grid)
        return
    frame = pd.DataFrame(w, columns=pd.Index(component_names(w.shape[1])))
    names = range(1, len(w) + 1) if rows is None else rows
    frame.insert(0, "row", pd.Series(list(names)))
    if table == "csv":
        frame.to_csv(folder / "activations.csv", index=False, float_format="%.9g")
        return
    try:
        import pyarrow  # noqa: F401  (pandas would say it in several lines)
    except ImportError as problem:
        raise MissingExtraError("pyarrow", "nmf") from problem
    frame.to_parquet(folder / "activations.parquet", index=False)


def maps(w: Array, grid: Grid) -> npt.NDArray[np.float32]:
    """The columns of w as pictures (k, height, width) float32; NaN where a pixel has no data."""
    pictures = np.full((w.shape[1], *grid.kept.shape), np.nan, dtype=np.float32)
    pictures[:, grid.kept] = w.T
    return pictures


def write_maps(path: Path, w: Array, grid: Grid) -> None:
    """Write w (n, k) as a GeoTIFF with k bands, float32, no-data NaN, on the grid of its pixels.

    Raises:
        MissingExtraError: rasterio is not installed.
    """
    try:
        import rasterio
        from rasterio.errors import NotGeoreferencedWarning
        from rasterio.transform import Affine
    except ImportError as problem:
        raise MissingExtraError("rasterio", "nmf") from problem
    height, width = grid.kept.shape
    with warnings.catch_warnings():
        # A picture without a place on Earth gets maps without one.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver="GTiff", height=height, width=width, count=w.shape[1],
            dtype="float32", nodata=float("nan"), crs=grid.crs or None,
            transform=Affine(*grid.transform), compress="deflate",
        ) as file:  # fmt: skip
            file.write(maps(w, grid))
            file.descriptions = component_names(w.shape[1])


def read_components(folder: str | os.PathLike[str]) -> tuple[Array, list[str] | None]:
    """Read what `write_components` wrote: h (k, m) and the names of its columns.

    The names are None where the matrix had none.

    Raises:
        InputError: the folder does not hold the two files, or they do not fit together.
    """
    place = Path(folder)
    for name in ("h.npy", "components.csv"):
        if not (place / name).is_file():
            raise InputError(f"{place} has no {name}; give a folder that `warte nmf fit` made")
    try:
        h = np.load(place / "h.npy", allow_pickle=False)
        with (place / "components.csv").open(encoding="utf-8", newline="") as file:
            names = next(csv.reader(file), [])[1:]
    except (OSError, ValueError, EOFError, csv.Error) as problem:
        said = " ".join(str(problem).split())
        raise InputError(f"{place} cannot be read ({said}); fit the model again") from problem
    if h.ndim != 2 or h.shape[1] != len(names):
        raise InputError(
            f"{place}: h.npy has shape {h.shape} and components.csv {len(names)} columns; "
            "fit the model again"
        )
    return h, None if names == column_names(None, h.shape[1]) else names
