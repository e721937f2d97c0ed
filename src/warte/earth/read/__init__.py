"""Satellite pictures from files, folders, products and catalogues.

What a place is, its contents say: a picture that GDAL reads, a folder with one file per band, a
product (Sentinel-1, Sentinel-2, Landsat Collection 2, TerraSAR-X, TanDEM-X), a Zarr store, a STAC
item, or a .mat cube.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from warte.core.data.tiles import Window
from warte.core.errors import InputError
from warte.earth.read.files import Band, Facts, FillChoice, bands_of, stack
from warte.earth.read.names import band_name, sensor_of, time_of, without_band
from warte.earth.scene import Grid, Scene

__all__ = ["read", "read_many"]

PICTURES = (".tif", ".tiff", ".jp2", ".vrt", ".img", ".png", ".jpg", ".jpeg", ".ntf")
RADAR = {"vv", "vh", "hh", "hv"}
Place = str | os.PathLike[str]


def read(
    place: Place | Sequence[Place],
    *,
    bands: Sequence[str] | None = None,
    fill: FillChoice = "auto",
    quality: bool = True,
    denoise: bool = False,
    grid: Grid | None = None,
) -> Scene:
    """Open one scene; its pixels are read when they are asked for.

    Args:
        place: a file, a folder, an address, or a list of files with one band each.
        bands: the bands to have, in this order; all by default. (The panchromatic band of
            Landsat only if named: it would bring all others to its grid.)
        fill: "auto" looks for fill that no tag names, "none" does not, a number is no-data.
        quality: leave out what the product's quality band calls cloud, shadow or fill.
        denoise: take the thermal noise off (Sentinel-1, TerraSAR-X).
        grid: the grid to have; by default the finest of the bands.

    Raises:
        InputError: nothing is there, it is damaged, or it is no picture of one place.
    """
    if not isinstance(place, str | os.PathLike):
        return _of_files([Path(one) for one in place], bands=bands, fill=fill, grid=grid)
    path = Path(place)
    if not path.exists():
        raise InputError(f"{path} does not exist; give a picture, or a folder of bands")
    if path.is_dir():
        return _of_files(_pictures(path), bands=bands, fill=fill, grid=grid, name=path.name)
    return _of_files([path], bands=bands, fill=fill, grid=grid)


def read_many(places: Sequence[Place], **options: object) -> list[Scene]:
    raise NotImplementedError


def _pictures(folder: Path) -> list[Path]:
    """The pictures of a folder.

    Raises:
        InputError: there is none.
    """
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)
    if not found:
        raise InputError(f"{folder} has no picture in it ({', '.join(PICTURES)})")
    return found


def _of_files(
    paths: Sequence[Path],
    *,
    bands: Sequence[str] | None,
    fill: FillChoice,
    grid: Grid | None,
    name: str | None = None,
) -> Scene:
    """A scene of pictures: all bands of one, or one band of each."""
    if not paths:
        raise InputError("no file is given; give a picture, or a folder of bands")
    name = name or paths[0].stem
    sensor = next(filter(None, (sensor_of(text) for text in (paths[0].name, name))), "")
    if len(paths) == 1:
        named, sensor = _named(str(paths[0]), sensor)
    else:
        named = [_single(path, sensor) for path in paths]
    facts = Facts(name, time=time_of(paths[0].stem), sensor=sensor)
    scene = stack(facts, named, chosen=bands, fill=fill, grid=grid)
    return _radar(scene)


def _named(path: str, sensor: str) -> tuple[list[tuple[str, Band]], str]:
    """The bands of one picture with their names, and the sensor."""
    found = bands_of(path)
    if "B8A" in {text for text, _, _ in found}:
        sensor = "sentinel-2"
    if len(found) == 1 and not found[0][0]:
        return [(band_name(Path(path).stem, sensor) or "band_1", found[0][2])], sensor
    names = [
        band_name(text, sensor) or text.strip() or colour or f"band_{number}"
        for number, (text, colour, _) in enumerate(found, 1)
    ]
    count = Counter(names)
    names = [name if count[name] == 1 else f"band_{number}" for number, name in enumerate(names, 1)]
    return list(zip(names, (band for _, _, band in found), strict=True)), sensor


def _single(path: Path, sensor: str) -> tuple[str, Band]:
    """The band that a file of one band holds, named by the file.

    Raises:
        InputError: it holds several.
    """
    found = bands_of(str(path))
    name = band_name(path.stem, sensor)
    if len(found) != 1 or name is None:
        why = f"has {len(found)} bands" if name else "is not named by a band, as in scene_B04.tif"
        raise InputError(f"{path.name} {why}; give files of one band each, or one scene at a time")
    return name, found[0][2]


def _radar(scene: Scene) -> Scene:
    """The scene, with what its radar bands mean: decibels are mostly below 0."""
    if not set(scene.bands) <= RADAR:
        return scene
    rows, columns = (min(256, size) for size in scene.grid.shape)
    middle = Window(
        (scene.grid.rows - rows) // 2, (scene.grid.columns - columns) // 2, rows, columns
    )
    pixels = scene.read(middle)
    if not pixels.valid.any() or np.mean(pixels.values[:, pixels.valid] < 0) < 0.5:
        return scene
    return replace(scene, quantity="sigma0_db", notes=(*scene.notes, "values are taken for dB"))
