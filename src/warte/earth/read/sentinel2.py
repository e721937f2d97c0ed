"""Sentinel-2 products, L1C and L2A, as ESA delivers them in SAFE folders.

ESA, Sentinel-2 Products Specification Document, S2-PDGS-TAS-DI-PSD, issue 14 and 15. Reflectance
is (number + offset) / quantification; the offset came with baseline 04.00 (January 2022).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from warte.core.errors import InputError
from warte.earth.read.files import Band, Facts, FillChoice, Quality, stack
from warte.earth.read.metadata import understood, words, xml_of
from warte.earth.read.names import SENTINEL2, resolutions_of, time_of_iso
from warte.earth.scene import Grid, Scene

ORDER = tuple(SENTINEL2)  # band_id 0, 1...
_IMAGE = re.compile(r"_B(\d\d|8A)(?:_(\d\d)m)?\.(?:jp2|tiff?)$", re.IGNORECASE)
# Classes of the scene classification: no data, saturated, cloud shadow, clouds, thin cirrus.
BAD_CLASSES = (0, 1, 3, 8, 9, 10)


def metadata_of(folder: Path) -> Path | None:
    """The product's metadata, where the folder is one."""
    return next(iter(sorted(folder.glob("MTD_MSIL[12]?.xml"))), None)


def read_sentinel2(
    metadata: Path,
    *,
    bands: Sequence[str] | None,
    fill: FillChoice,
    quality: bool,
    grid: Grid | None,
) -> Scene:
    """The scene of a product, in reflectance.

    Raises:
        InputError: it is damaged, or holds several granules.
    """
    folder, root = metadata.parent, xml_of(metadata)
    granules = sorted(path for path in folder.glob("GRANULE/*") if path.is_dir())
    if len(granules) != 1:
        raise InputError(f"{folder} holds {len(granules)} granules; give a product of one tile")
    images = _images(granules[0])
    if not images:
        raise InputError(f"{folder} has no image of a band in GRANULE; fetch the product again")
    second = metadata.name == "MTD_MSIL2A.xml"
    amount = "BOA_QUANTIFICATION_VALUE" if second else "QUANTIFICATION_VALUE"
    shift = "BOA_ADD_OFFSET" if second else "RADIO_ADD_OFFSET"
    scale = understood(metadata, lambda: 1 / float(words(root, amount)))
    offsets = understood(
        metadata,
        lambda: {
            ORDER[int(found.get("band_id", ""))]: float(found.text or "")
            for found in root.iter(shift)
        },
    )
    named = [
        (SENTINEL2[band],
         Band(str(path), 1, scale, offsets.get(band, 0.0) * scale, nodata=0.0))
        for band, path in images.items()
    ]  # fmt: skip
    classes = sorted(granules[0].glob("IMG_DATA/R20m/*_SCL_20m.*"))
    judged = Quality(Band(str(classes[0])), classes=BAD_CLASSES) if quality and classes else None
    notes = ["clouds and their shadows are left out by the scene classification"] if judged else []
    name = folder.name.removesuffix(".SAFE")
    time = time_of_iso(understood(metadata, lambda: words(root, "PRODUCT_START_TIME")))
    facts = Facts(name, "reflectance", time, "sentinel-2", tuple(notes))
    stems = {SENTINEL2[band]: path.stem for band, path in images.items()}
    return stack(
        facts, named, chosen=bands, quality=judged, fill=fill, grid=grid,
        resolutions=resolutions_of(stems, "sentinel-2"),
    )  # fmt: skip


def _images(granule: Path) -> dict[str, Path]:
    """The finest image of each band, in the order of the bands."""
    found: dict[str, tuple[int, Path]] = {}
    for path in sorted(granule.glob("IMG_DATA/**/*")):
        match = _IMAGE.search(path.name)
        if match is None:
            continue
        band, metres = match[1].lstrip("0"), int(match[2] or 0)
        if band in SENTINEL2 and (band not in found or metres < found[band][0]):
            found[band] = (metres, path)
    return {band: found[band][1] for band in ORDER if band in found}
