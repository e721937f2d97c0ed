"""What an optical sensor sees of a ground."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import correlate1d

from warte.core.data.tiles import Window
from warte.earth.simulate.ground import BROADLEAF, BUILT, CONIFER, WATER, Cover, Ground
from warte.earth.simulate.noise import FloatArray, by_pixel, smooth
from warte.earth.simulate.season import mixture
from warte.earth.simulate.sensors import Sensor
from warte.earth.simulate.sky import Sky, rayleigh, skylight
from warte.earth.simulate.spectra import MATERIALS, band_table

CLEAR, SHADOW, CLOUD = 1, 2, 3  # numbers in clouds.tif; 0 is no data
CLOUD_OPACITY = 0.25  # what is at least so opaque is a cloud
SHADOW_LOSS = 0.25  # where clouds take at least this share of the direct sunlight, there is shadow


def axes(window: Window, pixel_m: float, detail: int = 1) -> tuple[FloatArray, FloatArray]:
    """x and y (m) of the places at which a window is looked at, `detail` to a pixel's side."""
    step = pixel_m / detail
    columns = np.arange(window.columns * detail, dtype=np.float64) + window.column * detail
    rows = np.arange(window.rows * detail, dtype=np.float64) + window.row * detail
    return (columns + 0.5) * step, (rows + 0.5) * step


def observe(
    ground: Ground,
    sensor: Sensor,
    sky: Sky,
    window: Window,
    *,
    day: float,
    day_of_year: float,
    seed: int,
    detail: int = 1,
) -> FloatArray:
    """Reflectance (bands, rows, columns) of a window, with noise, before it becomes numbers.

    day: since 1970-01-01, for events. day_of_year: for the season. seed: of the sensor's noise.
    """
    margin = int(np.ceil(4 * sensor.blur))
    seen = Window(
        window.row - margin, window.column - margin,
        window.rows + 2 * margin, window.columns + 2 * margin,
    )  # fmt: skip
    x, y = axes(seen, sensor.pixel_m, detail)
    cover = ground.cover(x, y, day)
    values = _reflectance(ground, sensor, cover, x, y, day_of_year)
    values *= _light(ground, sky, x, y)
    for thing_values, share in _things(ground, sensor, x, y):
        values += share * (thing_values[:, None, None] - values)
    values = _through_air(values, sensor, sky, x, y)
    values = _shrink(values, detail)
    values = _blur(values, sensor.blur)
    inner = (
        slice(None),
        slice(margin, margin + window.rows),
        slice(margin, margin + window.columns),
    )
    return _noisy(values[inner], sensor, window, seed)


def clouds(sky: Sky, x: FloatArray, y: FloatArray) -> npt.NDArray[np.uint8]:
    """CLEAR, SHADOW or CLOUD at the places of two axes."""
    opaque = 1 - np.exp(-sky.thickness(x, y) - sky.veil(x, y))
    found = np.full(opaque.shape, CLEAR, dtype=np.uint8)
    found[_shade(sky, x, y) > SHADOW_LOSS] = SHADOW
    found[opaque > CLOUD_OPACITY] = CLOUD
    return found


def _reflectance(
    ground: Ground, sensor: Sensor, cover: Cover, x: FloatArray, y: FloatArray, day_of_year: float
) -> FloatArray:
    table = band_table(tuple((band.centre_nm, band.width_nm) for band in sensor.bands))
    values = np.zeros((len(sensor.bands), *cover.kind.shape))
    for material, share in mixture(ground, cover, x, y, day_of_year).items():
        row = table[MATERIALS.index(material)]
        for band, number in enumerate(row):
            values[band] += number * share
    spread = ground.settings.spread
    bright = 1 + spread * (0.10 * (cover.chance(11) - 0.5) + _texture(ground, cover, x, y))
    # Wetter ground and leaves darken the longer waves more.
    moist = spread * (
        0.22 * (cover.chance(12) - 0.5) + 0.05 * smooth(ground.seed + 61, x, y, 600.0, 3)
    )
    water = cover.kind == WATER
    for band, about in enumerate(sensor.bands):
        weight = np.clip((about.centre_nm - 700.0) / 1500.0, 0.0, 1.0)
        values[band] *= np.where(water, 1.0, bright * (1 - weight * moist))
    return values


def _texture(ground: Ground, cover: Cover, x: FloatArray, y: FloatArray) -> FloatArray:
    fine = smooth(ground.seed + 62, x, y, 24.0, 2)
    strength = np.full(cover.kind.shape, 0.025)
    strength[np.isin(cover.kind, (BROADLEAF, CONIFER))] = 0.09
    strength[cover.kind == BUILT] = 0.07
    return strength * fine


