"""What an imaging radar sees of a ground: backscatter of the classes, and speckle."""

from __future__ import annotations

import numpy as np

from warte.core.data.tiles import Window
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
from warte.earth.simulate.noise import FloatArray, by_pixel, smooth
from warte.earth.simulate.optical import axes
from warte.earth.simulate.season import SEASONS
from warte.earth.simulate.sensors import Radar

# Sigma nought (dB) at about 38 degrees, as co-polarised and cross-polarised, in C and in X band:
# medians after Ulaby and Dobson 1989, "Handbook of Radar Scattering Statistics for Terrain".
# Of crops: of the grown plants; before that they look like bare soil.
BACKSCATTER_DB = {
    WATER: (-19.5, -27.0, -19.0, -27.0), BROADLEAF: (-8.6, -14.2, -9.0, -14.5),
    CONIFER: (-9.6, -15.2, -9.8, -15.5), MEADOW: (-12.6, -19.2, -11.8, -18.5),
    WHEAT: (-13.8, -20.2, -12.4, -19.5), MAIZE: (-9.6, -15.8, -9.6, -15.5),
    RAPESEED: (-9.9, -14.6, -9.8, -14.8), BARE: (-11.8, -21.2, -11.4, -21.0),
    WETLAND: (-10.6, -17.6, -11.2, -18.0), ROAD: (-17.0, -25.0, -16.0, -24.0),
    BUILT: (-4.5, -13.0, -3.5, -13.0), SAND: (-17.5, -26.0, -15.5, -25.0),
    BURNT: (-12.4, -19.8, -11.6, -19.5),
}  # fmt: skip
SLOPE_DB_DEG = -0.12  # how backscatter falls with the angle of incidence, from 38 degrees


def observe(
    ground: Ground,
    radar: Radar,
    window: Window,
    *,
    day: float,
    day_of_year: float,
    seed: int,
    detail: int = 1,
) -> FloatArray:
    """Sigma nought (bands, rows, columns) of a window with speckle, linear.

    Speckle is fully developed: gamma distributed with mean 1 and the radar's looks as its shape
    (Ulaby, Moore and Fung 1982, "Microwave Remote Sensing", vol. 2), independent from pixel to
    pixel and between the polarisations.
    """
    x, y = axes(window, radar.pixel_m, detail)
    cover = ground.cover(x, y, day)
    db = _backscatter(ground, radar, cover, x, y, day_of_year)
    linear = 10 ** (db / 10)
    for thing in ground.things:
        share = thing.share(x, y)
        if share is not None:
            linear += share * (2.0 - linear)  # corners of things made by people: +3 dB
    if detail > 1:
        bands, rows, columns = linear.shape
        parts = linear.reshape(bands, rows // detail, detail, columns // detail, detail)
        linear = parts.mean(axis=(2, 4))
    linear = linear + 10 ** (radar.floor_db / 10)
    looks = radar.looks
    for band in range(len(radar.bands)):
        linear[band] *= by_pixel(
            seed + band, window, lambda rng, shape: rng.gamma(looks, 1 / looks, shape)
        )
    return linear


def _backscatter(
    ground: Ground, radar: Radar, cover: Cover, x: FloatArray, y: FloatArray, day_of_year: float
) -> FloatArray:
    """Sigma nought (dB) without speckle."""
    spread = ground.settings.spread
    near, far = radar.incidence_deg
    angle = near + (far - near) * np.clip(x / ground.settings.width_m, 0, 1)
    wet = smooth(ground.seed + 71, x, y, 1500.0, 3)
    fine = smooth(ground.seed + 72, x, y, 40.0, 2)
    common = spread * (0.6 * wet + 0.35 * fine + 1.6 * (cover.chance(21) - 0.5))
    common = common + SLOPE_DB_DEG * (angle - 38.0)
    # Some walls stand square to the radar and shine.
    common = common + np.where((cover.kind == BUILT) & (cover.chance(22) > 0.85), 8.0, 0.0)
    late = 22.0 * spread * (cover.chance(1) - 0.5)
    found = np.empty((len(radar.bands), *cover.kind.shape))
    for band, name in enumerate(radar.bands):
        column = (0 if name in ("vv", "hh") else 1) + (2 if radar.wavelength_cm < 4 else 0)
        level = np.zeros(cover.kind.shape)
        for kind in (int(kind) for kind in np.unique(cover.kind)):
            where = cover.kind == kind
            level[where] = BACKSCATTER_DB[kind][column]
            if kind in (WHEAT, MAIZE, RAPESEED):
                season = SEASONS[kind]
                green = season.green(day_of_year - late) / season.top
                soil = BACKSCATTER_DB[BARE][column]
                level[where] = (soil + green * (level - soil))[where]
        found[band] = level + common
    return found
