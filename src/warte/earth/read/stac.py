"""STAC items: bands of a scene, here or at addresses, with scale, offset and names."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pystac

from warte.core.errors import InputError
from warte.earth.read.files import DAMAGE, REMOTE, Band, Facts, FillChoice, Quality, stack, told
from warte.earth.read.landsat import BAD_BITS
from warte.earth.read.metadata import json_of
from warte.earth.read.names import BY_SENSOR, METRES, STAC, band_name, sensor_of
from warte.earth.read.sentinel2 import BAD_CLASSES
from warte.earth.scene import BANDS, Grid, Scene

MAX_ITEM = 10 << 20  # bytes of an item
# What assets and bands say about resolution.
RESOLUTION = ("gsd", "spatial_resolution", "raster:spatial_resolution", "proj:shape")
PATIENCE = 30  # seconds for a server to answer


def read_stac(
    place: str,
    *,
    bands: Sequence[str] | None,
    fill: FillChoice,
    quality: bool,
    grid: Grid | None,
) -> Scene:
    """The scene of an item, a file or an address.

    Bands are its assets of pictures that name a band. Bands whose scale is given are reflectance.

    Raises:
        InputError: the item or a picture cannot be had, or it has no bands.
    """
    item = _item(place)
    sensor = _sensor(item)
    named, resolutions, scaled = _bands(item, sensor)
    if bands is None:
        named = [(name, band) for name, band in named if name != "pan"]
    if not named:
        raise InputError(f"{place} has no asset that names a band; it has "
                         f"{', '.join(list(item.assets)[:12]) or 'none'}")  # fmt: skip
    if bands is not None:  # so that others are not fetched
        named = [(name, band) for name, band in named if name in bands] or named
    facts = Facts(item.id, "reflectance" if scaled else "number", item.datetime, sensor)
    judged = _quality(item) if quality else None
    if judged is not None:
        facts = Facts(
            facts.name, facts.quantity, facts.time, sensor,
            ("clouds and their shadows are left out by the item's quality band",),
        )  # fmt: skip
    return stack(
        facts, named, chosen=bands, quality=judged, fill=fill, grid=grid, resolutions=resolutions
    )


def _item(place: str) -> pystac.Item:
    found = _fetched(place) if place.startswith(REMOTE) else json_of(Path(place))
    try:
        href = place if place.startswith(REMOTE) else str(Path(place).resolve())
        return pystac.Item.from_dict(found, href=href)
    except (*DAMAGE, pystac.STACError) as problem:
        raise InputError(f"{place} is no STAC item ({told(problem)})") from problem


def _fetched(address: str) -> Any:
    try:
        with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
            content = answer.read(MAX_ITEM + 1)
        if len(content) > MAX_ITEM:
            raise InputError(f"{address} is no STAC item: more than {MAX_ITEM >> 20} MiB")
        return json.loads(content)
    except (OSError, ValueError, RecursionError) as problem:
        raise InputError(
            f"cannot read {address}: {told(problem)}; look at the address and the network"
        ) from problem


def _sensor(item: pystac.Item) -> str:
    named = (item.properties.get(key) for key in ("platform", "constellation"))
    found = (sensor_of(f"{text}".replace("_", "-")) for text in (*named, item.id) if text)
    return next(filter(None, found), "")


def _bands(
    item: pystac.Item, sensor: str
) -> tuple[list[tuple[str, Band]], dict[str, object], bool]:
    """Bands of the assets, their resolutions, and whether reflectance can be made of them."""
    named: dict[str, Band] = {}
    resolutions: dict[str, object] = {}
    scaled = False
    for key, asset in item.assets.items():
        if not _is_picture(asset) or _is_quality(key) or {"thumbnail", "overview", "visual"} & {
            key.lower(), *(asset.roles or ())
        }:  # fmt: skip
            continue
        for number, facts in enumerate(_facts(asset), 1):
            name = _name(key, facts, sensor)
            if name is None or name in named:
                continue  # an asset in another format or resolution, named later
            scale, offset = float(facts.get("scale", 1.0)), float(facts.get("offset", 0.0))
            scaled |= scale != 1.0
            named[name] = Band(_href(item, asset), number, scale, offset, _nodata(facts))
            resolutions[name] = _resolution(asset, facts) or METRES.get(sensor, {}).get(name)
    return list(named.items()), resolutions, scaled


def _resolution(asset: pystac.Asset, facts: dict[str, Any]) -> object:
    """What is said of the resolution of a band or of its asset, None where nothing is.

    The ground sample distance of an item is that of its finest band: it says nothing of one.
    """
    said = {**asset.extra_fields, **facts}
    found = [str(said[key]) for key in RESOLUTION if said.get(key)]
    return found or None


def _is_picture(asset: pystac.Asset) -> bool:
    kind, href = (asset.media_type or "").lower(), asset.href.lower().partition("?")[0]
    return "tiff" in kind or "jp2" in kind or href.endswith((".tif", ".tiff", ".jp2"))


def _facts(asset: pystac.Asset) -> list[dict[str, Any]]:
    """What is said of each band: by `bands` (STAC 1.1), or by eo:bands and raster:bands."""
    extra = asset.extra_fields
    lists = [extra.get(key) or [] for key in ("bands", "eo:bands", "raster:bands")]
    merged: list[dict[str, Any]] = [{} for _ in range(max(1, *map(len, lists)))]
    for said in lists:
        for number, one in enumerate(said):
            plain = {key.removeprefix("eo:").removeprefix("raster:"): v for key, v in one.items()}
            merged[number].update(plain)
    return merged


def _name(key: str, facts: dict[str, Any], sensor: str) -> str | None:
    """What a band is called: by its own name and sensor, its common name, or the asset's key."""
    common = facts.get("common_name")
    common = STAC.get(str(common), common)
    known = band_name(str(facts.get("name", "")), sensor)
    if known in BY_SENSOR.get(sensor, {}).values():
        return known
    if common in BANDS:
        return str(common)
    return known or band_name(key, sensor)


def _nodata(facts: dict[str, Any]) -> float | None:
    value = facts.get("nodata")
    try:
        return None if value is None else float(value)
    except ValueError:
        return None


def _href(item: pystac.Item, asset: pystac.Asset) -> str:
    href = asset.get_absolute_href() or asset.href
    return f"/vsicurl/{href}" if href.startswith(REMOTE) else href.removeprefix("file://")


def _is_quality(key: str) -> bool:
    return key.lower() in ("scl", "qa_pixel")


def _quality(item: pystac.Item) -> Quality | None:
    for key, asset in item.assets.items():
        if _is_quality(key) and _is_picture(asset):
            band = Band(_href(item, asset))
            if key.lower() == "scl":
                return Quality(band, classes=BAD_CLASSES)
            return Quality(band, bits=BAD_BITS)
    return None
