"""Names of bands, sensors and times, from what files and metadata call them."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping

from warte.earth.scene import BANDS

# Band designations: ESA, Sentinel-2 MSI; USGS, Landsat Collection 2. The near infrared of Landsat
# is called nir, as csmask and most band maths do, so that sensors share it.
SENTINEL2 = {
    "1": "coastal", "2": "blue", "3": "green", "4": "red", "5": "rededge1", "6": "rededge2",
    "7": "rededge3", "8": "nir", "8A": "nir08", "9": "nir09", "10": "cirrus", "11": "swir16",
    "12": "swir22",
}  # fmt: skip
THEMATIC = {
    "1": "blue", "2": "green", "3": "red", "4": "nir", "5": "swir16", "6": "lwir11",
    "7": "swir22", "8": "pan",
}  # fmt: skip
LAND_IMAGER = {
    "1": "coastal", "2": "blue", "3": "green", "4": "red", "5": "nir", "6": "swir16",
    "7": "swir22", "8": "pan", "9": "cirrus", "10": "lwir11", "11": "lwir12",
}  # fmt: skip
BY_SENSOR: Mapping[str, Mapping[str, str]] = {
    "sentinel-2": SENTINEL2,
    "landsat-4": THEMATIC,
    "landsat-5": THEMATIC,
    "landsat-7": THEMATIC,
    "landsat-8": LAND_IMAGER,
    "landsat-9": LAND_IMAGER,
}
# Metres of a pixel, by band: ESA, Sentinel-2 MSI; USGS, Landsat (thermal bands come at 30 m).
METRES: Mapping[str, Mapping[str, float]] = {
    "sentinel-2": {
        **dict.fromkeys(("blue", "green", "red", "nir"), 10.0),
        **dict.fromkeys(("rededge1", "rededge2", "rededge3", "nir08", "swir16", "swir22"), 20.0),
        **dict.fromkeys(("coastal", "nir09", "cirrus"), 60.0),
    },
    **{
        sensor: {name: 15.0 if name == "pan" else 30.0 for name in bands.values()}
        for sensor, bands in BY_SENSOR.items()
        if sensor != "sentinel-2"
    },
}
# Common names of STAC's eo extension that are called otherwise here.
STAC = {
    "rededge": "rededge1", "rededge071": "rededge1", "rededge075": "rededge2",
    "rededge078": "rededge3", "lwir": "lwir11",
}  # fmt: skip

_NUMBER = re.compile(r"(?<![A-Za-z])B(?:AND)?[ _-]?0?(8A|1[0-3]|[1-9])(?![0-9A-Z])", re.IGNORECASE)
_SENSORS = (
    (re.compile(r"(?<![A-Z0-9])S2(?:[ABCD]?(?![A-Z0-9])|HAND)|SENTINEL-?2|T\d\d[A-Z]{3}_\d{8}T"),
     "sentinel-2"),
    (re.compile(r"(?<![A-Z0-9])S1[ABCD]?(?:(?![A-Z0-9])|HAND)|SENTINEL-?1"), "sentinel-1"),
    (re.compile(r"(?<![A-Z0-9])TSX1?(?![A-Z])|TERRASAR"), "terrasar-x"),
    (re.compile(r"(?<![A-Z0-9])TDX1?(?![A-Z])|TANDEM-?X"), "tandem-x"),
)  # fmt: skip
_LANDSAT = re.compile(r"(?<![A-Z0-9])L[COTEM]0?([45789])(?=[_0-9])|LANDSAT[-_ ]?([45789])")
_LANDSAT_DAY = re.compile(r"L[COTEM]\d\d{6}((?:19|20)\d\d)([0-3]\d\d)")
_METRES = re.compile(r"_(\d+)m$", re.IGNORECASE)
_YEAR = re.compile(r"(?:19|20)\d\d")
_TIME = re.compile(r"(?<!\d)((?:19|20)\d\d)(\d\d)(\d\d)(?:T(\d\d)(\d\d)(\d\d))?(?!\d)")


def sensor_of(text: str) -> str:
    """The sensor that a name speaks of, or ""."""
    text = text.upper()
    landsat = _LANDSAT.search(text)
    if landsat:
        return f"landsat-{landsat[1] or landsat[2]}"
    return next((name for pattern, name in _SENSORS if pattern.search(text)), "")


def band_name(text: str, sensor: str) -> str | None:
    """The name of the band that a text speaks of, None where it speaks of none.

    "B04", "band 4 reflectance" or "SR_B4" of a sensor that is known become what BANDS calls it,
    "B04" of another sensor stays; "red" and "VV" are themselves.
    """
    words = re.split(r"[^a-z0-9]+", text.lower())
    own = [word for word in words if word in BANDS or word in STAC]
    if own:
        return STAC.get(own[-1], own[-1])
    found = list(_NUMBER.finditer(text))
    if not found:
        return None
    number = found[-1][1].upper()
    return BY_SENSOR.get(sensor, {}).get(number, f"B{number.zfill(2)}")


def resolutions_of(names: Mapping[str, str], sensor: str) -> dict[str, float]:
    """Metres that a pixel of each band has: by its file's name ("B8A_20m"), or by the sensor.

    names: of bands, and the stem of the file of each.
    """
    found = dict(METRES.get(sensor, {}))
    for name, stem in names.items():
        match = _METRES.search(stem)
        if match:
            found[name] = float(match[1])
    return {name: found[name] for name in names if name in found}


def without_band(stem: str) -> str:
    """A file's name without the part that names its band."""
    found = list(_NUMBER.finditer(stem))
    if found:
        return stem[: found[-1].start()] + stem[found[-1].end() :]
    parts = re.split(r"([^A-Za-z0-9]+)", stem)
    return "".join(part for part in parts if part.lower() not in BANDS)


def time_of(text: str) -> datetime.datetime | None:
    """The first day, with its hour where that stands there, in a file's name; UTC.

    The names of old Landsat scenes hold the day of the year; a name that is a year is its middle.
    """
    for match in _TIME.finditer(text):
        year, month, day, hour, minute, second = (int(part or 0) for part in match.groups())
        try:
            return datetime.datetime(year, month, day, hour, minute, second, tzinfo=datetime.UTC)
        except ValueError:
            continue
    landsat = _LANDSAT_DAY.search(text)
    if landsat:
        return _start(int(landsat[1])) + datetime.timedelta(days=int(landsat[2]) - 1)
    if _YEAR.fullmatch(text):  # a picture of a whole year stands for its middle
        return _start(int(text)) + datetime.timedelta(days=182)
    return None


def _start(year: int) -> datetime.datetime:
    return datetime.datetime(year, 1, 1, tzinfo=datetime.UTC)


def time_of_iso(text: str | None) -> datetime.datetime | None:
    """A time in ISO 8601, UTC where it names no zone; None where it is none."""
    try:
        # More than six digits of a second stand in Landsat's metadata.
        time = datetime.datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text or ""))
    except ValueError:
        return None
    return time.replace(tzinfo=time.tzinfo or datetime.UTC).astimezone(datetime.UTC)
