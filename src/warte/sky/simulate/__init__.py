"""Fake night-sky recordings with exact truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from warte.sky.simulate.camera import (
    Clouds,
    draw_clouds,
    expose,
    grey_per_electron,
    hot_pixels,
    pixel_noise,
    pointing,
    sky_light,
    vignette,
)
from warte.sky.simulate.codec import compress_h264
from warte.sky.simulate.inject import estimate_noise, inject, inject_stream
from warte.sky.simulate.movers import (
    Ground,
    Row,
    View,
    add_mover,
    mover_position,
    scene_time,
    truth_tracks,
)
from warte.sky.simulate.psf import filter_loss, path_patch
from warte.sky.simulate.scenes import SceneSettings, random_scene
from warte.sky.simulate.settings import (
    Aircraft,
    CameraSettings,
    CloudSettings,
    Flaring,
    Light,
    Meteor,
    Mover,
    Satellite,
    Shadow,
    SimulateSettings,
    SkySettings,
    Tumbling,
)
from warte.sky.simulate.stars import StarPainter, Stars, draw_stars, twinkle
from warte.sky.tables import Tracks, parse_utc

__all__ = [
    "Aircraft",
    "CameraSettings",
    "CloudSettings",
    "Flaring",
    "Light",
    "Meteor",
    "Mover",
    "Satellite",
    "SceneSettings",
    "Shadow",
    "SimulateSettings",
    "SkySettings",
    "Tumbling",
    "compress_h264",
    "estimate_noise",
    "inject",
    "inject_stream",
    "mover_position",
    "random_scene",
    "scene_time",
    "simulate",
    "truth_tracks",
]


@dataclass
class _Scene:
    """All that was drawn at random before the first frame, and the maps that stay the same."""

    settings: SimulateSettings
    sky: np.ndarray  # (H, W) electrons of the empty sky, before the optics
    vignette: np.ndarray  # (H, W)
    hot: np.ndarray | None  # (H, W) electrons
    shifts: np.ndarray  # (T, 2) pointing error, pixels
    clouds: Clouds | None
    stars: Stars
    star_flux: np.ndarray  # (N,) electrons
    painter: StarPainter
    unit_flux: dict[int, float]  # electrons of brightness 1 of each mover, when last seen

    @property
    def size(self) -> tuple[int, int]:
        return self.settings.width, self.settings.height


def simulate(settings: SimulateSettings, rng: np.random.Generator) -> tuple[np.ndarray, Tracks]:
    """Simulate a recording.

    Returns frames (T, H, W), uint8, uint16 or float32 by settings.camera.bits, in grey levels, and
    the truth. The truth has one observation for each frame in which the middle of a mover's light
    lies in the picture and it shines: x, y (pixels) is that middle, flux the total grey levels,
    flux_err the error of the flux of a matched filter that knows the trail in this frame, on the
    noise of sky, read-out and rounding (photons of stars and of the mover itself are not counted).
    With gamma both are scaled by the slope of the gamma curve at the sky's grey level.

    Raises SettingsError where a setting is out of range.
    """
    scene = _draw_scene(settings, rng)
    dtype = {0: np.float32, 8: np.uint8, 16: np.uint16}[settings.camera.bits]
    frames = np.empty((settings.frames, settings.height, settings.width), dtype)
    rows: list[Row] = []
    for frame in range(settings.frames):
        light = _frame_light(scene, frame, rows, rng)
        frames[frame] = expose(light, settings.camera, rng)
    start = parse_utc(settings.start_utc)
    return frames, truth_tracks(rows, settings.movers, settings.fps, start)


def _draw_scene(settings: SimulateSettings, rng: np.random.Generator) -> _Scene:
    sky, camera, size = settings.sky, settings.camera, (settings.width, settings.height)
    shifts = pointing(camera, settings.frames, rng)
    ends = (-0.5, settings.frames - 0.5)
    # The corners of the picture move smoothly, so a few dozen instants show where stars come from.
    times = scene_time(settings.playback, np.linspace(*ends, min(4 * settings.frames, 64)))
    sigma = camera.psf_sigma_px
    stars = draw_stars(sky, times, size, float(np.abs(shifts).max()) + 5 * sigma, rng)
    middle = np.array([0.0])
    loss = filter_loss(path_patch(middle, middle, np.ones(1), sigma).pixels)
    return _Scene(
        settings=settings,
        sky=sky_light(sky, size),
        vignette=vignette(camera, size),
        hot=hot_pixels(camera, size, rng),
        shifts=shifts,
        clouds=None if sky.clouds is None else draw_clouds(sky.clouds, size, rng),
        stars=stars,
        star_flux=stars.snr * pixel_noise(camera, sky.sky_e) / loss,
        painter=StarPainter(size, sigma),
        unit_flux={},
    )


def _frame_light(
    scene: _Scene, frame: int, rows: list[Row], rng: np.random.Generator
) -> np.ndarray:
    """Electrons (H, W) float32 expected in a frame; appends the truth of its movers to rows."""
    settings = scene.settings
    edges = frame + np.array([-0.5, 0.5]) * settings.camera.exposure
    start, end = scene_time(settings.playback, edges)
    shift = (float(scene.shifts[frame, 0]), float(scene.shifts[frame, 1]))
    flux = scene.star_flux * twinkle(scene.stars, settings.sky, rng)
    light = scene.painter.paint(scene.stars, settings.sky, flux, (start, end), shift)
    background = scene.sky * scene.vignette
    clear = None
    if scene.clouds is not None and settings.sky.clouds is not None:
        clear = scene.clouds.transparency(0.5 * (start + end), scene.size)
        background *= 1.0 + settings.sky.clouds.glow * (1.0 - clear)
        light *= clear
    light *= scene.vignette
    light += background
    if scene.hot is not None:
        light += scene.hot
    view = View(
        scene.size, settings.camera.exposure, settings.camera.psf_sigma_px, settings.playback
    )

    def ground(row: int, column: int) -> Ground:
        sky_e = float(background[row, column])
        return Ground(
            noise=pixel_noise(settings.camera, sky_e),
            flux_scale=float(scene.vignette[row, column]) / settings.camera.gain,
            clear=1.0 if clear is None else float(clear[row, column]),
            grey=grey_per_electron(settings.camera, sky_e),
        )

    for number in range(len(settings.movers)):
        rows += add_mover(
            light, settings.movers, number, frame, view, ground, scene.unit_flux, shift
        )
    return light
