"""Satellite pictures from files, folders, products and catalogues.

What a place is, its contents say: a picture that GDAL reads, a folder with one file per band, a
product (Sentinel-1, Sentinel-2, Landsat Collection 2, TerraSAR-X, TanDEM-X), a Zarr store, a STAC
item, or a .mat cube.
"""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from warte.core.data.tiles import Window
from warte.core.errors import InputError
from warte.earth.read import landsat, sentinel2
from warte.earth.read.files import REMOTE, Band, Facts, FillChoice, Quality, bands_of, stack
from warte.earth.read.metadata import json_of
from warte.earth.read.names import band_name, resolutions_of, sensor_of, time_of, without_band
from warte.earth.scene import Grid, Scene

__all__ = ["read", "read_many"]

PICTURES = (".tif", ".tiff", ".jp2", ".vrt", ".img", ".png", ".jpg", ".jpeg", ".ntf")
ZARR = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")
RADAR = {"vv", "vh", "hh", "hv"}
_FLAGS = re.compile(r"(?:^|[_-])(?:SCL|QA_PIXEL)(?:_\d+m)?$", re.IGNORECASE)
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
        return _of_files(
            [Path(one) for one in place], bands=bands, fill=fill, quality=quality, grid=grid
        )
    if str(place).startswith(REMOTE):
        return _remote(str(place), bands=bands, fill=fill, quality=quality, grid=grid)
    path = Path(place)
    if not path.exists():
        raise InputError(f"{path} does not exist; give a picture, or a folder of bands")
    if path.is_dir():
        found = _product(path, bands, fill, quality, denoise, grid)
        return found or _of_files(
            _pictures(path), bands=bands, fill=fill, quality=quality, grid=grid, name=path.name
        )
    return _file(path, bands, fill, quality, denoise, grid)


def read_many(
    places: Place | Sequence[Place], *, bands: Sequence[str] | None = None,
    fill: FillChoice = "auto", quality: bool = True, denoise: bool = False,
) -> list[Scene]:  # fmt: skip
    """Open the scenes of files, folders and patterns such as "scenes/*.tif".

    A folder that is a product, or whose files are bands of one scene, is one scene; of another
    folder each product and each picture in it is one.

    Args:
        places: one or several.
        bands, fill, quality, denoise: as for `read`.

    Raises:
        InputError: as for `read`, or nothing is there.
    """
    several = [places] if isinstance(places, str | os.PathLike) else list(places)
    groups = [group for place in several for group in _groups(str(place))]
    if not groups:
        raise InputError("no scene is given; give pictures, products or folders of them")
    return [
        read(group, bands=bands, fill=fill, quality=quality, denoise=denoise)
        for group in dict.fromkeys(groups)
    ]


def _groups(place: str) -> list[str | tuple[str, ...]]:
    """What each scene of a place is read from."""
    if not Path(place).exists() and glob.has_magic(place):
        found = sorted(glob.glob(place))
        if not found:
            raise InputError(f"no file is named {place}")
        return [group for one in found for group in _groups(one)]
    path = Path(place)
    if not path.is_dir() or _is_product(path):
        return [place]
    bands: dict[str, list[str]] = {}
    scenes: list[str | tuple[str, ...]] = []
    for inside in sorted(path.iterdir()):
        if inside.is_dir():
            if _is_product(inside):
                scenes.append(str(inside))
        elif inside.suffix.lower() == ".mat" or _is_item(inside):
            scenes.append(str(inside))
        elif inside.suffix.lower() in PICTURES:
            stem = inside.stem
            named = band_name(stem, sensor_of(stem)) is not None
            bands.setdefault(without_band(stem) if named else stem, []).append(str(inside))
    if len(bands) == 1 and not scenes and len(next(iter(bands.values()))) > 1:
        return [place]  # one scene, named as `read` names it
    groups = [tuple(files) if len(files) > 1 else files[0] for files in bands.values()]
    if not groups and not scenes:
        raise InputError(f"{path} holds no scene: no product, no picture ({', '.join(PICTURES)})")
    return sorted([*groups, *scenes], key=str)


def _is_item(path: Path) -> bool:
    """Whether a file is a STAC item."""
    if path.suffix.lower() not in (".json", ".geojson"):
        return False
    found = json_of(path)
    return isinstance(found, dict) and "stac_version" in found and found.get("type") == "Feature"


def _is_product(folder: Path) -> bool:
    return bool(
        sentinel2.metadata_of(folder)
        or landsat.metadata_of(folder)
        or _is_sentinel1(folder)
        or _terrasar(folder)
        or _is_store(folder)
    )


def _is_sentinel1(folder: Path) -> bool:
    return (folder / "manifest.safe").is_file() and (folder / "annotation").is_dir()


def _terrasar(folder: Path) -> Path | None:
    """The annotation of a TerraSAR-X product, where the folder is one."""
    found = sorted(folder.glob("T[SD]X1_SAR__*.xml"))
    return found[0] if found and (folder / "IMAGEDATA").is_dir() else None


