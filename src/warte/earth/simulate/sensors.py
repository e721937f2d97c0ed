"""Sensors that look at a simulated ground: bands, pixel size, sharpness, noise, number format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from warte.core.errors import SettingsError

DTypes = Literal["uint8", "uint16", "int16", "float32"]


@dataclass(frozen=True)
class Band:
    """One optical band."""

    name: str
    """As in `warte.earth.scene.BANDS`, or b<nm> for one of a hyperspectral cube."""
    centre_nm: float
    """Centre of the response, nm."""
    width_nm: float
    """Full width at half maximum, nm."""
    noise: float = 0.001
    """Standard deviation of the noise in the dark, reflectance."""


@dataclass(frozen=True)
class Sensor:
    """An optical sensor; a stored number is round((reflectance - offset) / scale)."""

    name: str
    """As in `Scene.sensor`."""
    bands: tuple[Band, ...]
    """In the order of the file."""
    pixel_m: float = 10.0
    """Side of a pixel, m."""
    blur: float = 0.45
    """Standard deviation of the point-spread function, pixels."""
    shot: float = 0.0008
    """Noise variance per reflectance, in reflectance, that is added to that of the dark."""
    dtype: DTypes = "uint16"
    """Number format of the file."""
    scale: float = 1e-4
    """Reflectance per number; 1 for float32."""
    offset: float = 0.0
    """Reflectance of the number 0."""
    top: float = 1.6
    """Reflectance at which the detector saturates."""
    nodata: float | None = 0.0
    """Number that stands for no data, as the tag says; None writes no tag."""

    def __post_init__(self) -> None:
        if not self.pixel_m > 0:
            raise SettingsError(f"--pixel-m is {self.pixel_m}; allowed is more than 0")


@dataclass(frozen=True)
class Radar:
    """An imaging radar; its numbers are sigma nought in dB, or amplitudes."""

    name: str
    """As in `Scene.sensor`."""
    bands: tuple[str, ...] = ("vv", "vh")
    """Polarisations."""
    wavelength_cm: float = 5.55
    """5.55 in C band, 3.1 in X band; chooses the table of backscatter."""
    pixel_m: float = 10.0
    """Side of a pixel, m."""
    looks: float = 4.4
    """Equivalent number of looks, 1 or more: speckle is gamma distributed with this shape."""
    floor_db: float = -25.0
    """Noise-equivalent sigma nought, dB."""
    incidence_deg: tuple[float, float] = (36.0, 40.0)
    """Angle of incidence at the left and at the right edge, degrees."""
    dtype: Literal["float32", "uint16"] = "float32"
    """float32 holds dB; uint16 holds amplitudes: sigma nought is factor * number^2."""
    factor: float = 1e-5
    """Sigma nought per squared number, for uint16."""
    nodata: float | None = None
    """Number that stands for no data, as the tag says; None writes no tag."""

    def __post_init__(self) -> None:
        if not self.looks >= 1:
            raise SettingsError(f"--looks is {self.looks}; allowed is 1 or more")
        if not self.pixel_m > 0:
            raise SettingsError(f"--pixel-m is {self.pixel_m}; allowed is more than 0")


def sentinel_2() -> Sensor:
    """Sentinel-2A MSI, ten bands on one 10 m grid, offset as since processing baseline 04.00.

    Bands and noise: ESA, Sentinel-2 User Handbook 2015, table 1.
    """
    bands = (
        Band("blue", 492.4, 66.0), Band("green", 559.8, 36.0), Band("red", 664.6, 31.0),
        Band("rededge1", 704.1, 15.0), Band("rededge2", 740.5, 15.0), Band("rededge3", 782.8, 20.0),
        Band("nir", 832.8, 106.0), Band("nir08", 864.7, 21.0), Band("swir16", 1613.7, 91.0),
        Band("swir22", 2202.4, 175.0),
    )  # fmt: skip
    return Sensor("sentinel-2", bands, offset=-0.1)


def landsat_7() -> Sensor:
    """Landsat 7 ETM+, six bands of 30 m as reflectance of Collection 2; Chander et al. 2009."""
    bands = (
        Band("blue", 478.7, 67.0, 0.003), Band("green", 561.0, 78.0, 0.003),
        Band("red", 661.4, 60.0, 0.003), Band("nir", 834.6, 120.0, 0.003),
        Band("swir16", 1650.3, 190.0, 0.003), Band("swir22", 2208.1, 251.0, 0.004),
    )  # fmt: skip
    return Sensor("landsat-7", bands, pixel_m=30.0, scale=2.75e-5, offset=-0.2, top=1.0, shot=0.002)


def landsat_8() -> Sensor:
    """Landsat 8 OLI, seven bands of 30 m; Barsi et al. 2014, Remote Sensing 6, 10232."""
    bands = (
        Band("coastal", 442.9, 16.0), Band("blue", 482.0, 60.0), Band("green", 561.4, 57.3),
        Band("red", 654.6, 37.5), Band("nir", 864.7, 28.3), Band("swir16", 1608.9, 84.7),
        Band("swir22", 2200.7, 186.7),
    )  # fmt: skip
    return Sensor("landsat-8", bands, pixel_m=30.0, scale=2.75e-5, offset=-0.2)


def display() -> Sensor:
    """A picture for the eye with a near infrared: four bands of 8 bits, reflectance 0 to 0.4."""
    bands = (
        Band("red", 660.0, 50.0, 0.003), Band("green", 560.0, 50.0, 0.003),
        Band("blue", 480.0, 60.0, 0.003), Band("nir", 840.0, 100.0, 0.003),
    )  # fmt: skip
    return Sensor("", bands, pixel_m=5.0, dtype="uint8", scale=0.4 / 254, top=0.4, nodata=None)


def spectrometer(bands: int = 150) -> Sensor:
    """An airborne imaging spectrometer of 400 to 2450 nm, the bands of water vapour left out.

    Like AVIRIS (Green et al. 1998, Remote Sensing of Environment 65, 227) with wider bands.
    """
    free = ((400.0, 1340.0), (1460.0, 1790.0), (1970.0, 2450.0))
    width = sum(high - low for low, high in free) / bands
    chosen = []
    for index in range(bands):
        place = (index + 0.5) * width
        for low, high in free:
            if place < high - low:
                chosen.append(Band(f"b{low + place:.1f}", low + place, width, 0.002))
                break
            place -= high - low
    return Sensor("spectrometer", tuple(chosen), pixel_m=4.0, blur=0.4, nodata=None, dtype="uint16")


def sentinel_1() -> Radar:
    """Sentinel-1 GRD, interferometric wide swath, high resolution: 4.4 looks, 10 m, in dB.

    ESA, Sentinel-1 Product Definition, S1-RS-MDA-52-7440.
    """
    return Radar("sentinel-1")


def terrasar_x() -> Radar:
    """TerraSAR-X Stripmap-like: HH in X band, one look, 3 m, amplitudes in 16 bits."""
    return Radar(
        "terrasar-x", ("hh",), wavelength_cm=3.1, pixel_m=3.0, looks=1.0, floor_db=-22.0,
        incidence_deg=(33.0, 36.0), dtype="uint16", nodata=0.0,
    )  # fmt: skip