def _light(ground: Ground, sky: Sky, x: FloatArray, y: FloatArray) -> FloatArray:
    """Light on the ground over that on level ground, from the slope towards the sun."""
    if ground.settings.relief_m == 0:
        return np.ones((1, 1))
    step = x[1] - x[0] if len(x) > 1 else 10.0
    wide_x = np.concatenate([[x[0] - step], x, [x[-1] + step]])
    wide_y = np.concatenate([[y[0] - step], y, [y[-1] + step]])
    height = ground.height(wide_x, wide_y)
    east = (height[1:-1, 2:] - height[1:-1, :-2]) / (2 * step)
    south = (height[2:, 1:-1] - height[:-2, 1:-1]) / (2 * step)
    elevation, azimuth = np.radians(sky.sun.elevation_deg), np.radians(sky.sun.azimuth_deg)
    towards = -east * np.sin(azimuth) + south * np.cos(azimuth)
    cosine = (np.sin(elevation) + np.cos(elevation) * towards) / np.sqrt(1 + east**2 + south**2)
    direct = np.clip(cosine / np.sin(elevation), 0.0, 3.0)
    return 0.15 + 0.85 * direct


def _things(
    ground: Ground, sensor: Sensor, x: FloatArray, y: FloatArray
) -> list[tuple[FloatArray, FloatArray]]:
    """Spectrum and share of what is seen for each planted thing near the window."""
    found = []
    table = band_table(tuple((band.centre_nm, band.width_nm) for band in sensor.bands))
    for thing in ground.things:
        share = thing.share(x, y)
        if share is not None:
            found.append((table[MATERIALS.index(thing.material)], share))
    return found


def _shade(sky: Sky, x: FloatArray, y: FloatArray) -> FloatArray:
    """Share of the direct sunlight that clouds take away."""
    east, south = sky.shift_m
    return 1 - np.exp(-sky.thickness(x + east, y + south))


def _through_air(
    values: FloatArray, sensor: Sensor, sky: Sky, x: FloatArray, y: FloatArray
) -> FloatArray:
    """Light after shadows, haze, clouds, and clear air where it was not taken out."""
    sine = np.sin(np.radians(sky.sun.elevation_deg))
    way = 1 / sine + 1
    shade, haze = _shade(sky, x, y), sky.haze_at(x, y)
    thick, veil = sky.thickness(x, y), sky.veil(x, y)
    opaque, thin = 1 - np.exp(-thick), 1 - np.exp(-veil)
    body = 0.5 + 0.5 * (1 - np.exp(-thick / 4))
    table = band_table(tuple((band.centre_nm, band.width_nm) for band in sensor.bands))
    white, ice = table[MATERIALS.index("cloud")], table[MATERIALS.index("ice_cloud")]
    for band, about in enumerate(sensor.bands):
        at = values[band] * (1 - shade * (1 - float(skylight(about.centre_nm))))
        mist = haze * (about.centre_nm / 550.0) ** -1.3
        at = at * np.exp(-0.12 * way * mist) + 0.10 * mist / sine
        if sky.settings.top_of_atmosphere:
            air = float(rayleigh(about.centre_nm))
            at = at * np.exp(-0.5 * air * way) + 1.2 * air / (4 * sine)
        at = at * (1 - thin) + thin * ice[band]
        values[band] = at * (1 - opaque) + opaque * body * white[band]
    return values


def _shrink(values: FloatArray, detail: int) -> FloatArray:
    if detail == 1:
        return values
    bands, rows, columns = values.shape
    parts = values.reshape(bands, rows // detail, detail, columns // detail, detail)
    return parts.mean(axis=(2, 4))


def _blur(values: FloatArray, sigma: float) -> FloatArray:
    if sigma == 0:
        return values
    reach = int(np.ceil(4 * sigma))
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    taps /= taps.sum()
    return correlate1d(correlate1d(values, taps, axis=1), taps, axis=2)


def _noisy(values: FloatArray, sensor: Sensor, window: Window, seed: int) -> FloatArray:
    for band, about in enumerate(sensor.bands):
        draw = by_pixel(seed + band, window, lambda rng, shape: rng.standard_normal(shape))
        values[band] += draw * np.sqrt(
            about.noise**2 + sensor.shot**2 * np.maximum(values[band], 0)
        )
    return np.clip(values, None, sensor.top)
