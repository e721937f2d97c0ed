"""Simulated scenes: pictures of which windows are drawn when they are read, with their truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from affine import Affine
from pyproj import Transformer
from rasterio.crs import CRS

from warte.core.data.tiles import Window
from warte.earth.scene import BoolArray, Float32Array, Grid, Scene
from warte.earth.simulate import optical, radar
from warte.earth.simulate.ground import Ground, draw_ground
from warte.earth.simulate.noise import FloatArray
from warte.earth.simulate.optical import axes
from warte.earth.simulate.sensors import Radar, Sensor
from warte.earth.simulate.settings import SimulateSettings, day_of, time_of
from warte.earth.simulate.sky import Sky, draw_sky


@dataclass(frozen=True)
class Simulated:
    """A reader that draws what it is asked for; see `warte.earth.scene.Reader`."""

    settings: SimulateSettings
    seed: int
    sensor: int
    date: int

    def read(self, window: Window, bands: Sequence[int]) -> tuple[Float32Array, BoolArray]:
        """See `warte.earth.scene.Reader`."""
        numbers, valid = self.numbers(window)
        return self.physical(numbers)[list(bands)], valid

    def numbers(self, window: Window) -> tuple[npt.NDArray[np.generic], BoolArray]:
        """What the file holds (bands, rows, columns) in its number format, and what is valid."""
        settings, sensor = self.settings, self.settings.sensors[self.sensor]
        ground, date = ground_of(settings, self.seed), settings.dates[self.date]
        day, season = day_of(date), _day_of_year(settings, date)
        seed = self.seed + 1000 * (1 + self.sensor) + 1_000_000 * (1 + self.date)
        if isinstance(sensor, Radar):
            values = radar.observe(
                ground, sensor, window, day=day, day_of_year=season, seed=seed,
                detail=settings.detail,
            )  # fmt: skip
        else:
            values = optical.observe(
                ground, sensor, sky_of(settings, self.seed, self.date), window, day=day,
                day_of_year=season, seed=seed, detail=settings.detail,
            )  # fmt: skip
        numbers = _stored(values, sensor)
        valid = _swath(settings, sensor, window)
        numbers[:, ~valid] = fill_of(settings, sensor)
        return numbers, valid

    def sky(self) -> Sky | None:
        """The sky above the picture; None for radar, which sees no clouds."""
        if isinstance(self.settings.sensors[self.sensor], Radar):
            return None
        return sky_of(self.settings, self.seed, self.date)

    def physical(self, numbers: npt.NDArray[np.generic]) -> Float32Array:
        """Numbers of the file as reflectance or sigma nought in dB, as a reader gives them."""
        sensor = self.settings.sensors[self.sensor]
        if isinstance(sensor, Radar):
            if sensor.dtype == "float32":
                return numbers.astype(np.float32)
            power = sensor.factor * np.maximum(numbers.astype(np.float64), 0.5) ** 2
            return (10 * np.log10(power)).astype(np.float32)
        if sensor.dtype == "float32":
            return numbers.astype(np.float32)
        return (numbers.astype(np.float64) * sensor.scale + sensor.offset).astype(np.float32)


@dataclass(frozen=True)
class Truth:
    """What is true of simulated scenes, window by window. `index` is that of the scene."""

    settings: SimulateSettings
    seed: int
    scenes: tuple[Scene, ...]

    @property
    def ground(self) -> Ground:
        """The ground that all scenes show."""
        return ground_of(self.settings, self.seed)

    def classes(self, window: Window | None = None, index: int = 0) -> npt.NDArray[np.uint8]:
        """Class (see `ground.CLASSES`) at each pixel's centre on the scene's day; 0 is no data."""
        window, x, y, reader = self._look(window, index)
        day = day_of(self.settings.dates[reader.date])
        kind = self.ground.cover(x, y, day).kind
        return np.where(self.valid(window, index), kind, 0).astype(np.uint8)

    def clouds(self, window: Window | None = None, index: int = 0) -> npt.NDArray[np.uint8]:
        """1 clear, 2 shadow, 3 cloud at each pixel's centre, 0 no data; radar sees no clouds."""
        window, x, y, reader = self._look(window, index)
        if isinstance(self.settings.sensors[reader.sensor], Radar):
            found = np.full((len(y), len(x)), optical.CLEAR, dtype=np.uint8)
        else:
            found = optical.clouds(sky_of(self.settings, self.seed, reader.date), x, y)
        return np.where(self.valid(window, index), found, 0).astype(np.uint8)

    def anomalies(self, window: Window | None = None, index: int = 0) -> npt.NDArray[np.uint8]:
        """1 where at least a quarter of a pixel is a planted thing, 0 elsewhere, 255 no data."""
        window, x, y, _ = self._look(window, index)
        found = np.zeros((len(y), len(x)), dtype=np.uint8)
        for thing in self.ground.things:
            share = thing.share(x, y)
            if share is not None:
                found[share >= 0.25 * thing.contrast] = 1
        return np.where(self.valid(window, index), found, 255).astype(np.uint8)

    def changes(
        self, window: Window | None = None, index: int = 0
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
        """What changed between the first and the last date, and when.

        Kind: 0 nothing, 1 deforestation, 2 flood, 3 burn, 4 building, 255 no data. Day: since
        1970-01-01 of the event, -1 where nothing changed.
        """
        window, x, y, _ = self._look(window, index)
        days = [day_of(date) for date in self.settings.dates]
        kind, day = self.ground.changes(x, y, min(days), max(days))
        valid = self.valid(window, index)
        return np.where(valid, kind, 255).astype(np.uint8), np.where(valid, day, -1)

    def parcels(self, window: Window | None = None, index: int = 0) -> npt.NDArray[np.int64]:
        """A number for the field, wood or lot at each pixel's centre."""
        _, x, y, _ = self._look(window, index)
        return self.ground.cover(x, y).parcel.view(np.int64)

    def valid(self, window: Window | None = None, index: int = 0) -> BoolArray:
        """False in the fill around a rotated picture."""
        window, _, _, reader = self._look(window, index)
        return _swath(self.settings, self.settings.sensors[reader.sensor], window)

    def _look(
        self, window: Window | None, index: int
    ) -> tuple[Window, FloatArray, FloatArray, Simulated]:
        scene = self.scenes[index]
        assert isinstance(scene.reader, Simulated)
        window = window or scene.grid.whole
        sensor = self.settings.sensors[scene.reader.sensor]
        return window, *axes(window, sensor.pixel_m), scene.reader


def simulate(
    settings: SimulateSettings, rng: np.random.Generator
) -> tuple[tuple[Scene, ...], Truth]:
    """Scenes of one ground with their truth: every sensor on every date, sensor by sensor.

    Nothing is drawn yet: a window is drawn when it is read, and is the same whatever windows were
    read before. Scenes can be sent to other processes.
    """
    seed = int(rng.integers(2**40))
    scenes = []
    for number, sensor in enumerate(settings.sensors):
        grid = grid_of(settings, sensor)
        for index, date in enumerate(settings.dates):
            is_radar = isinstance(sensor, Radar)
            scenes.append(
                Scene(
                    name=f"{sensor.name or 'picture'}_{time_of(date):%Y%m%dT%H%M%S}",
                    grid=grid,
                    bands=_names(sensor),
                    reader=Simulated(settings, seed, number, index),
                    quantity="sigma0_db" if is_radar else "reflectance",
                    time=time_of(date),
                    sensor=sensor.name,
                )
            )
    return tuple(scenes), Truth(settings, seed, tuple(scenes))


def grid_of(settings: SimulateSettings, sensor: Sensor | Radar) -> Grid:
    """Where a sensor's pixels lie; a remainder smaller than a pixel is left out."""
    left, top = settings.origin_m
    return Grid(
        rows=int(settings.ground.height_m // sensor.pixel_m),
        columns=int(settings.ground.width_m // sensor.pixel_m),
        transform=Affine(sensor.pixel_m, 0, left, 0, -sensor.pixel_m, top),
        crs=CRS.from_epsg(settings.epsg),
    )


@lru_cache(maxsize=8)
def ground_of(settings: SimulateSettings, seed: int) -> Ground:
    """The ground of a seed."""
    return draw_ground(settings.ground, seed, settings.events, settings.anomalies)


@lru_cache(maxsize=64)
def sky_of(settings: SimulateSettings, seed: int, date: int) -> Sky:
    """The sky of a seed on one of the dates."""
    ground = settings.ground
    return draw_sky(
        settings.sky, seed + 7_000_003 * (date + 1), (ground.width_m, ground.height_m),
        time_of(settings.dates[date]), place_deg(settings.epsg, settings.origin_m),
    )  # fmt: skip


@lru_cache(maxsize=64)
def place_deg(epsg: int, origin_m: tuple[float, float]) -> tuple[float, float]:
    """Longitude and latitude of the upper left corner (degrees)."""
    longitude, latitude = Transformer.from_crs(epsg, 4326, always_xy=True).transform(*origin_m)
    return float(longitude), float(latitude)


def fill_of(settings: SimulateSettings, sensor: Sensor | Radar) -> float:
    """The number in the fill around a rotated picture."""
    if settings.border.fill is not None:
        return settings.border.fill
    if sensor.nodata is not None:
        return sensor.nodata
    return float("nan") if sensor.dtype == "float32" else float(np.iinfo(sensor.dtype).max)


def _names(sensor: Sensor | Radar) -> tuple[str, ...]:
    return tuple(band if isinstance(band, str) else band.name for band in sensor.bands)


def _day_of_year(settings: SimulateSettings, date: str) -> float:
    day = float(time_of(date).timetuple().tm_yday)
    south = place_deg(settings.epsg, settings.origin_m)[1] < 0
    return (day + 182.5) % 365.0 if south else day


def _stored(values: FloatArray, sensor: Sensor | Radar) -> npt.NDArray[np.generic]:
    if isinstance(sensor, Radar):
        if sensor.dtype == "float32":
            return (10 * np.log10(values)).astype(np.float32)
        return np.clip(np.rint(np.sqrt(values / sensor.factor)), 1, 65535).astype(np.uint16)
    if sensor.dtype == "float32":
        return values.astype(np.float32)
    limits = np.iinfo(sensor.dtype)
    # The no-data number must not occur in the picture.
    low = 1 if sensor.nodata == 0 else limits.min
    high = limits.max - 1 if sensor.nodata in (None, limits.max) else limits.max
    numbers = np.rint((values - sensor.offset) / sensor.scale)
    return np.clip(numbers, low, high).astype(sensor.dtype)


def _swath(settings: SimulateSettings, sensor: Sensor | Radar, window: Window) -> BoolArray:
    """Where a rotated rectangle, as large as fits the picture's corners, has ground."""
    x, y = axes(window, sensor.pixel_m)
    angle = np.radians(settings.border.angle_deg)
    if angle == 0:
        return np.ones((window.rows, window.columns), dtype=bool)
    width, height = settings.ground.width_m, settings.ground.height_m
    away_x, away_y = x - width / 2, y[:, None] - height / 2
    u = np.abs(np.cos(angle) * away_x + np.sin(angle) * away_y)
    v = np.abs(np.cos(angle) * away_y - np.sin(angle) * away_x)
    # The rectangle whose corners touch the picture's sides.
    grown = np.cos(angle) + np.abs(np.sin(angle)) * max(width / height, height / width)
    inside: BoolArray = (u <= width / 2 / grown) & (v <= height / 2 / grown)
    return inside
