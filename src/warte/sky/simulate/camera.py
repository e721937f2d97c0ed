"""What the air and the camera do to light: clouds, vignetting, pointing, noise, grey levels.

Light is counted in electrons per pixel and frame; a grey level is
white * ((bias + gain * electrons) / white) ** (1 / gamma).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter

from warte.sky.simulate.settings import CameraSettings, CloudSettings, SkySettings

EXACT_BELOW_E = 20.0  # under this many electrons Poisson noise is drawn exactly, not as a Gaussian
CELLS = 4  # grid cells of the cloud map per cloud size


def vignette(camera: CameraSettings, size: tuple[int, int]) -> np.ndarray:
    """Share of the light that arrives, (H, W) float32: 1 in the middle, 1 - vignetting in the
    corners, falling with the square of the distance."""
    x, y = _axes(size)
    square = 0.5 * (x[None, :] ** 2 + y[:, None] ** 2)
    return (1.0 - camera.vignetting * square).astype(np.float32)


def sky_light(sky: SkySettings, size: tuple[int, int]) -> np.ndarray:
    """Light of the empty sky before the optics, (H, W) float32 electrons."""
    x, y = _axes(size)
    slope = 1.0 + 0.5 * (sky.gradient_x * x[None, :] + sky.gradient_y * y[:, None])
    return (sky.sky_e * np.maximum(slope, 0.0)).astype(np.float32)


def _axes(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    return np.linspace(-1.0, 1.0, size[0]), np.linspace(-1.0, 1.0, size[1])


def hot_pixels(
    camera: CameraSettings, size: tuple[int, int], rng: np.random.Generator
) -> np.ndarray | None:
    """Signal of the hot pixels, (H, W) float32 electrons, exponentially distributed, or None."""
    if camera.hot_fraction == 0:
        return None
    hot = rng.random((size[1], size[0]), dtype=np.float32) < camera.hot_fraction
    signal = rng.exponential(camera.hot_e, int(hot.sum()))
    picture = np.zeros(hot.shape, np.float32)
    picture[hot] = signal
    return picture


def pointing(camera: CameraSettings, frames: int, rng: np.random.Generator) -> np.ndarray:
    """Pointing error in each frame, (T, 2) pixels x, y: walk from 0, jitter, and jolts, which
    ring down as a cosine of period 4 frames inside an exponential of 3 frames."""
    steps = rng.standard_normal((frames, 2)) * camera.walk_px
    steps[0] = 0.0
    shift = np.cumsum(steps, axis=0) + rng.standard_normal((frames, 2)) * camera.jitter_px
    jolts = (rng.random(frames) < camera.jolt_rate)[:, None]
    kicks = jolts * rng.standard_normal((frames, 2)) * camera.jolt_px
    after = np.arange(min(frames, 20))
    ring = np.cos(np.pi * after / 2) * np.exp(-after / 3.0)
    for axis in range(2):
        shift[:, axis] += np.convolve(kicks[:, axis], ring)[:frames]
    return shift


@dataclass(frozen=True)
class Clouds:
    """A periodic map of optical depth (grid cells of size_px / CELLS) that the wind moves."""

    settings: CloudSettings
    depth: np.ndarray

    def transparency(self, time: float, size: tuple[int, int]) -> np.ndarray:
        """Share of the light that comes through at a scene time (frames), (H, W) float32."""
        cell = self.settings.size_px / CELLS
        move = np.array(
            [
                [1 / cell, 0.0, -self.settings.vx * time / cell % self.depth.shape[1]],
                [0.0, 1 / cell, -self.settings.vy * time / cell % self.depth.shape[0]],
            ]
        )
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        depth = cv2.warpAffine(self.depth, move, size, flags=flags, borderMode=cv2.BORDER_WRAP)
        return np.exp(-depth)


def draw_clouds(settings: CloudSettings, size: tuple[int, int], rng: np.random.Generator) -> Clouds:
    """Random clouds: smooth Gaussian noise, of which the positive half is cloud."""
    cells = [int(np.ceil(n / settings.size_px * CELLS)) + 4 * CELLS for n in (size[1], size[0])]
    noise = gaussian_filter(rng.standard_normal(cells), CELLS / 2, mode="wrap")
    depth = settings.opacity * np.maximum(noise / max(float(noise.std()), 1e-12), 0.0)
    return Clouds(settings, depth.astype(np.float32))


def pixel_noise(camera: CameraSettings, light_e: float) -> float:
    """Noise (electrons) of a pixel under light_e electrons: photons, read-out and rounding."""
    photons = light_e if camera.photon_noise else 0.0
    rounding = 0.0 if camera.bits == 0 else 1.0 / 12.0 / grey_per_electron(camera, light_e) ** 2
    return float(np.sqrt(photons + camera.read_noise_e**2 + rounding))


def grey_per_electron(camera: CameraSettings, light_e: float) -> float:
    """Slope of the grey level at light_e electrons (grey levels per electron)."""
    linear = max((camera.bias + camera.gain * light_e) / camera.white, 1e-4)
    return float(camera.gain / camera.gamma * linear ** (1.0 / camera.gamma - 1.0))


def expose(light_e: np.ndarray, camera: CameraSettings, rng: np.random.Generator) -> np.ndarray:
    """Read a frame out: light_e (H, W) float32 electrons becomes grey levels of the camera's type.

    Photon noise is Gaussian of variance light_e above EXACT_BELOW_E electrons, Poisson below.
    """
    out = rng.standard_normal(light_e.shape, dtype=np.float32)
    if camera.photon_noise:
        dim = light_e < EXACT_BELOW_E
        if dim.any():
            photons = rng.poisson(light_e[dim]) + camera.read_noise_e * out[dim]
        out *= np.sqrt(light_e + np.float32(camera.read_noise_e**2))
        out += light_e
        if dim.any():
            out[dim] = photons
    else:
        out *= np.float32(camera.read_noise_e)
        out += light_e
    out *= np.float32(camera.gain)
    out += np.float32(camera.bias)
    return to_grey(out, camera)


def to_grey(linear: np.ndarray, camera: CameraSettings) -> np.ndarray:
    """Apply gamma, rounding and clipping to linear grey levels (overwrites its argument)."""
    if camera.gamma != 1.0:
        white = np.float32(camera.white)
        np.maximum(linear, 0, out=linear)
        linear /= white
        np.power(linear, np.float32(1.0 / camera.gamma), out=linear)
        linear *= white
    if camera.bits == 0:
        return linear
    np.rint(linear, out=linear)
    np.clip(linear, 0, camera.white, out=linear)
    return linear.astype(np.uint8 if camera.bits == 8 else np.uint16)