def _is_store(folder: Path) -> bool:
    return any((folder / name).exists() for name in ZARR)


def _product(
    folder: Path, bands: Sequence[str] | None, fill: FillChoice, quality: bool, denoise: bool,
    grid: Grid | None,
) -> Scene | None:  # fmt: skip
    """The scene of a folder that is a product, None of another."""
    if metadata := sentinel2.metadata_of(folder):
        return sentinel2.read_sentinel2(
            metadata, bands=bands, fill=fill, quality=quality, grid=grid
        )
    if metadata := landsat.metadata_of(folder):
        return landsat.read_landsat(metadata, bands=bands, fill=fill, quality=quality, grid=grid)
    if not (_is_sentinel1(folder) or _terrasar(folder) or _is_store(folder)):
        return None
    _keeps_grid(folder, grid)
    # These need packages that take memory and time, so they are imported where they are used.
    if _is_sentinel1(folder):
        from warte.earth.read import sentinel1

        return sentinel1.read_sentinel1(folder, bands=bands, denoise=denoise)
    if metadata := _terrasar(folder):
        from warte.earth.read import terrasar

        return terrasar.read_terrasar(metadata, bands=bands, fill=fill, denoise=denoise)
    from warte.earth.read import store

    return store.read_store(folder, bands=bands)


def _keeps_grid(path: Path, grid: Grid | None) -> None:
    """See that no grid is asked for where a scene is not resampled.

    Raises:
        InputError: one is.
    """
    if grid is not None:
        raise InputError(
            f"{path} is read on its own grid only; bring it onto another with gdalwarp"
        )


def _file(
    path: Path, bands: Sequence[str] | None, fill: FillChoice, quality: bool, denoise: bool,
    grid: Grid | None,
) -> Scene:  # fmt: skip
    """The scene of a file: a picture, a cube, an item, or the metadata of a product."""
    kind = path.suffix.lower()
    if kind == ".mat":
        from warte.earth.read import mat

        _keeps_grid(path, grid)
        return mat.read_mat(path, bands=bands)
    if path.name.endswith("_MTL.txt") or path.name.endswith("_MTL.json"):
        return landsat.read_landsat(path, bands=bands, fill=fill, quality=quality, grid=grid)
    if kind in (".xml", ".safe"):
        found = _product(path.parent, bands, fill, quality, denoise, grid)
        if found is not None:
            return found
    if _is_item(path):
        from warte.earth.read import stac

        return stac.read_stac(str(path), bands=bands, fill=fill, quality=quality, grid=grid)
    return _of_files([path], bands=bands, fill=fill, quality=quality, grid=grid)


def _remote(
    address: str, *, bands: Sequence[str] | None, fill: FillChoice, quality: bool,
    grid: Grid | None,
) -> Scene:  # fmt: skip
    """The scene at an address: a picture, or a STAC item."""
    plain = address.partition("?")[0].lower()
    if not plain.endswith(PICTURES):
        from warte.earth.read import stac

        return stac.read_stac(address, bands=bands, fill=fill, quality=quality, grid=grid)
    name = Path(plain).stem
    named, sensor = _named(f"/vsicurl/{address}", sensor_of(name))
    facts = Facts(name, time=time_of(name), sensor=sensor)
    return _radar(stack(facts, named, chosen=bands, fill=fill, grid=grid))


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
    quality: bool,
    grid: Grid | None,
    name: str | None = None,
) -> Scene:
    """A scene of pictures: all bands of one, or one band of each."""
    if not paths:
        raise InputError("no file is given; give a picture, or a folder of bands")
    name = name or paths[0].stem
    sensor = next(filter(None, (sensor_of(text) for text in (paths[0].name, name))), "")
    flags = [path for path in paths if len(paths) > 1 and _FLAGS.search(path.stem)]
    paths = [path for path in paths if path not in flags]
    if len(paths) == 1:
        named, sensor = _named(str(paths[0]), sensor)
    else:
        named = [_single(path, sensor) for path in paths]
    judged = _judged(flags[0]) if flags and quality else None
    notes = (f"clouds and their shadows are left out by {flags[0].name}",) if judged else ()
    facts = Facts(name, time=time_of(paths[0].stem), sensor=sensor, notes=notes)
    stems = {band: Path(found.path).stem for band, found in named}
    scene = stack(
        facts, named, chosen=bands, quality=judged, fill=fill, grid=grid,
        resolutions=resolutions_of(stems, sensor),
    )  # fmt: skip
    return _radar(scene)


def _judged(path: Path) -> Quality:
    """What a quality band beside the bands says; bits of Landsat, classes of Sentinel-2."""
    if path.stem.upper().endswith("SCL") or "SCL_" in path.stem.upper():
        return Quality(Band(str(path)), classes=sentinel2.BAD_CLASSES)
    return Quality(Band(str(path)), bits=landsat.BAD_BITS)


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
