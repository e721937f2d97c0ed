"""Things that move through the sky: where they are, how bright, and the light they leave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from warte.sky.simulate.psf import (
    REACH,
    Patch,
    add_patch,
    filter_loss,
    join_patches,
    path_nodes,
    path_patch,
)
from warte.sky.simulate.settings import (
    Aircraft,
    Flaring,
    Light,
    Meteor,
    Mover,
    Shadow,
    Tumbling,
)
from warte.sky.tables import OBSERVATION_COLUMNS, Tracks, format_utc, summarise

Playback = tuple[tuple[float, float], ...]
Row = tuple[int, int, float, float, float, float]  # mover from 0, frame, x, y, flux, flux_err


@dataclass(frozen=True)
class Glow:
    """The light of one mover in one frame.

    x, y: truth position (pixels). brightness: flux in units of the mover's snr or flux setting.
    patch: that brightness spread over pixels. loss: sqrt(sum P^2) of the whole pattern,
    unit_loss: of the light of one lamp, to which the snr setting refers.
    """

    x: float
    y: float
    brightness: float
    patch: Patch
    loss: float
    unit_loss: float


@dataclass(frozen=True)
class View:
    """How a camera sees movers: picture size (width, height), part of the frame the shutter is
    open, sigma of the point spread function (pixels), playback knots."""

    size: tuple[int, int]
    exposure: float = 1.0
    sigma: float = 1.2
    playback: Playback = ()

    def holds(self, x: float, y: float) -> bool:
        """Whether a place lies in the picture."""
        return -0.5 <= x < self.size[0] - 0.5 and -0.5 <= y < self.size[1] - 0.5

    def misses(self, x: np.ndarray, y: np.ndarray, extent: float = 0.0) -> bool:
        """Whether no light of a path comes into the picture; extent: of the mover (pixels)."""
        margin = extent + REACH * self.sigma + 1.0
        right, bottom = self.size[0] - 1 + margin, self.size[1] - 1 + margin
        apart = x.max() < -margin or y.max() < -margin or x.min() > right or y.min() > bottom
        return bool(apart)


@dataclass(frozen=True)
class Ground:
    """What a mover shines on, at its place."""

    noise: float  # noise of a pixel, in the unit of light
    flux_scale: float = 1.0  # light per unit of the flux setting
    clear: float = 1.0  # share of the light that the clouds let through
    grey: float = 1.0  # grey levels per unit of light


def add_mover(
    light: np.ndarray,
    movers: tuple[Mover, ...],
    number: int,
    frame: int,
    view: View,
    ground: Callable[[int, int], Ground],
    units: dict[int, float],
    shift: tuple[float, float] = (0.0, 0.0),
) -> list[Row]:
    """Add the light of one mover in a frame to `light` (H, W); returns its row of truth, if any.

    ground(row, column): of that pixel. units: light of brightness 1 of each mover when last seen,
    kept from frame to frame for the trains of meteors. shift: pointing error (pixels).
    """
    mover, rows = movers[number], []
    glow = mover_glow(mover, frame, view, shift)
    if glow is not None:
        column = min(max(round(glow.x), 0), view.size[0] - 1)
        row = min(max(round(glow.y), 0), view.size[1] - 1)
        here = ground(row, column)
        unit = mover.snr * here.noise / glow.unit_loss
        if mover.flux is not None:
            unit = mover.flux * here.flux_scale
        units[number] = unit
        flux = unit * here.clear * glow.brightness
        add_patch(light, glow.patch, unit * here.clear)
        if view.holds(glow.x, glow.y) and flux > 0:
            error = here.noise / glow.loss
            rows = [(number, frame, glow.x, glow.y, flux * here.grey, error * here.grey)]
    train = train_glow(mover, frame, view, shift)
    if train is not None and number in units:
        add_patch(light, train, units[number])
    return rows


def scene_time(playback: Playback, frames: np.ndarray | float) -> np.ndarray:
    """Time in the sky (frames at real speed, 0 at frame 0) at the given frames: the integral of
    the playback factor, which is linear between knots and constant outside them."""
    at = np.asarray(frames, dtype=np.float64)
    if not playback:
        return at
    knots, factors = np.array(playback, dtype=np.float64).T
    return _integral(knots, factors, at) - _integral(knots, factors, np.zeros(()))


def _integral(knots: np.ndarray, factors: np.ndarray, at: np.ndarray) -> np.ndarray:
    steps = 0.5 * (factors[1:] + factors[:-1]) * np.diff(knots)
    sums = np.concatenate([[0.0], np.cumsum(steps)])
    inside = np.clip(at, knots[0], knots[-1])
    i = np.clip(np.searchsorted(knots, inside, side="right") - 1, 0, max(len(knots) - 2, 0))
    middle = sums[i] + 0.5 * (factors[i] + np.interp(inside, knots, factors)) * (inside - knots[i])
    before = np.minimum(at - knots[0], 0.0) * factors[0]
    after = np.maximum(at - knots[-1], 0.0) * factors[-1]
    return middle + before + after


def mover_position(
    mover: Mover, times: np.ndarray, playback: Playback = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Places x, y (pixels, as times) of a mover at scene times (frames at real speed)."""
    since = np.asarray(times, dtype=np.float64) - scene_time(playback, mover.frame)
    if isinstance(mover, Meteor):
        way = since - 0.5 * mover.deceleration * since**2
        return mover.x + mover.vx * way, mover.y + mover.vy * way
    half = 0.5 * since**2
    return (
        mover.x + mover.vx * since + mover.ax * half,
        mover.y + mover.vy * since + mover.ay * half,
    )


