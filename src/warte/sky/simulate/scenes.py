"""Random scenes: what a network learns from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from warte.core.errors import SettingsError
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


@dataclass(frozen=True)
class SceneSettings:
    """How hard and how varied random scenes are. Chances are between 0 and 1."""

    frames: int = 24  # length (frames)
    width: int = 160  # size (pixels)
    height: int = 128  # size (pixels)
    fps: float = 25.0  # frames per second
    max_movers: int = 5  # a scene has 0 to this many movers
    snr_low: float = 1.0  # faintest mover (matched-filter SNR in a frame)
    snr_high: float = 50.0  # brightest mover (same unit), log-uniform between
    speed_low: float = 0.05  # slowest satellite or aircraft (pixels per frame)
    speed_high: float = 30.0  # fastest satellite (pixels per frame), log-uniform between
    satellites: float = 0.6  # share of satellites among movers (fraction)
    aircraft: float = 0.2  # share of aircraft among movers; the rest are meteors (fraction)
    cloud_chance: float = 0.2  # scenes with clouds
    ramp_chance: float = 0.15  # scenes whose playback speeds up
    shake_chance: float = 0.4  # scenes with a shaking camera
    drift_chance: float = 0.7  # scenes whose stars drift
    gamma_chance: float = 0.2  # scenes of a camera with gamma
    quiet_chance: float = 0.0  # scenes with next to no noise, as web sites show them (8 bit)
    blink_chance: float = 0.0  # satellites that shine in one frame of two to six
    bits: int = 8  # bits of a pixel: 8, 16 or 0 (float32)

    def __post_init__(self) -> None:
        if not 0 < self.snr_low <= self.snr_high:
            raise SettingsError(f"snr_low {self.snr_low} must be in 0 to snr_high {self.snr_high}")
        if not 0 < self.speed_low <= self.speed_high:
            raise SettingsError(
                f"speed_low {self.speed_low} must be in 0 to speed_high {self.speed_high}"
            )
        for name in ("quiet_chance", "blink_chance"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingsError(f"{name} is {getattr(self, name)}; allowed is 0 to 1")
        if self.max_movers < 0:
            raise SettingsError(f"max_movers is {self.max_movers}; allowed is 0 or more")
        if not (self.satellites >= 0 and 0 <= self.aircraft <= 1 - self.satellites):
            raise SettingsError(
                f"satellites {self.satellites} and aircraft {self.aircraft} are shares of 1"
            )


def random_scene(
    rng: np.random.Generator, settings: SceneSettings | None = None
) -> SimulateSettings:
    """A random realistic scene: camera, sky, clouds, shake, playback and movers of all kinds."""
    scene = settings or SceneSettings()
    playback = _random_playback(rng, scene)
    fastest = max((factor for _, factor in playback), default=1.0)
    count = int(rng.integers(0, scene.max_movers + 1))
    movers = tuple(_random_mover(rng, scene, fastest) for _ in range(count))
    sky = _random_sky(rng, scene, fastest)
    random = SimulateSettings(
        frames=scene.frames,
        width=scene.width,
        height=scene.height,
        fps=scene.fps,
        sky=sky,
        camera=_random_camera(rng, scene, sky.sky_e),
        movers=movers,
        playback=playback,
    )
    if scene.blink_chance > 0:
        random = replace(random, movers=tuple(_blinking(rng, m, scene) for m in movers))
    if scene.quiet_chance > 0 and rng.random() < scene.quiet_chance:
        random = _quiet(rng, random)
    return random


def _blinking(rng: np.random.Generator, mover: Mover, scene: SceneSettings) -> Mover:
    """Some satellites as makers of videos blink them, or as bodies that spin fast."""
    if not isinstance(mover, Satellite) or rng.random() >= scene.blink_chance:
        return mover
    blink = Tumbling(
        period=float(rng.choice([2.0, 3.0, 3.0, 4.0, rng.uniform(2, 6)])),
        depth=float(rng.choice([1.0, rng.uniform(0.7, 1.0)])),
        sharpness=_log_uniform(rng, 2, 30),
        phase=float(rng.random()),
    )
    return replace(mover, light=(*mover.light, blink))


def _quiet(rng: np.random.Generator, scene: SimulateSettings) -> SimulateSettings:
    """The scene as web sites show the sky: noise removed or averaged away by the makers, shadows
    lifted by gamma, stars that twinkle hard and hardly drift, playback that runs at any speed."""
    sky_e = _log_uniform(rng, 50, 1000)
    read_noise = _log_uniform(rng, 1, 5)
    factors = rng.choice([1.0, 1.0, 4.0, 16.0, 64.0], 2)
    playback = scene.playback
    if factors[0] != factors[1]:
        start, length = float(rng.uniform(0, scene.frames)), float(rng.uniform(5, 15))
        playback = ((start, float(factors[0])), (start + length, float(factors[1])))
    drift = _log_uniform(rng, 0.001, 0.02) / (4.0 if max(factors) > 16 else 1.0)
    way = rng.uniform(0, 2 * np.pi)
    slower = max((factor for _, factor in playback), default=1.0) ** float(rng.uniform(0.5, 1.0))
    movers = scene.movers
    if playback != scene.playback:  # keep speeds in the picture about as they were drawn
        movers = tuple(_slowed(mover, slower) for mover in movers)
    part = float(rng.uniform(0.1, 0.5))  # of a wide picture, so that light falls off less in it
    sky = replace(
        scene.sky,
        sky_e=sky_e,
        gradient_x=scene.sky.gradient_x * part,
        gradient_y=scene.sky.gradient_y * part,
        stars_per_mpx=_log_uniform(rng, 1000, 20000),
        star_limit_snr=float(rng.uniform(0.5, 2)),
        drift_x=float(drift * np.cos(way)),
        drift_y=float(drift * np.sin(way)),
        rotation_deg=0.0,
        scintillation=float(rng.uniform(0.1, 0.6)),
        scintillation_frames=float(rng.uniform(0, 4)),
    )
    camera = replace(
        scene.camera,
        psf_sigma_px=float(rng.uniform(0.6, 1.3)),
        vignetting=scene.camera.vignetting * part,
        read_noise_e=read_noise,
        gain=_log_uniform(rng, 0.25, 1.0) / float(np.sqrt(sky_e + read_noise**2)),
        bias=float(rng.uniform(2, 15)),
        gamma=float(rng.uniform(1.0, 2.2)),
        jolt_rate=0.03 if rng.random() < 0.2 else 0.0,
        jolt_px=float(rng.uniform(0.3, 2)),
    )
    return replace(scene, sky=sky, camera=camera, movers=movers, playback=playback)


def _slowed(mover: Mover, factor: float) -> Mover:
    if isinstance(mover, Meteor):
        return mover
    return replace(
        mover,
        vx=mover.vx / factor,
        vy=mover.vy / factor,
        ax=mover.ax / factor**2,
        ay=mover.ay / factor**2,
    )


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _random_sky(rng: np.random.Generator, scene: SceneSettings, fastest: float) -> SkySettings:
    drifts = rng.random() < scene.drift_chance
    speed = _log_uniform(rng, 0.003, 1.0) / fastest if drifts else 0.0
    way = rng.uniform(0, 2 * np.pi)
    turns = drifts and rng.random() < 0.3
    clouds = None
    if rng.random() < scene.cloud_chance:
        clouds = CloudSettings(
            opacity=float(rng.uniform(0.2, 1.5)),
            size_px=_log_uniform(rng, 0.2, 1.0) * max(scene.width, 20),
            vx=float(rng.normal(0, 0.5)),
            vy=float(rng.normal(0, 0.5)),
            glow=float(rng.uniform(0.0, 0.8)),
        )
    return SkySettings(
        sky_e=_log_uniform(rng, 15, 2000),
        gradient_x=float(rng.uniform(-0.3, 0.3)),
        gradient_y=float(rng.uniform(-0.3, 0.3)),
        stars_per_mpx=_log_uniform(rng, 50, 6000) if rng.random() < 0.95 else 0.0,
        star_slope=float(rng.uniform(1.0, 1.5)),
        drift_x=float(speed * np.cos(way)),
        drift_y=float(speed * np.sin(way)),
        rotation_deg=float(rng.normal(0, 0.05)) / fastest if turns else 0.0,
        rotation_x=float(rng.uniform(-0.5, 1.5) * scene.width),
        rotation_y=float(rng.uniform(-0.5, 1.5) * scene.height),
        scintillation=float(rng.uniform(0, 0.4)) if rng.random() < 0.7 else 0.0,
        scintillation_frames=float(rng.uniform(0, 6)),
        clouds=clouds,
    )


def _random_camera(rng: np.random.Generator, scene: SceneSettings, sky_e: float) -> CameraSettings:
    shakes = rng.random() < scene.shake_chance
    full = 65535.0 if scene.bits == 16 else 255.0
    read_noise = _log_uniform(rng, 1, 15)
    # The noise is 0.4 to 8 of 255 grey levels, as far as the sky then stays under 40 % of white.
    noise = full / 255.0 * _log_uniform(rng, 0.4, 8.0)
    gain = min(noise / np.sqrt(sky_e + read_noise**2), 0.4 * full / sky_e)
    return CameraSettings(
        psf_sigma_px=float(rng.uniform(0.7, 2.2)),
        exposure=float(rng.choice([1.0, 0.9, 0.5, rng.uniform(0, 1)])),
        vignetting=float(rng.uniform(0, 0.6)),
        read_noise_e=read_noise,
        gain=float(gain),
        bias=full / 255.0 * float(rng.uniform(2, 30)),
        bits=scene.bits,
        gamma=float(rng.uniform(1.2, 2.4)) if rng.random() < scene.gamma_chance else 1.0,
        hot_fraction=_log_uniform(rng, 1e-5, 1e-3) if rng.random() < 0.5 else 0.0,
        hot_e=_log_uniform(rng, 30, 1000),
        walk_px=_log_uniform(rng, 0.005, 0.1) if shakes else 0.0,
        jitter_px=_log_uniform(rng, 0.02, 0.5) if shakes else 0.0,
        jolt_rate=0.02 if shakes and rng.random() < 0.3 else 0.0,
        jolt_px=float(rng.uniform(0.5, 4)),
    )


def _random_playback(
    rng: np.random.Generator, scene: SceneSettings
) -> tuple[tuple[float, float], ...]:
    """Real time, then a ramp of 5 to 15 frames to a faster playback."""
    if rng.random() >= scene.ramp_chance:
        return ()
    start = float(rng.uniform(0, scene.frames))
    length = float(rng.uniform(5, 15))
    return ((start, 1.0), (start + length, float(rng.choice([2.0, 4.0, 16.0, 64.0]))))


def _random_mover(rng: np.random.Generator, scene: SceneSettings, fastest: float) -> Mover:
    size = scene.width, scene.height
    # Speeds are in the picture; where playback runs faster, the sky itself is mostly slower.
    slower = fastest ** float(rng.uniform(0.5, 1.0))
    snr = _log_uniform(rng, scene.snr_low, scene.snr_high)
    kind = rng.random()
    if kind < scene.satellites:
        speed = _log_uniform(rng, scene.speed_low, scene.speed_high) / slower
        return random_satellite(rng, size, scene.frames, snr, speed)
    if kind < scene.satellites + scene.aircraft:
        top = max(min(scene.speed_high, 15.0), scene.speed_low)
        low = min(max(scene.speed_low, 0.5), top)
        speed = _log_uniform(rng, low, top) / slower
        return random_aircraft(rng, size, scene.frames, snr, speed, scene.fps)
    return random_meteor(rng, size, scene.frames, snr)


def random_satellite(
    rng: np.random.Generator, size: tuple[int, int], frames: int, snr: float, speed: float
) -> Satellite:
    """A satellite of this SNR and speed (pixels per frame) that is in the picture in some random
    frame; half of them steady, the others tumbling, flaring or crossing the Earth's shadow."""
    way = rng.uniform(0, 2 * np.pi)
    bend = rng.normal(0, 0.0005) * speed  # across the path: what a wide lens and an orbit do
    return Satellite(
        frame=float(rng.uniform(0, frames - 1)),
        x=float(rng.uniform(0, size[0] - 1)),
        y=float(rng.uniform(0, size[1] - 1)),
        vx=float(speed * np.cos(way)),
        vy=float(speed * np.sin(way)),
        ax=float(-bend * np.sin(way)),
        ay=float(bend * np.cos(way)),
        snr=snr,
        light=_random_light(rng, frames),
    )


