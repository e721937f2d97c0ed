"""What the classes are made of through the year: green leaves, straw, blossom, soil, water."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from warte.earth.simulate.ground import (
    BARE,
    BROADLEAF,
    BUILT,
    BURNT,
    CONIFER,
    MAIZE,
    MEADOW,
    RAPESEED,
    ROAD,
    SAND,
    WATER,
    WETLAND,
    WHEAT,
    BoolArray,
    Cover,
    Ground,
)
from warte.earth.simulate.noise import FloatArray, smooth


@dataclass(frozen=True)
class Season:
    """Cover with green leaves through the year, as a double logistic curve.

    Beck et al. 2006, Remote Sensing of Environment 100, 321. Days of the year of the middle of
    rise and fall, their widths (days), and the cover before, at the top and after (0..1).
    """

    rise: float
    rise_days: float
    fall: float
    fall_days: float
    before: float
    top: float
    after: float

    def green(self, day: FloatArray | float) -> FloatArray:
        """Share of the ground under green leaves on a day of the year (1..366)."""
        up = 1.0 / (1.0 + np.exp(-(np.asarray(day) - self.rise) / self.rise_days))
        down = 1.0 / (1.0 + np.exp(-(np.asarray(day) - self.fall) / self.fall_days))
        return self.before + (self.top - self.before) * up + (self.after - self.top) * down


# Typical of the middle latitudes of the north; for the south the year is turned by half.
SEASONS = {
    BROADLEAF: Season(113.0, 7.0, 292.0, 9.0, 0.12, 0.97, 0.12),
    MEADOW: Season(90.0, 12.0, 300.0, 14.0, 0.45, 0.92, 0.50),
    WHEAT: Season(88.0, 11.0, 183.0, 6.0, 0.25, 0.93, 0.04),
    MAIZE: Season(160.0, 8.0, 258.0, 7.0, 0.03, 0.92, 0.05),
    RAPESEED: Season(78.0, 10.0, 178.0, 6.0, 0.40, 0.95, 0.06),
    WETLAND: Season(120.0, 12.0, 280.0, 14.0, 0.20, 0.72, 0.25),
}
# Largest share by which the leaves of a parcel may be fewer; canopies of trees are closed.
GAPS = {BROADLEAF: 0.05, MEADOW: 0.15, WHEAT: 0.25, MAIZE: 0.25, RAPESEED: 0.25, WETLAND: 0.25}
BLOSSOM_DAY, BLOSSOM_DAYS = 124.0, 8.0  # of rapeseed: middle, standard deviation
Mixture = dict[str, FloatArray]


@dataclass
class _Mix:
    """Shares of materials that are being added up.

    dark: share of the soil that is dark, at each place.
    """

    dark: FloatArray
    shares: Mixture = field(default_factory=dict)

    def add(self, material: str, where: BoolArray, share: FloatArray | float) -> None:
        """More of a material at some places; share of all places, or one number."""
        target = self.shares.setdefault(material, np.zeros(where.shape))
        target[where] += share if isinstance(share, float) else share[where]

    def add_soil(self, where: BoolArray, share: FloatArray | float) -> None:
        """More soil, dark and loam as they occur there."""
        self.add("dark_soil", where, share * self.dark)
        self.add("loam", where, share * (1 - self.dark))


def mixture(
    ground: Ground, cover: Cover, x: FloatArray, y: FloatArray, day_of_year: float
) -> Mixture:
    """Share of each material at each place; they add up to 1. Materials that are not there lack."""
    spread = ground.settings.spread
    late = 22.0 * spread * (cover.chance(1) - 0.5)  # days, of the parcel
    weak = spread * cover.chance(2)
    patchy = smooth(ground.seed + 51, x, y, 260.0, 3)
    dark = np.clip(0.5 + spread * 0.45 * smooth(ground.seed + 52, x, y, 1300.0, 3), 0.0, 1.0)
    mix = _Mix(dark)
    for kind in (int(kind) for kind in np.unique(cover.kind)):
        where = cover.kind == kind
        if kind in SEASONS:
            day = day_of_year - late
            vigour = 1.0 - GAPS[kind] * weak
            green = SEASONS[kind].green(day) * vigour * (1 + 0.05 * spread * patchy)
            if kind == MEADOW:
                green = green * _mown(day, cover)
            _plants(mix, kind, where, np.clip(green, 0.0, 1.0), day)
        elif kind == CONIFER:
            leaves = 0.98 - 0.04 * weak
            mix.add("needle", where, leaves)
            mix.add_soil(where, 1 - leaves)
        elif kind == WATER:
            _water(mix, ground, cover, where, x, y)
        elif kind == BARE:
            weeds = np.clip(0.10 * spread * (patchy + 0.4), 0.0, 0.25)
            mix.add("straw", where, weeds)
            mix.add_soil(where, 1 - weeds)
        elif kind == ROAD:
            mix.add("asphalt", where, 0.85)
            mix.add("grass", where, 0.15)
        elif kind == BUILT:
            _built(mix, cover, where)
        elif kind == SAND:
            mix.add("sand", where, 1.0)
        elif kind == BURNT:
            mix.add("char", where, 0.72)
            mix.add("straw", where, 0.10)
            mix.add_soil(where, 0.18)
    return mix.shares


def _plants(mix: _Mix, kind: int, where: BoolArray, green: FloatArray, day: FloatArray) -> None:
    """Leaves, and what is seen between them."""
    leaf = {BROADLEAF: "broadleaf", MEADOW: "grass", WETLAND: "grass"}.get(kind, "leaf")
    rest = 1.0 - green
    if kind == RAPESEED:
        bloom = 0.75 * np.exp(-0.5 * ((day - BLOSSOM_DAY) / BLOSSOM_DAYS) ** 2)
        mix.add("blossom", where, green * bloom)
        mix.add(leaf, where, green * (1 - bloom))
    else:
        mix.add(leaf, where, green)
    if kind == BROADLEAF:  # bare twigs and litter
        mix.add("straw", where, rest * 0.35)
        mix.add("dark_soil", where, rest * 0.65)
    elif kind == WETLAND:
        mix.add("clear_water", where, rest * 0.40)
        mix.add("straw", where, rest * 0.35)
        mix.add("dark_soil", where, rest * 0.25)
    elif kind == MEADOW:
        mix.add("straw", where, rest * 0.4)
        mix.add("dark_soil", where, rest * 0.6)
    else:
        # Ripe plants and stubble stand until the field is ploughed.
        fall = SEASONS[kind].fall
        dry = 1 / (1 + np.exp(-(day - fall) / 5)) / (1 + np.exp((day - fall - 45) / 6))
        mix.add("straw", where, rest * 0.85 * dry)
        mix.add_soil(where, rest * (1 - 0.85 * dry))


def _mown(day: FloatArray, cover: Cover) -> FloatArray:
    """Share of the leaves that mowing left, which grows back within weeks."""
    left = np.ones(cover.kind.shape)
    for key, first in ((3, 138.0), (4, 196.0)):
        since = day - (first + 25.0 * cover.chance(key))
        left *= np.where(since > 0, 1 - 0.5 * np.exp(-np.maximum(since, 0) / 14.0), 1.0)
    return left


def _water(
    mix: _Mix, ground: Ground, cover: Cover, where: BoolArray, x: FloatArray, y: FloatArray
) -> None:
    """Clear and turbid water, and the bottom seen through it near a beach."""
    cloudy = np.clip(0.25 + 0.2 * smooth(ground.seed + 53, x, y, 1500.0, 3), 0.0, 1.0)
    river = (cover.river_m < ground.settings.river_m) & (cover.coast_m > 0)
    cloudy = np.where(river, 0.35 + 0.5 * cloudy, cloudy)
    bottom = np.zeros(cover.kind.shape)
    if ground.settings.sea > 0:
        sea, away = cover.coast_m <= 0, np.minimum(cover.coast_m, 0.0)
        bottom = np.where(sea, 0.22 * np.exp(away / 90.0), 0.0)
        stirred = np.clip(0.8 * np.exp(away / 700.0) + 0.4 * cloudy, 0.0, 1.0)
        cloudy = np.where(sea, stirred, cloudy)
    mix.add("sand", where, bottom)
    mix.add("turbid_water", where, (1 - bottom) * cloudy)
    mix.add("clear_water", where, (1 - bottom) * (1 - cloudy))


def _built(mix: _Mix, cover: Cover, where: BoolArray) -> None:
    """Roofs, and yards and gardens around them, lot by lot."""
    which = cover.chance(6)
    roof = np.where(cover.roof, 0.95, 0.0)
    for material, low, high in (
        ("tile", 0.0, 0.6), ("asphalt", 0.6, 0.75), ("concrete", 0.75, 0.93),
        ("metal_roof", 0.93, 2.0),
    ):  # fmt: skip
        mix.add(material, where, roof * ((which >= low) & (which < high)))
    trees = 0.2 + 0.4 * cover.chance(7)
    mix.add("broadleaf", where, (1 - roof) * trees)
    mix.add("grass", where, (1 - roof) * 0.3)
    mix.add("asphalt", where, (1 - roof) * (0.7 - trees))