def light_curve(
    light: tuple[Tumbling | Flaring | Shadow, ...], times: np.ndarray, playback: Playback = ()
) -> np.ndarray:
    """Brightness of a satellite at scene times (frames at real speed), 1 where nothing happens."""
    factor = np.ones_like(times, dtype=np.float64)
    for curve in light:
        if isinstance(curve, Tumbling):
            turn = 0.5 + 0.5 * np.cos(2 * np.pi * (times / curve.period + curve.phase))
            factor *= 1.0 - curve.depth + curve.depth * turn**curve.sharpness
        elif isinstance(curve, Flaring):
            off = (times - scene_time(playback, curve.frame)) / curve.width
            factor *= 1.0 + curve.height * np.exp(-0.5 * off**2)
        else:
            off = (times - scene_time(playback, curve.frame)) / curve.fade
            lit = np.clip(0.5 + off if curve.leaving else 0.5 - off, 0.0, 1.0)
            factor *= lit * lit * (3.0 - 2.0 * lit)
    return factor


def meteor_light(mover: Meteor, times: np.ndarray, playback: Playback = ()) -> np.ndarray:
    """Brightness of a meteor, 1 at its peak: u^a (1 - u)^b over its duration, a + b = 3.

    The place of the peak is the F of Fleming et al. 1993 (in Meteoroids and their Parent Bodies,
    p. 261); a late one gives a slow rise and a quick end.
    """
    u = (times - scene_time(playback, mover.frame)) / mover.duration
    u = np.clip(u, 0.0, 1.0)
    a, b = 3.0 * mover.peak, 3.0 * (1.0 - mover.peak)
    return (u / mover.peak) ** a * ((1.0 - u) / (1.0 - mover.peak)) ** b


def lamp_duty(light: Light, start: float, end: float) -> float:
    """Part of the time start..end (frames) in which a lamp is on; start == end: an instant."""
    if light.period == 0:
        return 1.0
    delays = [0.0, light.double] if light.double > 0 else [0.0]
    if end > start:
        lit = sum(_lit_time(light, end - d) - _lit_time(light, start - d) for d in delays)
        return min(lit / (end - start), 1.0)
    turns = [(start - d) / light.period + light.phase for d in delays]
    return 1.0 if any((turn % 1.0) * light.period < light.flash for turn in turns) else 0.0


def _lit_time(light: Light, time: float) -> float:
    turns = time / light.period + light.phase
    whole = float(np.floor(turns))
    return whole * light.flash + min((turns - whole) * light.period, light.flash)


def aircraft_centre(mover: Aircraft) -> tuple[float, float]:
    """Offset (pixels) of the centre of light of an aircraft: its lamps weighted by their mean
    brightness. The truth of an aircraft is this one point, which moves as smoothly as it does."""
    weights = [
        lamp.brightness
        * (1.0 if lamp.period == 0 else lamp.flash * (2 if lamp.double else 1) / lamp.period)
        for lamp in mover.lights
    ]
    total = sum(weights)
    if total == 0:
        return 0.0, 0.0
    pairs = list(zip(weights, mover.lights, strict=True))
    dx = sum(weight * lamp.dx for weight, lamp in pairs) / total
    return dx, sum(weight * lamp.dy for weight, lamp in pairs) / total


