"""Stars: how bright they are, how they move together, and how they are drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from warte.sky.simulate.psf import path_nodes, pixel_profile
from warte.sky.simulate.settings import SkySettings

STAR_REACH = 4.5  # stars are drawn out to this many sigma: 7e-6 of their light is beyond


@dataclass
class Stars:
    """A star field. x, y (N,): places at scene time 0 (pixels); snr (N,): matched-filter SNR."""

    x: np.ndarray
    y: np.ndarray
    snr: np.ndarray
    twinkle: np.ndarray  # (N,) state of the scintillation, unit normal


def move_stars(
    sky: SkySettings, x: np.ndarray, y: np.ndarray, time: float, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Places of stars at a scene time (frames) from their places at time 0.

    They turn and scale about the centre of rotation and then drift: p = c + s R (p0 - c) + v t,
    R by rotation_deg * t from x towards y, s = (1 + scale_change) ** t. size is (width, height).
    """
    cx, cy = _centre(sky, size)
    angle = np.deg2rad(sky.rotation_deg * time)
    scale = (1.0 + sky.scale_change) ** time
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    dx, dy = x - cx, y - cy
    return (
        cx + cos * dx - sin * dy + sky.drift_x * time,
        cy + sin * dx + cos * dy + sky.drift_y * time,
    )


def _centre(sky: SkySettings, size: tuple[int, int]) -> tuple[float, float]:
    cx = (size[0] - 1) / 2 if sky.rotation_x is None else sky.rotation_x
    cy = (size[1] - 1) / 2 if sky.rotation_y is None else sky.rotation_y
    return cx, cy


