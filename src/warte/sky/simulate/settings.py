"""What can be set in a simulated recording. Every length is in pixels, every time in frames.

Positions are pixel centres counted from 0: x to the right, y down. A time `f` in frames is
the middle of the exposure of frame `f`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from math import isfinite

from warte.core.errors import SettingsError
from warte.sky.tables import parse_utc


def _within(name: str, value: float, low: float, high: float) -> None:
    if not (isfinite(value) and low <= value <= high):
        raise SettingsError(f"{name} is {value}; allowed is {low:g} to {high:g}: change {name}")


@dataclass(frozen=True)
class CloudSettings:
    """Smooth clouds that drift through the picture, dim what is behind them and glow."""

    opacity: float = 1.0  # typical optical depth of a thick part (dimensionless)
    size_px: float = 120.0  # size of a cloud (pixels)
    vx: float = 0.5  # speed to the right (pixels per frame)
    vy: float = 0.1  # speed down (pixels per frame)
    glow: float = 0.3  # extra sky light of an opaque cloud (fraction of the sky level)

    def __post_init__(self) -> None:
        _within("clouds.opacity", self.opacity, 0, 20)
        _within("clouds.size_px", self.size_px, 4, 1e5)
        _within("clouds.glow", self.glow, 0, 100)


@dataclass(frozen=True)
class SkySettings:
    """The sky: its light, its stars and how they move together."""

    sky_e: float = 100.0  # light of the empty sky (electrons per pixel and frame)
    gradient_x: float = 0.0  # change of that light from left to right (fraction)
    gradient_y: float = 0.0  # change of that light from top to bottom (fraction)
    stars_per_mpx: float = 800.0  # stars down to star_limit_snr (per million pixels)
    star_limit_snr: float = 1.0  # brightness of the faintest star (matched-filter SNR per frame)
    star_brightest_snr: float = 3000.0  # no star is brighter than this (same unit)
    star_slope: float = 1.2  # a in N(>F) ~ F^-a (dimensionless; see stars.draw_stars)
    drift_x: float = 0.0  # motion of the stars to the right (pixels per frame)
    drift_y: float = 0.0  # motion of the stars down (pixels per frame)
    rotation_deg: float = 0.0  # field rotation, from x towards y (degrees per frame)
    rotation_x: float | None = None  # centre of the rotation (pixels; None: middle of the picture)
    rotation_y: float | None = None  # centre of the rotation (pixels; None: middle of the picture)
    scale_change: float = 0.0  # growth of the picture about that centre (fraction per frame)
    scintillation: float = 0.0  # twinkle of each star (relative standard deviation)
    scintillation_frames: float = 1.0  # correlation time of the twinkle (frames)
    clouds: CloudSettings | None = None  # moving clouds (None: a clear sky)

    def __post_init__(self) -> None:
        _within("sky.sky_e", self.sky_e, 0, 1e7)
        _within("sky.gradient_x", self.gradient_x, -1, 1)
        _within("sky.gradient_y", self.gradient_y, -1, 1)
        _within("sky.stars_per_mpx", self.stars_per_mpx, 0, 1e5)
        _within("sky.star_limit_snr", self.star_limit_snr, 1e-3, 1e6)
        _within("sky.star_brightest_snr", self.star_brightest_snr, self.star_limit_snr, 1e7)
        _within("sky.star_slope", self.star_slope, 0.1, 10)
        _within("sky.drift_x", self.drift_x, -1e3, 1e3)
        _within("sky.drift_y", self.drift_y, -1e3, 1e3)
        _within("sky.rotation_deg", self.rotation_deg, -45, 45)
        _within("sky.scale_change", self.scale_change, -0.1, 0.1)
        _within("sky.scintillation", self.scintillation, 0, 2)
        _within("sky.scintillation_frames", self.scintillation_frames, 0, 1e4)


@dataclass(frozen=True)
class CameraSettings:
    """The camera: optics, sensor, and how it stands."""

    psf_sigma_px: float = 1.2  # width of a point of light (Gaussian sigma, pixels)
    exposure: float = 1.0  # part of a frame in which the shutter is open (0: an instant, 0 to 1)
    vignetting: float = 0.0  # loss of light in the corners (fraction)
    read_noise_e: float = 3.0  # read noise (electrons)
    gain: float = 0.2  # grey levels per electron, before gamma
    bias: float = 10.0  # grey level of darkness, before gamma
    bits: int = 8  # bits of a pixel: 8 or 16; 0: float32, neither rounded nor clipped
    gamma: float = 1.0  # out = white * (in / white) ** (1 / gamma); 1: linear
    photon_noise: bool = True  # False: the light arrives without shot noise
    hot_fraction: float = 0.0  # part of the pixels that are hot (fraction)
    hot_e: float = 200.0  # mean signal of a hot pixel (electrons per frame)
    walk_px: float = 0.0  # random walk of the pointing (pixels per frame, each axis)
    jitter_px: float = 0.0  # independent jitter of the pointing (pixels, each axis)
    jolt_rate: float = 0.0  # chance of a jolt (per frame)
    jolt_px: float = 5.0  # size of a jolt, which rings down in a few frames (pixels, each axis)

    def __post_init__(self) -> None:
        _within("camera.psf_sigma_px", self.psf_sigma_px, 0.3, 20)
        _within("camera.exposure", self.exposure, 0, 1)
        _within("camera.vignetting", self.vignetting, 0, 0.95)
        _within("camera.read_noise_e", self.read_noise_e, 0, 1e5)
        _within("camera.gain", self.gain, 1e-6, 1e6)
        _within("camera.bias", self.bias, 0, 6e4)
        _within("camera.gamma", self.gamma, 0.2, 5)
        _within("camera.hot_fraction", self.hot_fraction, 0, 0.5)
        _within("camera.jolt_rate", self.jolt_rate, 0, 1)
        for name in ("hot_e", "walk_px", "jitter_px", "jolt_px"):
            _within(f"camera.{name}", getattr(self, name), 0, 1e6)
        if self.bits not in (0, 8, 16):
            raise SettingsError(f"camera.bits is {self.bits}; allowed are 8, 16 and 0 (float)")

    @property
    def white(self) -> float:
        """Grey level at which the camera is full."""
        return 65535.0 if self.bits == 16 else 255.0


@dataclass(frozen=True)
class Tumbling:
    """Brightness that swings as a body turns: 1 at the peaks, 1 - depth between them."""

    period: float = 40.0  # time from peak to peak (frames)
    depth: float = 0.8  # loss between the peaks (fraction)
    sharpness: float = 2.0  # 1: a cosine; more: narrower peaks (dimensionless)
    phase: float = 0.0  # place in the period at frame 0 (0 to 1)

    def __post_init__(self) -> None:
        _within("light.period", self.period, 0.1, 1e6)
        _within("light.depth", self.depth, 0, 1)
        _within("light.sharpness", self.sharpness, 0.1, 1e3)


@dataclass(frozen=True)
class Flaring:
    """Steady brightness 1 with one Gaussian flare on top."""

    frame: float = 50.0  # time of the peak (frames)
    width: float = 5.0  # Gaussian sigma of the flare (frames)
    height: float = 5.0  # extra brightness at the peak (times the steady brightness)

    def __post_init__(self) -> None:
        _within("light.width", self.width, 1e-3, 1e6)
        _within("light.height", self.height, 0, 1e6)


@dataclass(frozen=True)
class Shadow:
    """The Earth's shadow: brightness falls smoothly from 1 to 0 (or rises, when leaving it)."""

    frame: float = 50.0  # middle of the change (frames)
    fade: float = 10.0  # length of the change (frames)
    leaving: bool = False  # True: the body comes out of the shadow

    def __post_init__(self) -> None:
        _within("light.fade", self.fade, 1e-3, 1e6)


