"""What the classes are made of through the year: green leaves, straw, blossom, soil, water."""

from __future__ import annotations

from dataclasses import dataclass

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
BLOSSOM_DAY, BLOSSOM_DAYS = 124.0, 8.0  # of rapeseed: middle, standard deviation
Mixture = dict[str, FloatArray]


def mixture(
    ground: Ground, cover: Cover, x: FloatArray, y: FloatArray, day_of_year: float
) -> Mixture:
    """Share of each material at each place; they add up to 1. Materials that are not there lack."""
    mix: Mixture = {}
    spread = ground.settings.spread
    late = 22.0 * spread * (cover.chance(1) - 0.5)  # days, of the parcel
    vigour = 1.0 - 0.25 * spread * cover.chance(2)
    patchy = smooth(ground.seed + 51, x, y, 260.0, 3)
    dark = np.clip(0.5 + spread * 0.45 * smooth(ground.seed + 52, x, y, 1300.0, 3), 0.0, 1.0)

    def add(material: str, where: np.ndarray, share: FloatArray | float) -> None:
        target = mix.setdefault(material, np.zeros(cover.kind.shape))
        target[where] += share if np.isscalar(share) else np.asarray(share)[where]

    def soil(where: np.ndarray, share: FloatArray) -> None:
        add("dark_soil", where, share * dark)
        add("loam", where, share * (1 - dark))

    present = [int(kind) for kind in np.unique(cover.kind)]
    for kind in present:
        where = cover.kind == kind
        if kind in SEASONS:
            day = day_of_year - late
            green = SEASONS[kind].green(day) * vigour * (1 + 0.05 * spread * patchy)
            if kind == MEADOW:
                green = green * _mown(day, cover)
            green = np.clip(green, 0.0, 1.0)
            _plants(kind, where, green, day, add, soil)
        elif kind == CONIFER:
            leaves = 0.90 + 0.08 * vigour
            add("needle", where, leaves)
            soil(where, 1 - leaves)
        elif kind == WATER:
            _water(ground, cover, where, x, y, add)
        elif kind == BARE:
            weeds = np.clip(0.10 * spread * (patchy + 0.4), 0.0, 0.25)
            add("straw", where, weeds)
            soil(where, 1 - weeds)
        elif kind == ROAD:
            add("asphalt", where, 0.85)
            add("grass", where, 0.15)
        elif kind == BUILT:
            _built(cover, where, add)
        elif kind == SAND:
            add("sand", where, 1.0)
        elif kind == BURNT:
            add("char", where, 0.72)
            add("straw", where, 0.10)
            soil(where, np.full(cover.kind.shape, 0.18))
    return mix


def _plants(kind: int, where, green, day, add, soil) -> None:  # type: ignore[no-untyped-def]
    leaf = {BROADLEAF: "broadleaf", MEADOW: "grass", WETLAND: "grass"}.get(kind, "leaf")
    rest = 1.0 - green
    if kind == RAPESEED:
        bloom = 0.75 * np.exp(-0.5 * ((day - BLOSSOM_DAY) / BLOSSOM_DAYS) ** 2)
        add("blossom", where, green * bloom)
        add(leaf, where, green * (1 - bloom))
    else:
        add(leaf, where, green)
    if kind == BROADLEAF:  # bare twigs and litter
        add("straw", where, rest * 0.35)
        add("dark_soil", where, rest * 0.65)
    elif kind == WETLAND:
        add("clear_water", where, rest * 0.40)
        add("straw", where, rest * 0.35)
        add("dark_soil", where, rest * 0.25)
    elif kind == MEADOW:
        add("straw", where, rest * 0.6)
        soil(where, rest * 0.4)
    else:
        # Ripe plants and stubble stand until the field is ploughed.
        fall = SEASONS[kind].fall
        dry = 1 / (1 + np.exp(-(day - fall) / 5)) / (1 + np.exp((day - fall - 45) / 6))
        add("straw", where, rest * 0.85 * dry)
        soil(where, rest * (1 - 0.85 * dry))


def _mown(day: FloatArray, cover: Cover) -> FloatArray:
    """Share of the leaves that mowing left, which grows back within weeks."""
    left = np.ones(cover.kind.shape)
    for key, first in ((3, 138.0), (4, 196.0)):
        since = day - (first + 25.0 * cover.chance(key))
        left *= np.where(since > 0, 1 - 0.5 * np.exp(-np.maximum(since, 0) / 14.0), 1.0)
    return left


def _water(ground: Ground, cover: Cover, where, x, y, add) -> None:  # type: ignore[no-untyped-def]
    cloudy = np.clip(0.25 + 0.2 * smooth(ground.seed + 53, x, y, 1500.0, 3), 0.0, 1.0)
    river = (cover.river_m < ground.settings.river_m) & (cover.coast_m > 0)
    cloudy = np.where(river, 0.35 + 0.5 * cloudy, cloudy)
    bottom = np.zeros(cover.kind.shape)
    if ground.settings.sea > 0:
        sea, away = cover.coast_m <= 0, np.minimum(cover.coast_m, 0.0)
        bottom = np.where(sea, 0.22 * np.exp(away / 90.0), 0.0)
        stirred = np.clip(0.8 * np.exp(away / 700.0) + 0.4 * cloudy, 0.0, 1.0)
        cloudy = np.where(sea, stirred, cloudy)
    add("sand", where, bottom)
    add("turbid_water", where, (1 - bottom) * cloudy)
    add("clear_water", where, (1 - bottom) * (1 - cloudy))


def _built(cover: Cover, where, add) -> None:  # type: ignore[no-untyped-def]
    """Roofs, and yards and gardens around them, lot by lot."""
    which = cover.chance(6)
    roof = np.where(cover.roof, 0.95, 0.0)
    for material, low, high in (
        ("tile", 0.0, 0.6), ("asphalt", 0.6, 0.75), ("concrete", 0.75, 0.93),
        ("metal_roof", 0.93, 2.0),
    ):  # fmt: skip
        add(material, where, roof * ((which >= low) & (which < high)))
    trees = 0.2 + 0.4 * cover.chance(7)
    add("broadleaf", where, (1 - roof) * trees)
    add("grass", where, (1 - roof) * 0.3)
    add("asphalt", where, (1 - roof) * (0.7 - trees))
