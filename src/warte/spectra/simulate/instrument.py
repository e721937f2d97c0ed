"""The telescope's side of a spectrum: pixels, resolution, noise, sky lines, gaps.

The curves are medians over public SDSS spectra of the first spectrograph (3800 to 9200 Angstrom).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from warte.spectra.simulate.settings import SimulateSettings
from warte.spectra.spectrum import C_KM_S, FloatArray, vacuum_from_air

STEP = 1e-4  # log10 of the wavelength per pixel
FIRST, PIXELS = 3.5791, 3855
# (P,) log10 of the observed vacuum wavelength, Angstrom
LOGLAM = np.asarray(FIRST + STEP * np.arange(PIXELS), dtype=np.float64)
WAVELENGTH = 10**LOGLAM  # (P,) Angstrom
EDGES = 10 ** (FIRST + STEP * (np.arange(PIXELS + 1) - 0.5))  # (P + 1,) Angstrom

# Knots of the curves: log10 wavelength, sigma of the instrument's profile in km/s, and the noise
# of the empty sky in 1e-17 erg/s/cm2/Angstrom. The two arms meet near 6000 Angstrom (3.775).
_KNOTS = np.array(
    [
        (3.579, 80.0, 2.60), (3.600, 70.0, 1.65), (3.620, 65.0, 1.30), (3.650, 58.0, 1.02),
        (3.700, 57.0, 0.84), (3.750, 62.0, 0.80), (3.768, 65.0, 0.95), (3.780, 65.0, 0.90),
        (3.800, 65.0, 0.66), (3.850, 58.0, 0.52), (3.900, 53.0, 0.66), (3.930, 51.0, 0.88),
        (3.950, 50.0, 1.15), (3.965, 50.0, 1.30),
    ]
)  # fmt: skip
RESOLUTION_KM_S = np.interp(LOGLAM, _KNOTS[:, 0], _KNOTS[:, 1])  # (P,) sigma, km/s
# (P,) sigma of the profile as it is recorded, in pixels of finite width: what files state
RECORDED_KM_S = np.hypot(RESOLUTION_KM_S, C_KM_S * STEP * np.log(10) / np.sqrt(12))

# Night-sky lines, air Angstrom, and how much each raises the noise at its peak. Wavelengths after
# Osterbrock et al. 1996, PASP 108, 277.
_SKY_LINES = np.array(
    [
        (4358.3, 0.6), (5460.7, 0.4), (5577.3, 5.0), (5889.9, 0.8), (5895.9, 0.6), (6300.3, 1.8),
        (6363.8, 0.8), (6498.7, 0.3), (6533.0, 0.3), (6553.6, 0.3), (6834.0, 0.4), (6863.9, 0.6),
        (6923.2, 0.5), (7244.9, 0.5), (7276.4, 0.9), (7284.4, 0.5), (7316.3, 0.9), (7329.1, 0.4),
        (7340.9, 1.0), (7369.3, 0.7), (7402.0, 0.5), (7524.1, 0.7), (7571.7, 0.6), (7712.1, 0.5),
        (7715.0, 0.6), (7750.6, 1.0), (7759.9, 0.6), (7780.4, 0.5), (7794.1, 1.2), (7808.5, 0.7),
        (7821.5, 1.1), (7841.3, 0.8), (7853.2, 1.0), (7869.8, 0.5), (7891.0, 0.5), (7913.7, 1.3),
        (7921.0, 0.8), (7949.2, 0.8), (7964.7, 1.4), (7993.3, 1.3), (8025.8, 1.0), (8062.1, 0.5),
        (8288.6, 0.8), (8298.4, 0.7), (8344.6, 1.4), (8352.8, 0.9), (8382.4, 0.9), (8399.2, 1.6),
        (8415.2, 0.9), (8430.2, 1.6), (8452.3, 1.3), (8465.4, 1.4), (8493.4, 1.1), (8504.6, 1.2),
        (8538.7, 0.6), (8548.7, 0.5), (8761.3, 0.8), (8767.9, 0.9), (8778.3, 1.1), (8791.2, 0.9),
        (8827.1, 1.4), (8836.0, 1.1), (8850.4, 1.0), (8867.6, 1.3), (8885.9, 1.4), (8903.1, 1.1),
        (8919.6, 1.2), (8943.4, 1.0), (8958.1, 1.1), (8988.4, 0.9), (9001.3, 0.8), (9038.2, 0.6),
        (9049.2, 0.6),
    ]
)  # fmt: skip
LONGEST_GAP = 200  # pixels
STRONG_LINE = 0.75  # sky lines that raise the noise by more leave residuals

PHOTON_GAIN = 0.022  # variance per flux at the most sensitive wavelengths, 1e-17 erg/s/cm2/A
FLAT_ERROR = 0.012  # noise that grows with the flux: calibration from pixel to pixel


@lru_cache(maxsize=1)
def sky_noise() -> tuple[FloatArray, FloatArray, npt.NDArray[np.bool_]]:
    """The empty sky: noise (P,), variance per unit of flux (P,), pixels on strong lines (P,)."""
    floor = np.exp(np.interp(LOGLAM, _KNOTS[:, 0], np.log(_KNOTS[:, 2])))
    rise = np.zeros(PIXELS)
    for centre, height in zip(vacuum_from_air(_SKY_LINES[:, 0]), _SKY_LINES[:, 1], strict=True):
        offset = (LOGLAM - np.log10(centre)) / STEP
        rise += height * np.exp(-0.5 * (offset / 1.3) ** 2)
    # Less throughput costs photons of the sky and of the galaxy alike.
    gain = PHOTON_GAIN * floor / floor.min()
    return floor * (1 + rise), gain, rise > STRONG_LINE


def pixel_of(wavelength: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Index of the nearest pixel, which may lie off the grid; wavelength in Angstrom, observed."""
    return np.rint((np.log10(wavelength) - FIRST) / STEP).astype(np.int64)