@dataclass(frozen=True)
class Satellite:
    """A point that moves steadily. With no light curve its brightness is constant."""

    frame: float = 50.0  # time at which it is at (x, y) (frames)
    x: float = 320.0  # place at that time (pixels)
    y: float = 240.0  # place at that time (pixels)
    vx: float = 2.0  # velocity then (pixels per frame)
    vy: float = 0.0  # velocity then (pixels per frame)
    ax: float = 0.0  # curvature of the path (pixels per frame squared)
    ay: float = 0.0  # curvature of the path (pixels per frame squared)
    snr: float = 10.0  # brightness (matched-filter SNR in a frame, at light curve 1)
    flux: float | None = None  # brightness instead of snr (grey levels before gamma, mid-picture)
    light: tuple[Tumbling | Flaring | Shadow, ...] = ()  # light curves, multiplied

    def __post_init__(self) -> None:
        _check_mover(self)


@dataclass(frozen=True)
class Light:
    """One lamp of an aircraft."""

    dx: float = 0.0  # place relative to the aircraft (pixels)
    dy: float = 0.0  # place relative to the aircraft (pixels)
    brightness: float = 1.0  # while it is on (times the aircraft's snr or flux)
    period: float = 0.0  # time between flashes (frames; 0: always on)
    flash: float = 1.5  # length of a flash (frames)
    double: float = 0.0  # time from a flash to its twin (frames; 0: single flashes)
    phase: float = 0.0  # place in the period at frame 0 (0 to 1)

    def __post_init__(self) -> None:
        _within("light.brightness", self.brightness, 0, 1e6)
        _within("light.period", self.period, 0, 1e6)
        if self.period > 0:
            _within("light.flash", self.flash, 1e-3, self.period)
            _within("light.double", self.double, 0, self.period - self.flash)