def _random_light(rng: np.random.Generator, frames: int) -> tuple[Tumbling | Flaring | Shadow, ...]:
    kind = rng.random()
    if kind < 0.5:
        return ()
    if kind < 0.75:
        period = _log_uniform(rng, 8, 200)
        sharp = _log_uniform(rng, 0.7, 8)
        depth, phase = float(rng.uniform(0.2, 1.0)), float(rng.random())
        return (Tumbling(period=period, depth=depth, sharpness=sharp, phase=phase),)
    frame = float(rng.uniform(0, frames))
    if kind < 0.9:
        height = _log_uniform(rng, 0.5, 10)
        return (Flaring(frame=frame, width=_log_uniform(rng, 1, 15), height=height),)
    fade = _log_uniform(rng, 3, 40)
    return (Shadow(frame=frame, fade=fade, leaving=bool(rng.random() < 0.5)),)


def random_aircraft(
    rng: np.random.Generator,
    size: tuple[int, int],
    frames: int,
    snr: float,
    speed: float,
    fps: float = 25.0,
) -> Aircraft:
    """An aircraft of 2 to 4 lamps, 3 to 40 pixels across: steady lights on the wing tips and
    strobes that flash every 0.8 to 1.5 seconds, half of them twice."""
    way = rng.uniform(0, 2 * np.pi)
    along = np.array([np.cos(way), np.sin(way)])
    across = np.array([-along[1], along[0]])
    span = _log_uniform(rng, 3, 40) * float(rng.uniform(0.5, 1.0))
    tip_x, tip_y = (0.5 * span * across).tolist()
    nose_x, nose_y = (0.5 * span * along).tolist()
    lamps = [
        Light(tip_x, tip_y),
        Light(-tip_x, -tip_y, brightness=_log_uniform(rng, 0.5, 1)),
    ]
    if rng.random() < 0.5:
        lamps.append(Light(-nose_x, -nose_y, brightness=_log_uniform(rng, 0.4, 1)))
    place = float(rng.uniform(-0.6, 0.6))
    strobe = Light(
        place * nose_x,
        place * nose_y,
        brightness=_log_uniform(rng, 3, 12),
        period=float(rng.uniform(0.8, 1.5)) * fps,
        flash=float(rng.uniform(0.03, 0.08)) * fps,
        double=float(rng.uniform(0.12, 0.25)) * fps if rng.random() < 0.5 else 0.0,
        phase=float(rng.random()),
    )
    return Aircraft(
        frame=float(rng.uniform(0, frames - 1)),
        x=float(rng.uniform(0, size[0] - 1)),
        y=float(rng.uniform(0, size[1] - 1)),
        vx=float(speed * along[0]),
        vy=float(speed * along[1]),
        snr=snr,
        lights=(*lamps, strobe),
    )


