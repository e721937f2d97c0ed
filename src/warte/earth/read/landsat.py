"""Landsat Collection 2 products, levels 1 and 2.

USGS, Landsat 8-9 Collection 2 Level 2 Science Product Guide (LSDS-1619), and Level 1 Data Format
Control Book (LSDS-1822): scale and offset of each band and the bits of QA_PIXEL.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from warte.core.errors import InputError
from warte.earth.read.files import Band, Facts, FillChoice, Quality, stack
from warte.earth.read.metadata import mtl_of, understood
from warte.earth.read.names import BY_SENSOR, METRES, time_of_iso
from warte.earth.scene import Grid, Scene

BAD_BITS = 0b11111  # fill, dilated cloud, cirrus, cloud, cloud shadow
_FILE = re.compile(r"FILE_NAME_BAND_(?:ST_B)?(\d+)(?:_VCID_1)?$")


def metadata_of(folder: Path) -> Path | None:
    """The product's metadata, where the folder is one."""
    return next(iter(sorted(folder.glob("*_MTL.json")) + sorted(folder.glob("*_MTL.txt"))), None)


def read_landsat(
    metadata: Path,
    *,
    bands: Sequence[str] | None,
    fill: FillChoice,
    quality: bool,
    grid: Grid | None,
) -> Scene:
    """The scene of a product: reflectance, and kelvin in the thermal bands.

    Raises:
        InputError: it is damaged, or files of it are missing.
    """
    found = mtl_of(metadata)
    facts = understood(metadata, lambda: found["LANDSAT_METADATA_FILE"])
    contents = understood(metadata, lambda: facts["PRODUCT_CONTENTS"])
    image = understood(metadata, lambda: facts["IMAGE_ATTRIBUTES"])
    sensor = understood(metadata, lambda: image["SPACECRAFT_ID"].lower().replace("_", "-"))
    if sensor not in BY_SENSOR:
        raise InputError(f"{metadata} is of {sensor}; Landsat 4, 5, 7, 8 and 9 are read")
    named = understood(metadata, lambda: _bands(metadata.parent, facts, contents, sensor))
    if bands is None or "pan" not in bands:
        named = [(name, band) for name, band in named if name != "pan"]
    notes, judged = ["thermal bands are in kelvin"] * any("lwir" in n for n, _ in named), None
    flags = contents.get("FILE_NAME_QUALITY_L1_PIXEL")
    if quality and flags:
        judged = Quality(Band(_file(metadata.parent, flags)), bits=BAD_BITS)
        notes.append("clouds and their shadows are left out by QA_PIXEL")
    day = f"{image.get('DATE_ACQUIRED')}T{image.get('SCENE_CENTER_TIME')}"
    name = re.sub(r"_MTL\.\w+$", "", metadata.name)
    own = Facts(name, "reflectance", time_of_iso(day), sensor, tuple(notes))
    return stack(
        own, named, chosen=bands, quality=judged, fill=fill, grid=grid, resolutions=METRES[sensor]
    )


def _file(folder: Path, name: str) -> str:
    path = folder / Path(name).name
    if not path.is_file():
        raise InputError(f"{folder} lacks {path.name}, which its metadata name; fetch it again")
    return str(path)


def _bands(
    folder: Path, facts: Mapping[str, Any], contents: Mapping[str, Any], sensor: str
) -> list[tuple[str, Band]]:
    """Bands with names; KeyError and the like where metadata lack something."""
    second = str(contents["PROCESSING_LEVEL"]).startswith("L2")
    make = _level2 if second else _level1
    named = []
    for key, name in contents.items():
        match = _FILE.match(key)
        if match and (folder / Path(name).name).is_file():
            band = make(_file(folder, name), match[1], "_ST_" in key, facts)
            named.append((BY_SENSOR[sensor][match[1]], band))
    if not named:
        raise InputError(f"{folder} has none of the images that its metadata name; fetch it again")
    return named


def _level2(path: str, number: str, thermal: bool, facts: Mapping[str, Any]) -> Band:
    if thermal:
        group, key = facts["LEVEL2_SURFACE_TEMPERATURE_PARAMETERS"], f"BAND_ST_B{number}"
        scale, offset = group[f"TEMPERATURE_MULT_{key}"], group[f"TEMPERATURE_ADD_{key}"]
    else:
        group, key = facts["LEVEL2_SURFACE_REFLECTANCE_PARAMETERS"], f"BAND_{number}"
        scale, offset = group[f"REFLECTANCE_MULT_{key}"], group[f"REFLECTANCE_ADD_{key}"]
    return Band(path, 1, float(scale), float(offset), nodata=0.0)


def _level1(path: str, number: str, thermal: bool, facts: Mapping[str, Any]) -> Band:
    """At the top of the atmosphere; reflectance is corrected for the height of the sun."""
    group = facts["LEVEL1_RADIOMETRIC_RESCALING"]
    if f"REFLECTANCE_MULT_BAND_{number}" in group:
        height = math.sin(math.radians(float(facts["IMAGE_ATTRIBUTES"]["SUN_ELEVATION"])))
        if height <= 0:
            raise ValueError("the sun is below the horizon")
        scale = float(group[f"REFLECTANCE_MULT_BAND_{number}"]) / height
        offset = float(group[f"REFLECTANCE_ADD_BAND_{number}"]) / height
        return Band(path, 1, scale, offset, nodata=0.0)
    key = f"{number}_VCID_1" if f"RADIANCE_MULT_BAND_{number}_VCID_1" in group else number
    scale = float(group[f"RADIANCE_MULT_BAND_{key}"])
    offset = float(group[f"RADIANCE_ADD_BAND_{key}"])
    constants = facts["LEVEL1_THERMAL_CONSTANTS"]
    kelvin = (
        float(constants[f"K1_CONSTANT_BAND_{key}"]),
        float(constants[f"K2_CONSTANT_BAND_{key}"]),
    )
    return Band(path, 1, scale, offset, nodata=0.0, kelvin=kelvin)
