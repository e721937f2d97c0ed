"""Settings of simulated scenes: the ground, the sky above it, what happens to it, who looks."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import Literal

from warte.core.errors import SettingsError
from warte.earth.simulate.sensors import Radar, Sensor, sentinel_2

Range = tuple[float, float]
Kind = Literal["deforestation", "flood", "burn", "building"]
KINDS: tuple[Kind, ...] = ("deforestation", "flood", "burn", "building")


@dataclass(frozen=True)
class GroundSettings:
    """What lies where."""

    width_m: float = 5120.0
    """Size from west to east, m."""
    height_m: float = 5120.0
    """Size from north to south, m."""
    forest: float = 0.22
    """Share of the land that is forest, 0..1."""
    lakes: float = 0.03
    """Share that is lake, 0..1."""
    sea: float = 0.0
    """Share in the west that is sea, with a beach and a marsh at its shore, 0..1."""
    river_m: float = 90.0
    """Width of the river, m; 0 has none."""
    wetland: float = 0.5
    """How far wetland spreads along river and lakes, 0..1."""
    towns: float = 0.5
    """Chance that there is a town in each piece of 3 km x 3 km, 0..1."""
    town_radius_m: float = 700.0
    """Typical radius of a town, m."""
    meadow: float = 0.25
    """Share of the fields that are meadow, 0..1."""
    bare: float = 0.08
    """Share of the fields that lie bare all year, 0..1."""
    field_m: Range = (120.0, 320.0)
    """Width of fields, m."""
    relief_m: float = 0.0
    """Standard deviation of the height of hills, m; 0 is flat."""
    spread: float = 1.0
    """Factor on all spread of brightness, moisture and season within a class; 0 has none."""

    def __post_init__(self) -> None:
        for name in ("forest", "lakes", "sea", "wetland", "towns", "meadow", "bare"):
            _within(name, getattr(self, name), 0.0, 1.0)
        if self.meadow + self.bare > 1:
            raise SettingsError(
                f"--meadow and --bare are {self.meadow} and {self.bare}; "
                "allowed is a sum of at most 1"
            )
        for name in ("width_m", "height_m"):
            _within(name, getattr(self, name), 10.0, 1e7)
        _within("river_m", self.river_m, 0.0, 5000.0)
        _within("town_radius_m", self.town_radius_m, 50.0, 10000.0)
        _within("relief_m", self.relief_m, 0.0, 2000.0)
        _within("spread", self.spread, 0.0, 3.0)
        low, high = self.field_m
        if not 20 <= low <= high <= 5000:
            raise SettingsError(
                f"--field-m is {self.field_m}; allowed is a rising pair of 20..5000"
            )


@dataclass(frozen=True)
class SkySettings:
    """Clouds, their shadows, haze, and the air."""

    cover: Range = (0.0, 0.3)
    """Share of the sky that is clouded, drawn uniformly for each date, 0..1."""
    size_m: float = 1500.0
    """Size of the clouds, m."""
    height_m: Range = (800.0, 2500.0)
    """Height of the clouds above the ground, drawn for each date, m."""
    thickness: float = 6.0
    """Optical thickness of a cloud's middle."""
    cirrus: float = 0.2
    """Chance that a date has thin cirrus too, 0..1."""
    haze: Range = (0.02, 0.12)
    """Optical thickness of haze at 550 nm, drawn for each date; it varies over the scene."""
    top_of_atmosphere: bool = False
    """Whether the reflectances hold the light of the clear air too, as level 1 products do."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("cover", 0.0, 1.0), ("height_m", 100.0, 15000.0), ("haze", 0.0, 3.0),
        ):  # fmt: skip
            first, last = getattr(self, name)
            if not low <= first <= last <= high:
                flag = name.replace("_", "-")
                raise SettingsError(
                    f"--{flag} is ({first}, {last}); allowed is a rising pair within {low}..{high}"
                )
        _within("cirrus", self.cirrus, 0.0, 1.0)
        _within("size_m", self.size_m, 100.0, 50000.0)
        _within("thickness", self.thickness, 0.1, 100.0)


@dataclass(frozen=True)
class Event:
    """Something that changes the ground for good, or a flood, which goes again."""

    kind: Kind
    """What happens."""
    date: str
    """From when on, ISO 8601, such as 2024-05-17."""
    x: float | None = None
    """Centre from the west, as a share of the width; a flood follows the river instead. None
    looks for a place where the event finds what it can change."""
    y: float | None = None
    """Centre from the north, as a share of the height; None as for x."""
    radius_m: float = 500.0
    """Typical radius of what changes; of a flood, how far it reaches beyond the banks, m."""
    days: float = 1e9
    """How long it lasts."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SettingsError(f"--event is {self.kind}; allowed are {', '.join(KINDS)}")
        day_of(self.date)
        _within("radius_m", self.radius_m, 10.0, 1e5)


