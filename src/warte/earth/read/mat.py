"""Hyperspectral cubes in MATLAB files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from affine import Affine

from warte.core.data.tiles import Window
from warte.core.errors import InputError
from warte.earth.read.files import DAMAGE, told
from warte.earth.scene import BoolArray, Float32Array, Grid, Scene, no_crs_notes

MAX_VALUES = 500_000_000  # numbers of a cube; it is held whole
MAX_BANDS = 100_000
NUMBERS = {"int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
           "single", "double"}  # fmt: skip


@dataclass(frozen=True)
class Cube:
    """A reader of one variable (rows, columns, bands) of a .mat file; `order`: its bands."""

    path: str
    variable: str
    order: tuple[int, ...]

    def read(self, window: Window, bands: Sequence[int]) -> tuple[Float32Array, BoolArray]:
        """See `warte.earth.scene.Reader`."""
        rows, columns = window.slices
        cube = _load(self.path, self.variable, os.stat(self.path).st_mtime_ns)
        part = cube[rows, columns][..., [self.order[band] for band in bands]]
        values = np.ascontiguousarray(np.moveaxis(part, -1, 0), np.float32)
        return values, np.ones((window.rows, window.columns), bool)


def read_mat(path: Path, *, bands: Sequence[str] | None) -> Scene:
    """The cube of a .mat file: its only variable of three dimensions, or the one called data.

    Raises:
        InputError: it is damaged, of version 7.3 without h5py, or holds no cube.
    """
    found = _cubes(path)
    name = "data" if "data" in found else next(iter(found), None)
    if name is None or (len(found) > 1 and name != "data"):
        raise InputError(
            f"{path} holds {len(found)} variables of numbers with rows, columns and bands; "
            "it must hold one, or one called data"
        )
    rows, columns, count = found[name]
    if min(found[name]) < 1 or rows * columns * count > MAX_VALUES or count > MAX_BANDS:
        raise InputError(
            f"{path}: {name} is {rows} x {columns} x {count}; at most {MAX_VALUES:,} numbers and "
            f"{MAX_BANDS:,} bands are read from .mat; make it a GeoTIFF"
        )
    _load(str(path), name, os.stat(path).st_mtime_ns)  # damage shows while opening
    names = {f"band_{number + 1}": number for number in range(count)}
    chosen = list(names if bands is None else bands)
    missing = [band for band in chosen if band not in names]
    if missing:
        raise InputError(f"{path} has no band {missing[0]}; it has band_1 to band_{count}")
    reader = Cube(str(path), name, tuple(names[band] for band in chosen))
    grid = Grid(rows, columns, Affine.identity(), None)
    return Scene(
        path.stem, grid, tuple(chosen), reader, paths=(str(path),), notes=no_crs_notes(grid)
    )


def _is_hdf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(19) == b"MATLAB 7.3 MAT-file"


def _hdf(path: Path) -> Any:
    try:
        import h5py  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        raise InputError(
            f"{path} is a MATLAB 7.3 file, which needs h5py; type: pip install h5py, or save it "
            "with -v7"
        ) from None
    return h5py.File(path, "r")


def _cubes(path: Path) -> dict[str, tuple[int, int, int]]:
    """Variables of three dimensions and their sizes."""
    try:
        if _is_hdf(path):
            with _hdf(path) as file:
                # MATLAB stores the last dimension first.
                return {
                    name: tuple(item.shape[::-1]) for name, item in file.items()
                    if getattr(item, "ndim", 0) == 3 and item.dtype.kind in "iuf"
                }  # fmt: skip
        return {
            name: shape for name, shape, kind in scipy.io.whosmat(path)
            if len(shape) == 3 and kind in NUMBERS
        }  # fmt: skip
    except (*DAMAGE, scipy.io.matlab.MatReadError) as problem:
        raise InputError(f"cannot read {path}: {told(problem)}; fetch it again") from problem


@lru_cache(maxsize=1)
def _load(path: str, variable: str, _: int) -> Any:
    """The cube; kept, because its file can only be read whole."""
    try:
        if _is_hdf(Path(path)):
            with _hdf(Path(path)) as file:
                return np.asarray(file[variable]).T
        return np.asarray(scipy.io.loadmat(path, variable_names=[variable])[variable])
    except (*DAMAGE, scipy.io.matlab.MatReadError) as problem:
        raise InputError(f"cannot read {path}: {told(problem)}; fetch it again") from problem