def _unmove(
    sky: SkySettings, x: np.ndarray, y: np.ndarray, time: float, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    cx, cy = _centre(sky, size)
    angle = np.deg2rad(-sky.rotation_deg * time)
    scale = (1.0 + sky.scale_change) ** -time
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    dx, dy = x - sky.drift_x * time - cx, y - sky.drift_y * time - cy
    return cx + cos * dx - sin * dy, cy + sin * dx + cos * dy


def draw_stars(
    sky: SkySettings,
    times: np.ndarray,
    size: tuple[int, int],
    margin: float,
    rng: np.random.Generator,
) -> Stars:
    """A random star field that fills the picture at all scene times (T,) in `times`.

    Brightness follows N(>F) ~ F^-a. Star counts rise by 0.4 to 0.5 dex per magnitude around
    magnitudes 5 to 12 (star counts in Allen's Astrophysical Quantities), that is
    a = 1.0 to 1.25; a uniform space density gives 0.6 dex and a = 1.5.
    margin (pixels): how far outside the picture stars may come in by shake or width.
    """
    width, height = size
    xs = np.array([-margin, width - 1 + margin] * 2)
    ys = np.repeat([-margin, height - 1 + margin], 2)
    seen = np.array([_unmove(sky, xs, ys, float(t), size) for t in times])
    low, high = seen.min(axis=(0, 2)), seen.max(axis=(0, 2))
    area_mpx = float(np.prod(high - low)) / 1e6
    count = int(rng.poisson(sky.stars_per_mpx * area_mpx))
    x = rng.uniform(low[0], high[0], count)
    y = rng.uniform(low[1], high[1], count)
    # 1 - u lies in (0, 1], so that no star is infinitely bright
    snr = sky.star_limit_snr * (1.0 - rng.random(count)) ** (-1.0 / sky.star_slope)
    snr = np.minimum(snr, sky.star_brightest_snr)
    return Stars(x, y, snr, rng.standard_normal(count))


def twinkle(stars: Stars, sky: SkySettings, rng: np.random.Generator) -> np.ndarray:
    """Step the scintillation by one frame; factors (N,) of mean 1, log-normal, AR(1) in time."""
    if sky.scintillation == 0:
        return np.ones(len(stars.x))
    keep = np.exp(-1.0 / sky.scintillation_frames) if sky.scintillation_frames > 0 else 0.0
    fresh = rng.standard_normal(len(stars.x))
    stars.twinkle = keep * stars.twinkle + np.sqrt(1.0 - keep**2) * fresh
    spread = np.sqrt(np.log1p(sky.scintillation**2))  # so that std / mean is scintillation
    return np.exp(spread * stars.twinkle - 0.5 * spread**2)


class StarPainter:
    """Draws stars on a picture; stamps are kept as long as the stars stand still."""

    def __init__(self, size: tuple[int, int], sigma: float) -> None:
        self.width, self.height = size
        self.sigma = sigma
        self.radius = int(np.ceil(STAR_REACH * sigma))
        self._key: tuple[float, ...] | None = None
        self._pixel = np.zeros(0, np.int64)
        self._light = np.zeros(0)
        self._star = np.zeros(0, np.int64)

    def paint(
        self,
        stars: Stars,
        sky: SkySettings,
        flux: np.ndarray,
        times: tuple[float, float],
        shift: tuple[float, float],
    ) -> np.ndarray:
        """Picture (H, W) float32 of the stars with total flux (N,), trailed over scene `times`."""
        still = not (sky.drift_x or sky.drift_y or sky.rotation_deg or sky.scale_change)
        key = (*shift, *((0.0, 0.0) if still else times))
        if key != self._key:
            self._stamp(stars, sky, times, shift)
            self._key = key
        light = self._light * flux[self._star]
        flat = np.bincount(self._pixel, weights=light, minlength=self.width * self.height)
        return flat.reshape(self.height, self.width).astype(np.float32)

    def _stamp(
        self,
        stars: Stars,
        sky: SkySettings,
        times: tuple[float, float],
        shift: tuple[float, float],
    ) -> None:
        size = (self.width, self.height)
        nodes, weights = self._nodes(sky, times)
        pixels, lights, owners = [], [], []
        for time, weight in zip(nodes, weights, strict=True):
            x, y = move_stars(sky, stars.x, stars.y, float(time), size)
            pixel, light, owner = self._points(x + shift[0], y + shift[1])
            pixels.append(pixel)
            lights.append(weight * light)
            owners.append(owner)
        self._pixel = np.concatenate(pixels)
        self._light = np.concatenate(lights)
        self._star = np.concatenate(owners)

    def _nodes(self, sky: SkySettings, times: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
        """Instants over the exposure, as many as the longest trail in the picture needs."""
        size = (self.width, self.height)
        xs = np.array([0.0, self.width - 1.0] * 2)
        ys = np.repeat([0.0, self.height - 1.0], 2)
        x0, y0 = _unmove(sky, xs, ys, times[0], size)
        x1, y1 = move_stars(sky, x0, y0, times[1], size)
        trail = float(np.hypot(x1 - xs, y1 - ys).max())
        if trail < 0.2 * self.sigma:  # adds less than 0.4 % to the variance of the PSF
            middle = 0.5 * (times[0] + times[1])
            return np.array([middle]), np.ones(1)
        return path_nodes(times[0], times[1], min(int(np.ceil(trail / (2 * self.sigma))), 64))

    def _points(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Flat pixel numbers, light and star number of every pixel that a star lights up."""
        r, side = self.radius, 2 * self.radius + 1
        inside = (x > -r) & (x < self.width - 1 + r) & (y > -r) & (y < self.height - 1 + r)
        owner = np.flatnonzero(inside)
        x, y = x[owner], y[owner]
        left, top = np.rint(x).astype(np.int64) - r, np.rint(y).astype(np.int64) - r
        across = pixel_profile(x, left, side, self.sigma)
        down = pixel_profile(y, top, side, self.sigma)
        columns = left[:, None] + np.arange(side)
        rows = top[:, None] + np.arange(side)
        # Light beyond the border is dropped: weight 0, any pixel number.
        across[(columns < 0) | (columns >= self.width)] = 0.0
        down[(rows < 0) | (rows >= self.height)] = 0.0
        columns = np.clip(columns, 0, self.width - 1)
        rows = np.clip(rows, 0, self.height - 1)
        light = down[:, :, None] * across[:, None, :]
        pixel = rows[:, :, None] * self.width + columns[:, None, :]
        return pixel.ravel(), light.ravel(), np.repeat(owner, side * side)