@dataclass(frozen=True)
class AnomalySettings:
    """Small things that do not belong."""

    count: int = 0
    """How many are planted."""
    size_m: Range = (10.0, 40.0)
    """Length of their sides, m."""
    materials: tuple[str, ...] = (
        "blue_tarp", "white_paint", "solar_panel", "red_paint", "green_net", "rust",
    )  # fmt: skip
    """What they are made of, see `spectra.MATERIALS`."""
    contrast: float = 1.0
    """Share of the material in what is seen; the rest is the ground around it, 0..1."""

    def __post_init__(self) -> None:
        if self.count < 0:
            raise SettingsError(f"--anomalies is {self.count}; allowed is 0 or more")
        _within("contrast", self.contrast, 0.0, 1.0)


@dataclass(frozen=True)
class BorderSettings:
    """The part of a picture that holds no ground, as in a scene that was rotated to the grid."""

    angle_deg: float = 0.0
    """Angle of the swath to the grid, -45..45 degrees; 0 has no border."""
    tagged: bool = True
    """Whether a no-data tag names the fill."""
    fill: float | None = None
    """Number in the fill; None takes the sensor's no-data number, or its largest without one."""

    def __post_init__(self) -> None:
        _within("angle_deg", self.angle_deg, -45.0, 45.0)


@dataclass(frozen=True)
class SimulateSettings:
    """One ground, seen by each sensor on each date."""

    ground: GroundSettings = field(default_factory=GroundSettings)
    sensors: tuple[Sensor | Radar, ...] = field(default_factory=lambda: (sentinel_2(),))
    dates: tuple[str, ...] = ("2024-06-15",)
    """UTC, ISO 8601; a time of day may stand behind, else it is 10:30."""
    sky: SkySettings = field(default_factory=SkySettings)
    events: tuple[Event, ...] = ()
    anomalies: AnomalySettings = field(default_factory=AnomalySettings)
    border: BorderSettings = field(default_factory=BorderSettings)
    epsg: int = 32633
    """CRS in metres, as a number of the EPSG registry."""
    origin_m: tuple[float, float] = (500_000.0, 5_350_000.0)
    """Easting and northing of the upper left corner, m."""
    detail: int = 1
    """Places along a pixel's side at which the ground is looked at; 2 or more mixes pixels."""

    def __post_init__(self) -> None:
        if not self.sensors or not self.dates:
            raise SettingsError("--sensors and --dates must name at least one of each")
        for date in self.dates:
            day_of(date)
        if not 1 <= self.detail <= 8:
            raise SettingsError(f"--detail is {self.detail}; allowed is 1..8")


def time_of(date: str) -> datetime.datetime:
    """A date as UTC; 10:30 where it says no time of day.

    Raises:
        SettingsError: it is no date.
    """
    try:
        time = datetime.datetime.fromisoformat(date)
    except ValueError as problem:
        raise SettingsError(f"--dates has {date!r}; allowed is ISO 8601: 2024-06-15") from problem
    if "T" not in date and " " not in date:
        time = time.replace(hour=10, minute=30)
    if time.tzinfo is None:
        return time.replace(tzinfo=datetime.UTC)
    return time.astimezone(datetime.UTC)


def day_of(date: str) -> float:
    """Days since 1970-01-01 00:00 UTC."""
    return time_of(date).timestamp() / 86400.0


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        flag = name.replace("_", "-")
        raise SettingsError(f"--{flag} is {value}; allowed is {low:g} to {high:g}")