def level_near(
    flux: npt.NDArray[np.float32], row: npt.NDArray[np.int64], wavelength: FloatArray
) -> FloatArray:
    """(M,) median of spectra (N, P) within 2500 km/s of some wavelengths; NaN off the grid.

    row: (M,) which spectrum. wavelength: (M,) observed, Angstrom. Narrow absorption, such as that
    of the stars under a Balmer line, hardly counts.
    """
    pixel = pixel_of(wavelength)
    near = np.clip(pixel[:, None] + np.arange(-36, 37, 6), 0, PIXELS - 1)
    inside = (pixel >= 0) & (pixel < PIXELS)
    return np.where(inside, np.median(flux[row[:, None], near], axis=1), np.nan)


def flux_level(shape: npt.NDArray[np.float32], snr: FloatArray) -> FloatArray:
    """(N,) factors that give spectra of these shapes (N, P) the wanted median S/N per pixel.

    A few steps of a fixed point on every 16th pixel; the noise is that of `noise_sigma`.
    """
    noise, gain, _ = sky_noise()
    part = np.s_[8::16]
    thin = np.maximum(np.asarray(shape[:, part], dtype=np.float64), 0)
    level = np.full(len(thin), 10.0) / np.median(thin, axis=1)
    for _ in range(12):
        flux = level[:, None] * thin
        sigma = np.sqrt(noise[part] ** 2 + gain[part] * flux + (FLAT_ERROR * flux) ** 2)
        level *= (snr / np.median(flux / sigma, axis=1)) ** 1.2
    return level


def noise_sigma(flux: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(N, P) noise of clean spectra (N, P): sky, photons of the object, flat field."""
    noise, gain, _ = sky_noise()
    light = np.maximum(flux, 0)
    variance = (FLAT_ERROR**2 * light + gain.astype(np.float32)) * light
    variance += (noise**2).astype(np.float32)
    return np.sqrt(variance)


def observe(
    clean: npt.NDArray[np.float32], settings: SimulateSettings, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Flux and inverse variance (N, P) with noise; missing pixels are NaN and 0."""
    sigma = noise_sigma(clean)
    noise = _correlated(rng.standard_normal(clean.shape, dtype=np.float32), settings.correlation)
    _, _, strong = sky_noise()
    places = np.flatnonzero(strong)
    low, high = settings.sky_residual
    size = (low + (high - low) * rng.random((len(clean), 1)) ** 3).astype(np.float32)
    noise[:, places] += size * rng.standard_normal((len(clean), len(places)), dtype=np.float32)
    _add_cosmics(noise, settings.cosmics, rng)
    flux = clean + np.float32(settings.noise) * sigma * noise
    stated = rng.uniform(1 - settings.ivar_error, 1 + settings.ivar_error, (len(clean), 1))
    ivar = stated.astype(np.float32) / sigma**2
    lost = _missing(len(clean), settings, rng)
    flux[lost] = np.nan
    ivar[lost] = 0
    return flux, ivar


def _correlated(noise: npt.NDArray[np.float32], correlation: float) -> npt.NDArray[np.float32]:
    """White noise (N, P) turned into noise of the same variance that neighbours share."""
    if correlation == 0:
        return noise
    # w0 + t w1 has the correlation t / (1 + t^2).
    t = (1 - np.sqrt(1 - 4 * correlation**2)) / (2 * correlation)
    mixed = noise.copy()
    mixed[:, 1:] += np.float32(t) * noise[:, :-1]
    mixed[:, 1:] /= np.float32(np.sqrt(1 + t**2))
    return mixed


def _add_cosmics(noise: npt.NDArray[np.float32], mean: float, rng: np.random.Generator) -> None:
    """Add spikes of 4 to 30 sigma, one to three pixels wide, that the pipeline did not mask."""
    number = int(rng.poisson(mean * len(noise)))
    row = rng.integers(0, len(noise), number)
    first = rng.integers(0, PIXELS - 3, number)
    height = np.exp(rng.uniform(np.log(4), np.log(30), number))
    for width, share in enumerate((1.0, 0.6, 0.3)):
        here = rng.random(number) < (1.0, 0.6, 0.3)[width]
        noise[row[here], first[here] + width] += share * height[here]


def _missing(
    count: int, settings: SimulateSettings, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """(N, P) lost pixels: single ones, runs, and the ends."""
    lost = np.zeros((count, PIXELS), dtype=bool)
    lose_runs(lost, rng.uniform(*settings.missing, count), LONGEST_GAP, rng)
    singles = int(rng.binomial(lost.size, settings.bad_pixels))
    lost.ravel()[rng.integers(0, lost.size, singles)] = True
    ends = rng.integers(0, settings.ragged_ends + 1, (count, 2))
    place = np.arange(PIXELS)
    lost |= (place < ends[:, :1]) | (place >= PIXELS - ends[:, 1:])
    return lost


def lose_runs(
    lost: npt.NDArray[np.bool_], share: FloatArray, longest: int, rng: np.random.Generator
) -> None:
    """Mark runs of pixels in (N, P) until `share` (N,) of each row is lost; log-uniform lengths.

    longest: pixels. Pixels that are lost already count.
    """
    pixels = lost.shape[1]
    for row, wanted in enumerate(np.rint(share * pixels).astype(int)):
        while (lack := wanted - np.count_nonzero(lost[row])) > 0:
            length = min(lack, int(np.ceil(longest ** rng.random())))
            start = int(rng.integers(0, pixels - length + 1))
            lost[row, start : start + length] = True
