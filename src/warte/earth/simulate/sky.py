"""Where the sun stands, where clouds are and where their shadows fall, and what the air adds."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from warte.core.errors import SettingsError
from warte.earth.simulate.noise import FloatArray, smooth
from warte.earth.simulate.settings import SkySettings

LOWEST_SUN_DEG = 5.0


@dataclass(frozen=True)
class Sun:
    """Where the sun stands: clockwise from north, and above the horizon (degrees)."""

    azimuth_deg: float
    elevation_deg: float


@dataclass(frozen=True)
class Sky:
    """The sky above a ground at one time. Clouds are seen from straight above.

    shift_m: from a place on the ground to the place below the cloud that shades it (east, south).
    level: of the cloud field, above which there is cloud. haze: optical thickness at 550 nm.
    """

    settings: SkySettings
    seed: int
    sun: Sun
    cover: float
    height_m: float
    level: float
    haze: float
    cirrus: bool

    @property
    def shift_m(self) -> tuple[float, float]:
        """See the class."""
        reach = self.height_m / np.tan(np.radians(self.sun.elevation_deg))
        azimuth = np.radians(self.sun.azimuth_deg)
        return float(reach * np.sin(azimuth)), float(-reach * np.cos(azimuth))

    def thickness(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """Optical thickness of the water clouds straight above the places of two axes."""
        if self.cover == 0:
            return np.zeros((len(y), len(x)))
        over = _field(self.seed, x, y, self.settings.size_m) - self.level
        return self.settings.thickness * np.clip(over / 0.6, 0.0, 2.5)

    def veil(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """Optical thickness of cirrus, drawn out in one direction."""
        if not self.cirrus:
            return np.zeros((len(y), len(x)))
        size = 3.0 * self.settings.size_m
        return 0.12 * np.clip(smooth(self.seed + 2, 0.3 * x, y, size, 5, 0.6), 0.0, 3.0)

    def haze_at(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """Optical thickness of haze at 550 nm."""
        return self.haze * np.clip(1 + 0.35 * smooth(self.seed + 3, x, y, 6000.0, 3), 0.2, 3.0)


def draw_sky(
    settings: SkySettings,
    seed: int,
    size_m: tuple[float, float],
    time: datetime.datetime,
    place_deg: tuple[float, float],
) -> Sky:
    """A sky from a seed.

    size_m: width and height of the ground, over which the share of clouds holds. time: UTC.
    place_deg: longitude and latitude.

    Raises:
        SettingsError: the sun is not up enough to see by.
    """
    sun = sun_at(time, *place_deg)
    if sun.elevation_deg < LOWEST_SUN_DEG:
        raise SettingsError(
            f"--dates has {time:%Y-%m-%d %H:%M} UTC, when the sun stands {sun.elevation_deg:.1f} "
            f"degrees high; allowed is {LOWEST_SUN_DEG:g} or more: choose another time of day"
        )
    rng = np.random.default_rng([seed & 0xFFFFFFFF, 801])
    cover, height = float(rng.uniform(*settings.cover)), float(rng.uniform(*settings.height_m))
    haze, cirrus = float(rng.uniform(*settings.haze)), bool(rng.random() < settings.cirrus)
    x, y = (np.linspace(0, side, 241) for side in size_m)
    level = float(np.quantile(_field(seed, x, y, settings.size_m), 1 - cover))
    return Sky(settings, seed, sun, cover, height, level, haze, cirrus)


def sun_at(time: datetime.datetime, longitude_deg: float, latitude_deg: float) -> Sun:
    """Where the sun stands, to about 0.01 degrees.

    The Astronomical Almanac's low precision formulas (Michalsky 1988, Solar Energy 40, 227),
    without refraction.
    """
    days = (time - datetime.datetime(2000, 1, 1, 12, tzinfo=datetime.UTC)).total_seconds() / 86400
    anomaly = np.radians(357.528 + 0.9856003 * days)
    ecliptic = np.radians(
        280.460 + 0.9856474 * days + 1.915 * np.sin(anomaly) + 0.020 * np.sin(2 * anomaly)
    )
    tilt = np.radians(23.439 - 4e-7 * days)
    ascension = np.arctan2(np.cos(tilt) * np.sin(ecliptic), np.cos(ecliptic))
    declination = np.arcsin(np.sin(tilt) * np.sin(ecliptic))
    sidereal = np.radians(280.46062 + 360.98564737 * days + longitude_deg)
    hour, latitude = sidereal - ascension, np.radians(latitude_deg)
    east = -np.cos(declination) * np.sin(hour)
    north = np.sin(declination) * np.cos(latitude) - np.cos(declination) * np.sin(
        latitude
    ) * np.cos(hour)
    up = np.sin(declination) * np.sin(latitude) + np.cos(declination) * np.cos(latitude) * np.cos(
        hour
    )
    azimuth = float(np.degrees(np.arctan2(east, north)) % 360.0)
    return Sun(azimuth, float(np.degrees(np.arcsin(up))))


def rayleigh(wavelength_nm: npt.ArrayLike) -> FloatArray:
    """Optical thickness of clear air at sea level; Hansen and Travis 1974, Space Sci. Rev. 16."""
    square = (np.asarray(wavelength_nm, dtype=np.float64) / 1000.0) ** 2
    return np.asarray(0.008569 / square**2 * (1 + 0.0113 / square + 0.00013 / square**2))


def skylight(wavelength_nm: npt.ArrayLike) -> FloatArray:
    """Share of the light on level ground that comes from the sky and reaches into shadows."""
    blue = (np.asarray(wavelength_nm, dtype=np.float64) / 550.0) ** -1.6
    return np.asarray(np.clip(0.06 + 0.12 * blue, 0.0, 0.5))


def _field(seed: int, x: FloatArray, y: FloatArray, size: float) -> FloatArray:
    return smooth(seed + 1, x, y, size, 7, 0.55)