@dataclass(frozen=True)
class Aircraft:
    """Lamps that move together; strobes flash once or twice every second or so."""

    frame: float = 50.0  # time at which it is at (x, y) (frames)
    x: float = 320.0  # place at that time (pixels)
    y: float = 240.0  # place at that time (pixels)
    vx: float = 3.0  # velocity then (pixels per frame)
    vy: float = 0.0  # velocity then (pixels per frame)
    ax: float = 0.0  # curvature of the path (pixels per frame squared)
    ay: float = 0.0  # curvature of the path (pixels per frame squared)
    snr: float = 10.0  # brightness of a lamp of brightness 1 (matched-filter SNR in a frame)
    flux: float | None = None  # the same instead of snr (grey levels before gamma, mid-picture)
    lights: tuple[Light, ...] = (
        Light(-6, 0),
        Light(6, 0),
        Light(0, 2, brightness=6, period=25, flash=1.5, double=5),
    )  # its lamps

    def __post_init__(self) -> None:
        _check_mover(self)
        if not self.lights:
            raise SettingsError("aircraft.lights is empty; give at least one Light")


@dataclass(frozen=True)
class Meteor:
    """A fast streak of a few frames that brightens slowly, fades quickly and slows down."""

    frame: float = 50.0  # time at which it appears (frames)
    x: float = 320.0  # place at that time (pixels)
    y: float = 240.0  # place at that time (pixels)
    vx: float = 20.0  # velocity then (pixels per frame)
    vy: float = 8.0  # velocity then (pixels per frame)
    duration: float = 8.0  # time from appearing to vanishing (frames)
    deceleration: float = 0.02  # loss of speed (fraction of the first speed per frame)
    peak: float = 0.65  # place of the greatest brightness (fraction of the duration)
    snr: float = 20.0  # brightness at the peak (matched-filter SNR in a frame)
    flux: float | None = None  # the same instead of snr (grey levels before gamma, mid-picture)
    train: float = 0.0  # light that stays along the path (fraction of the light spent there)
    train_frames: float = 10.0  # time in which the train fades by a factor e (frames)

    def __post_init__(self) -> None:
        _check_mover(self)
        _within("meteor.duration", self.duration, 0.5, 1e4)
        _within("meteor.deceleration", self.deceleration, 0, 1 / self.duration)
        _within("meteor.peak", self.peak, 0.05, 0.95)
        _within("meteor.train", self.train, 0, 1)
        _within("meteor.train_frames", self.train_frames, 0.1, 1e4)


Mover = Satellite | Aircraft | Meteor


def _check_mover(mover: Mover) -> None:
    kind = type(mover).__name__.lower()
    for name in ("frame", "x", "y", "vx", "vy", "ax", "ay"):
        if hasattr(mover, name):
            _within(f"{kind}.{name}", getattr(mover, name), -1e7, 1e7)
    _within(f"{kind}.snr", mover.snr, 0, 1e7)
    if mover.flux is not None:
        _within(f"{kind}.flux", mover.flux, 0, 1e12)


@dataclass(frozen=True)
class SimulateSettings:
    """A whole simulated recording."""

    frames: int = 100  # length (frames)
    width: int = 640  # size (pixels)
    height: int = 480  # size (pixels)
    fps: float = 25.0  # frames per second
    start_utc: str = "2024-08-12T22:00:00.000000Z"  # start of frame 0 (ISO 8601; "": unknown)
    sky: SkySettings = field(default_factory=SkySettings)  # the sky and its stars
    camera: CameraSettings = field(default_factory=CameraSettings)  # optics and sensor
    movers: tuple[Mover, ...] = ()  # satellites, aircraft, meteors
    # (frame, factor) knots of the playback speed, straight lines between them: 1 is real time,
    # 64 runs everything in the sky 64 times as fast. Empty: real time throughout.
    playback: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        _within("frames", self.frames, 1, 10_000_000)
        _within("width", self.width, 8, 20_000)
        _within("height", self.height, 8, 20_000)
        _within("fps", self.fps, 1e-3, 1e5)
        try:
            parse_utc(self.start_utc)
        except ValueError:
            raise SettingsError(
                f"start_utc is {self.start_utc!r}; allowed is ISO 8601, as 2024-08-12T22:00:00Z"
            ) from None
        knots = [frame for frame, _ in self.playback]
        if any(b <= a for a, b in pairwise(knots)):
            raise SettingsError(f"playback has frames {knots}; they must increase: sort them")
        for _, factor in self.playback:
            _within("playback factor", factor, 0, 1e4)
        camera = self.camera
        quiet = camera.bits == 0 and camera.read_noise_e == 0
        if self.movers and quiet and (self.sky.sky_e == 0 or not camera.photon_noise):
            raise SettingsError(
                "the camera has no noise, so movers have no SNR: raise camera.read_noise_e above 0"
            )