def mover_glow(
    mover: Mover, frame: int, view: View, shift: tuple[float, float] = (0.0, 0.0)
) -> Glow | None:
    """Light of a mover in a frame, trailed over the exposure; None where it leaves none.

    shift: pointing error of the camera in this frame (pixels). The truth position is the mean
    place of the light; that of an aircraft is aircraft_centre.
    """
    start, end = _exposure(frame, view)
    span = end - start
    if isinstance(mover, Meteor):
        birth = float(scene_time(view.playback, mover.frame))
        start, end = max(start, birth), min(end, birth + mover.duration)
        if end < start:
            return None
    open_part = (end - start) / span if span > 0 else 1.0
    nodes, weights, x, y = _path(mover, start, end, view, shift)
    if isinstance(mover, Aircraft):
        return _aircraft_glow(mover, x, y, weights, (start, end), view)
    if view.misses(x, y):
        return None
    if isinstance(mover, Meteor):
        weights = weights * meteor_light(mover, nodes, view.playback) * open_part
    else:
        weights = weights * light_curve(mover.light, nodes, view.playback)
    total = float(weights.sum())
    if total <= 0:
        return None
    patch = path_patch(x, y, weights, view.sigma)
    loss = filter_loss(patch.pixels)
    middle_x, middle_y = float(weights @ x) / total, float(weights @ y) / total
    return Glow(middle_x, middle_y, total, patch, loss, loss)


def _exposure(frame: int, view: View) -> tuple[float, float]:
    edges = frame + np.array([-0.5, 0.5]) * view.exposure
    start, end = scene_time(view.playback, edges)
    return float(start), float(end)


def _path(
    mover: Mover, start: float, end: float, view: View, shift: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Times, weights (sum 1) and places x, y of nodes along the path, 4 for every 2 sigma."""
    x, y = mover_position(mover, np.linspace(start, end, 9), view.playback)
    length = float(np.hypot(np.diff(x), np.diff(y)).sum())
    steps = max(1, min(int(np.ceil(length / (2 * view.sigma))), 4000))
    nodes, weights = path_nodes(start, end, steps)
    x, y = mover_position(mover, nodes, view.playback)
    return nodes, weights, x + shift[0], y + shift[1]


def _aircraft_glow(
    mover: Aircraft,
    x: np.ndarray,
    y: np.ndarray,
    weights: np.ndarray,
    times: tuple[float, float],
    view: View,
) -> Glow | None:
    if view.misses(x, y, max(max(abs(lamp.dx), abs(lamp.dy)) for lamp in mover.lights)):
        return None
    patches = [
        path_patch(x + lamp.dx, y + lamp.dy, weights * on, view.sigma)
        for lamp in mover.lights
        if (on := lamp.brightness * lamp_duty(lamp, *times)) > 0
    ]
    if not patches:
        return None
    patch = join_patches(patches)
    total = float(patch.pixels.sum())
    dx, dy = aircraft_centre(mover)
    middle_x, middle_y = float(weights @ x) + dx, float(weights @ y) + dy
    loss, unit_loss = filter_loss(patch.pixels), filter_loss(patches[0].pixels)
    return Glow(middle_x, middle_y, total, patch, loss, unit_loss)


def train_glow(
    mover: Mover, frame: int, view: View, shift: tuple[float, float] = (0.0, 0.0)
) -> Patch | None:
    """Light of a meteor's train in a frame, in units of the meteor's peak; None without one.

    Each part of the path keeps `train` of the light spent there and gives it off with the time
    constant train_frames. The train is no part of the truth's flux.
    """
    if not isinstance(mover, Meteor) or mover.train == 0:
        return None
    birth = float(scene_time(view.playback, mover.frame))
    now = _exposure(frame, view)[1]
    end = min(now, birth + mover.duration)
    if end <= birth or now - end > 7 * mover.train_frames:
        return None
    nodes, weights, x, y = _path(mover, birth, end, view, shift)
    if view.misses(x, y):
        return None
    left = mover.train / mover.train_frames * np.exp(-(now - nodes) / mover.train_frames)
    light = weights * (end - birth) * left * meteor_light(mover, nodes, view.playback)
    return path_patch(x, y, light, view.sigma)


def truth_tracks(
    rows: list[Row], movers: tuple[Mover, ...], fps: float, start_utc: np.datetime64 | None
) -> Tracks:
    """Truth tables from rows. Movers that were never seen have no track; the others are numbered
    from 1 in their order. start_utc: start of frame 0, None when unknown."""
    seen = sorted({row[0] for row in rows})
    numbers = {mover: i + 1 for i, mover in enumerate(seen)}
    kinds = {numbers[m]: type(movers[m]).__name__.lower() for m in seen}
    table = pd.DataFrame(
        [
            (numbers[m], frame, _frame_utc(start_utc, frame, fps), x, y, 0.0, 0.0, flux, err)
            for m, frame, x, y, flux, err in rows
        ],
        columns=OBSERVATION_COLUMNS,
    )
    return summarise(table, kinds, dict.fromkeys(kinds, 1.0), fps)


def _frame_utc(start: np.datetime64 | None, frame: int, fps: float) -> str:
    if start is None:
        return ""
    return format_utc(start + np.timedelta64(round(frame / fps * 1e6), "us"))
