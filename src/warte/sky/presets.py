"""Full settings of simulated recordings by name. Each function returns SimulateSettings."""

from __future__ import annotations

import numpy as np

from warte.core.errors import SettingsError
from warte.sky.simulate.scenes import random_aircraft, random_meteor, random_satellite
from warte.sky.simulate.settings import (
    Aircraft,
    CameraSettings,
    Light,
    Meteor,
    Satellite,
    SimulateSettings,
    SkySettings,
    Tumbling,
)


def demo() -> SimulateSettings:
    """Eight seconds with three satellites (bright, tumbling, and one too faint to see in any
    frame), an aircraft and a meteor, under slowly drifting stars."""
    strobe = Light(1, 2, brightness=6, period=27, flash=1.5, double=5)
    movers = (
        Satellite(frame=100, x=300, y=120, vx=2.4, vy=0.5, snr=20),
        Satellite(
            frame=100, x=330, y=330, vx=-1.6, vy=-0.9, snr=15, light=(Tumbling(45, 0.85, 2),)
        ),
        Satellite(frame=100, x=420, y=250, vx=-0.8, vy=1.1, snr=1.5),
        Aircraft(
            frame=60,
            x=150,
            y=330,
            vx=2.8,
            vy=-0.9,
            snr=14,
            lights=(Light(-3, -8), Light(3, 8), strobe),
        ),
        Meteor(frame=140, x=500, y=60, vx=-14, vy=11, duration=11, snr=100, train=0.15),
    )
    sky = SkySettings(
        sky_e=120,
        gradient_y=0.2,
        stars_per_mpx=1200,
        drift_x=0.04,
        drift_y=-0.02,
        scintillation=0.1,
        scintillation_frames=2,
    )
    camera = CameraSettings(vignetting=0.25, hot_fraction=2e-5)
    return SimulateSettings(frames=200, sky=sky, camera=camera, movers=movers)


def empty() -> SimulateSettings:
    """Stars that drift, and nothing else."""
    return SimulateSettings(sky=_quiet_sky(), camera=CameraSettings(vignetting=0.2))


def faint(
    snr: float,
    speed: float | None = None,
    *,
    rng: np.random.Generator,
    exposure: float = 1.0,
) -> SimulateSettings:
    """100 frames of 640 x 480 with one satellite of this per-frame SNR (matched filter).

    speed: pixels per frame; None draws it log-uniformly from 0.3 to 15. Its direction is random. In
    the middle of the clip it is within 20 % of the picture's size of the centre, so that it stays
    in view for long. exposure: part of the frame over which it leaves a trail (0 to 1).
    """
    if speed is None:
        speed = float(np.exp(rng.uniform(np.log(0.3), np.log(15.0))))
    if not (np.isfinite(speed) and speed >= 0):
        raise SettingsError(f"speed is {speed}; allowed is 0 or more pixels per frame")
    way = rng.uniform(0, 2 * np.pi)
    off_x, off_y = rng.uniform(-0.2, 0.2, 2)
    blank = empty()
    satellite = Satellite(
        frame=(blank.frames - 1) / 2,
        x=float((blank.width - 1) / 2 + off_x * blank.width),
        y=float((blank.height - 1) / 2 + off_y * blank.height),
        vx=float(speed * np.cos(way)),
        vy=float(speed * np.sin(way)),
        snr=snr,
    )
    camera = CameraSettings(vignetting=0.2, exposure=exposure)
    return SimulateSettings(sky=blank.sky, camera=camera, movers=(satellite,))


def kinds(rng: np.random.Generator, *, snr: float = 12.0) -> SimulateSettings:
    """150 frames of 640 x 480 with two satellites, one aircraft and two meteors at random.

    snr: of each mover's lamp, point or peak in a frame.
    """
    size, frames = (640, 480), 150
    speeds = np.exp(rng.uniform(np.log(0.5), np.log(10.0), 3))
    movers = (
        random_satellite(rng, size, frames, snr, float(speeds[0])),
        random_satellite(rng, size, frames, snr, float(speeds[1])),
        random_aircraft(rng, size, frames, snr, float(speeds[2])),
        random_meteor(rng, size, frames, 2 * snr),
        random_meteor(rng, size, frames, 2 * snr),
    )
    camera = CameraSettings(vignetting=0.2)
    return SimulateSettings(frames=frames, sky=_quiet_sky(), camera=camera, movers=movers)


def codec() -> SimulateSettings:
    """A clip as web sites show them, to be compressed with compress_h264(crf=23): hardly any noise,
    twinkling stars, gamma, a jolt now and then, and playback that runs up to 64 times faster."""
    movers = (
        Satellite(frame=0, x=740, y=150, vx=0.0, vy=-0.09, snr=40),
        Satellite(frame=150, x=200, y=100, vx=0.25, vy=0.2, snr=15),
        Satellite(frame=265, x=600, y=300, vx=-0.15, vy=0.1, snr=30),
        Meteor(frame=60, x=300, y=300, vx=18, vy=11, duration=4, snr=100),
    )
    sky = SkySettings(
        sky_e=400,
        gradient_y=0.3,
        stars_per_mpx=1500,
        drift_x=0.003,
        drift_y=-0.002,
        scintillation=0.25,
        scintillation_frames=2,
    )
    camera = CameraSettings(
        gain=0.03, bias=3, gamma=1.8, vignetting=0.4, jitter_px=0.02, jolt_rate=0.005, jolt_px=1
    )
    ramps = ((100.0, 1.0), (108.0, 4.0), (240.0, 4.0), (250.0, 64.0))
    return SimulateSettings(
        frames=300, width=854, height=480, sky=sky, camera=camera, movers=movers, playback=ramps
    )


def _quiet_sky() -> SkySettings:
    return SkySettings(
        gradient_y=0.1,
        drift_x=0.03,
        drift_y=0.01,
        scintillation=0.1,
        scintillation_frames=2,
    )