def random_meteor(
    rng: np.random.Generator, size: tuple[int, int], frames: int, snr: float
) -> Meteor:
    """A meteor of 2 to 20 frames and 5 to 60 pixels per frame whose middle lies in the picture."""
    duration = _log_uniform(rng, 2, 20)
    speed = _log_uniform(rng, 5, 60)
    way = rng.uniform(0, 2 * np.pi)
    deceleration = float(rng.uniform(0, 0.5)) / duration
    half = 0.5 * duration
    reach = speed * (half - 0.5 * deceleration * half**2)
    middle_x, middle_y = rng.uniform(0, size[0] - 1), rng.uniform(0, size[1] - 1)
    latest = max(frames - 1 - half, 0.5)
    return Meteor(
        frame=float(rng.uniform(min(-half, latest), latest)),
        x=float(middle_x - reach * np.cos(way)),
        y=float(middle_y - reach * np.sin(way)),
        vx=float(speed * np.cos(way)),
        vy=float(speed * np.sin(way)),
        duration=duration,
        deceleration=deceleration,
        peak=float(rng.uniform(0.45, 0.85)),
        snr=snr,
        train=float(rng.uniform(0.05, 0.4)) if rng.random() < 0.3 else 0.0,
        train_frames=_log_uniform(rng, 2, 20),
    )
