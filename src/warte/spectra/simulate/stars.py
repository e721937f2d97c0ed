"""Starlight: parametric populations with dust, on a common rest-frame grid.

No library of templates is used. A population is a Planck curve of its hottest stars and one of its
cool giants, a Balmer break, the blanketing by metals around 4000 Angstrom, and absorption features
at their published positions with equivalent widths in the range of the Lick indices (Worthey 1994,
ApJS 95, 107; Worthey & Ottaviani 1997, ApJS 111, 377).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import scipy.fft

from warte.spectra.lines import WAVELENGTH
from warte.spectra.simulate.instrument import FIRST, PIXELS, STEP
from warte.spectra.spectrum import C_KM_S, FloatArray, vacuum_from_air

Float32 = npt.NDArray[np.float32]

MARGIN = 42  # pixels at each end that the cyclic smoothing may spoil
LARGEST_SHIFT = 1461  # pixels: redshift 0.4
REST_PIXELS = PIXELS + LARGEST_SHIFT + 2 * MARGIN
REST_FIRST = FIRST - STEP * (LARGEST_SHIFT + MARGIN)
REST = 10 ** (REST_FIRST + STEP * np.arange(REST_PIXELS))  # (R,) rest wavelength, Angstrom
PIXEL_KM_S = C_KM_S * STEP * np.log(10)
INSTRUMENT_KM_S = 60.0  # the instrument's typical sigma; that of lines follows the wavelength

AGES_GYR = (0.01, 0.03, 0.1, 0.3, 0.6, 1.0, 2.0, 4.0, 8.0, 13.0)
METALS = (-0.4, 0.0, 0.3)  # log10 of the abundance over the Sun's
SLOPES = (-0.5, -1.0, -1.5, -2.0)  # power laws of active nuclei, f ~ wavelength^slope


@dataclass(frozen=True)
class Feature:
    """Absorption lines whose strengths go together.

    air: air wavelengths, Angstrom. share: relative equivalent widths, same length.
    width: sigma of one line, Angstrom, besides that of the stars' motions.
    young, middle, old: equivalent width in total of 0.01, 0.6 and 10 Gyr, solar, Angstrom.
    scatter: the strength varies by this part from galaxy to galaxy.
    metal: the equivalent width goes as 10^(metal x log abundance).
    """

    air: tuple[float, ...]
    share: tuple[float, ...]
    width: float
    young: float
    middle: float
    old: float
    scatter: float
    metal: float = 0.3


_BALMER = tuple(
    6562.8 * (1 / 4 - 1 / 9) / (1 / 4 - 1 / n**2) for n in range(3, 13)
)  # H-alpha to H-12, air
_IRON = (
    3581.2, 3608.9, 3618.8, 3631.5, 3647.8, 3679.9, 3719.9, 3734.9, 3737.1, 3745.6, 3758.2, 3763.8,
    3795.0, 3815.8, 3820.4, 3825.9, 3834.2, 3840.4, 3859.9, 3872.5, 3878.0, 3886.3, 3899.7, 3905.5,
    3922.9, 3930.3, 4005.2, 4030.8, 4033.1, 4045.8, 4063.6, 4071.7, 4077.7, 4118.5, 4132.1, 4143.9,
    4167.3, 4187.0, 4202.0, 4215.5, 4235.9, 4250.8, 4260.5, 4271.8, 4315.1, 4325.8, 4352.7, 4383.5,
    4404.8, 4415.1, 4435.0, 4455.5, 4476.0, 4494.6, 4528.6, 4531.2, 4549.6, 4554.0, 4583.8, 4603.0,
    4668.0, 4703.0, 4714.4, 4736.8, 4762.0, 4789.0, 4824.1, 4871.3, 4891.5, 4920.5, 4923.9, 4934.1,
    4957.6, 4981.7, 4999.5, 5006.1, 5014.9, 5041.1, 5051.6, 5080.0, 5110.4, 5139.4, 5150.8, 5202.3,
    5208.4, 5227.2, 5250.6, 5266.6, 5269.5, 5270.4, 5281.8, 5302.3, 5324.2, 5328.0, 5341.0, 5371.5,
    5383.4, 5397.1, 5405.8, 5429.7, 5446.9, 5455.6, 5476.9, 5497.5, 5528.4, 5569.6, 5572.8, 5586.8,
    5615.6, 5658.8, 5709.4, 5780.6, 5857.5, 6024.1, 6065.5, 6102.7, 6122.2, 6136.6, 6162.2, 6191.6,
    6230.7, 6252.6, 6318.0, 6393.6, 6400.0, 6411.7, 6439.1, 6462.6, 6494.9, 6593.9, 6643.6, 6677.99,
    6717.7, 7148.1, 7326.1, 7389.4, 7411.2, 7445.8, 7495.1, 7511.0, 8327.1, 8387.8, 8514.1, 8688.6,
    8806.8,
)  # fmt: skip
# Strong solar lines: iron, magnesium, chromium, strontium (Moore, Minnaert & Houtgast 1966, NBS
# Monograph 61); they crowd and deepen towards the blue, and a few stand out.
_STRONG_IRON = {4383.5: 4.0, 4404.8: 2.0, 5324.2: 1.4, 5328.0: 1.4, 5341.0: 1.4}
_IRON_SHARE = tuple(_STRONG_IRON.get(line, 1.0) * (4500 / line) ** 2.5 for line in _IRON)

FEATURES = {
    "Balmer": Feature(
        _BALMER, (0.75, 1.0, 1.1, 1.15, 1.1, 1.1, 1.0, 0.9, 0.75, 0.6), 9.0, 26.0, 100.0, 16.0,
        0.2, 0.0,
    ),
    "Ca II": Feature((3933.66, 3968.47), (1.0, 0.85), 5.0, 0.5, 5.0, 17.0, 0.12),
    "CN": Feature((4150.0, 4190.0, 4210.0), (1.0, 1.0, 0.8), 12.0, 0.0, 0.3, 3.5, 0.5, 0.6),
    "CN blue": Feature((3850.0, 3870.0, 3883.0), (0.8, 1.0, 0.8), 9.0, 0.0, 0.8, 6.5, 0.3, 0.5),
    "G band": Feature((4296.0, 4307.0, 4314.0), (0.8, 1.0, 0.6), 5.0, 0.0, 1.2, 9.0, 0.2),
    "Ca I": Feature((4226.73,), (1.0,), 3.0, 0.0, 0.4, 3.0, 0.3),
    "Mg": Feature((5167.3, 5172.7, 5183.6), (0.6, 1.0, 1.1), 3.5, 0.3, 1.4, 6.8, 0.2, 0.35),
    "MgH": Feature((5110.0, 5140.0, 5170.0), (0.6, 1.0, 1.0), 18.0, 0.0, 0.8, 6.0, 0.3, 0.4),
    "Fe": Feature(_IRON, _IRON_SHARE, 2.2, 12.0, 55.0, 150.0, 0.15),
    "Na D": Feature((5889.95, 5895.92), (1.0, 0.8), 2.2, 0.4, 1.0, 4.8, 0.5, 0.5),
    "TiO": Feature(
        (5960.0, 6180.0, 6240.0, 6310.0, 6690.0, 6740.0, 7080.0, 7130.0, 7190.0, 7260.0, 7650.0,
         7710.0, 7780.0, 8440.0, 8480.0),
        (0.5, 1.5, 2.0, 1.2, 0.7, 0.7, 3.0, 4.5, 4.0, 2.0, 1.5, 2.5, 1.5, 2.0, 1.5),
        28.0, 0.0, 3.0, 32.0, 0.4, 0.5,
    ),
    "Ca II red": Feature((8498.02, 8542.09, 8662.14), (0.45, 1.0, 0.85), 3.0, 3.0, 6.0, 7.5, 0.15),
}  # fmt: skip


@lru_cache(maxsize=1)
def feature_profiles() -> dict[str, FloatArray]:
    """Optical depth (R,) of each feature for an equivalent width of 1 Angstrom in total."""
    profiles = {}
    for name, feature in FEATURES.items():
        share = np.asarray(feature.share) / np.sum(feature.share)
        depth = np.zeros(REST_PIXELS)
        for centre, part in zip(vacuum_from_air(feature.air), share, strict=True):
            depth += part * _gauss(REST - centre, feature.width)
        profiles[name] = depth
    return profiles


def _gauss(offset: FloatArray, sigma: float) -> FloatArray:
    return np.exp(-0.5 * (offset / sigma) ** 2) / (np.sqrt(2 * np.pi) * sigma)


def _width(feature: Feature, age_gyr: float, metal: float) -> float:
    """Equivalent width of a feature at this age and abundance, Angstrom."""
    known = (feature.young, feature.middle, feature.old)
    at_sun = np.interp(np.log10(age_gyr), np.log10([0.01, 0.6, 10.0]), known)
    return float(at_sun * 10 ** (feature.metal * metal))


def planck(temperature_k: float) -> FloatArray:
    """(R,) Planck's curve per Angstrom, 1 at 5500 Angstrom."""
    x = 1.438777e8 / (REST * temperature_k)
    at = 1.438777e8 / (5500.0 * temperature_k)
    return (5500.0 / REST) ** 5 * np.expm1(at) / np.expm1(x)


def step(wavelength: float, width: float) -> FloatArray:
    """(R,) 1 far blueward of a wavelength, 0 far redward; both in Angstrom."""
    return 1 / (1 + np.exp((REST - wavelength) / width))


def population(age_gyr: float, metal: float) -> FloatArray:
    """(R,) light of stars of one age and abundance, 1 at 5500 Angstrom, without motions."""
    age = np.log10(age_gyr)
    hot = 10 ** np.interp(age, [-2, -1, -0.5, 0, 0.5, 1.1], [4.45, 4.2, 4.02, 3.88, 3.78, 3.71])
    cool = np.interp(age, [-2, -1, 0, 0.5, 1.1], [0.03, 0.12, 0.35, 0.5, 0.6])
    giants = np.interp(age, [-1, 0, 0.5, 1.1], [4300.0, 4200.0, 3950.0, 3750.0])
    light = (1 - cool) * planck(hot - 250 * metal) + cool * planck(giants - 200 * metal)
    balmer = np.interp(age, [-2, -1, -0.4, 0, 0.5, 1], [0.1, 0.33, 0.5, 0.42, 0.2, 0.05])
    metals = np.interp(age, [-2, -1, 0, 0.5, 1.1], [0.0, 0.02, 0.10, 0.19, 0.27])
    metals *= 1 + 0.3 * metal
    light *= 1 - balmer * step(3700.0, 22.0)
    # Crowds of metal lines, more of them towards the blue.
    for share, edge, width in ((1, 3995, 12), (0.5, 3350, 130), (0.9, 4420, 75), (0.1, 5330, 25)):
        light *= 1 - share * metals * step(edge, width)
    profiles = feature_profiles()
    for name, feature in FEATURES.items():
        light *= np.exp(-_width(feature, age_gyr, metal) * profiles[name])
    return light


@lru_cache(maxsize=1)
def library() -> Float32:
    """(B, R) populations (ages outside, metals inside), then the power laws, 1 at 5500 Angstrom."""
    stars = [population(age, metal) for age in AGES_GYR for metal in METALS]
    return np.array([*stars, *((REST / 5500.0) ** slope for slope in SLOPES)], dtype=np.float32)


def calzetti(wavelength: npt.ArrayLike) -> FloatArray:
    """k of dust in front of stars, A(wavelength) = k E(B-V): Calzetti et al. 2000, ApJ 533, 682.

    wavelength: Angstrom, 1200 to 22000.
    """
    lam = np.asarray(wavelength, dtype=np.float64)
    x = 1e4 / lam
    blue = -2.156 + 1.509 * x - 0.198 * x**2 + 0.011 * x**3
    red = -1.857 + 1.040 * x
    return np.asarray(2.659 * np.where(lam < 6300, blue, red) + 4.05)


@lru_cache(maxsize=1)
def perturbations() -> Float32:
    """(K, R) what the logarithm of a spectrum varies by.

    Rows: 1 mag of E(B-V), each of FEATURES by its old strength, the break, and four polynomials of
    low order for errors of the flux calibration.
    """
    dust = -0.4 * np.log(10) * (calzetti(REST) - calzetti(5500.0))
    depths = [-feature.old * feature_profiles()[name] for name, feature in FEATURES.items()]
    x = np.linspace(-1, 1, REST_PIXELS)
    polynomials = np.polynomial.legendre.legvander(x, 4)[:, 1:].T
    return np.array([dust, *depths, -step(3990.0, 15.0), *polynomials], dtype=np.float32)


def draw_starlight(
    old: FloatArray, nucleus: FloatArray, reddening: FloatArray, rng: np.random.Generator
) -> Float32:
    """Stars and power laws (N, R) before any broadening, about 1 at 5500 Angstrom.

    old: (N,) share of light from stars older than 1 Gyr. nucleus: (N,) share of a power law.
    reddening: (N,) E(B-V), mag.
    """
    count = len(old)
    weight = np.zeros((count, len(library())))
    rows = np.arange(count)
    metal = rng.integers(0, len(METALS), count)
    # Where hardly any young stars are left, the others are older too.
    eldest = rng.integers(np.where(old > 0.85, 7, 5), len(AGES_GYR))
    youngest = rng.integers(0, 5, count)
    split = rng.beta(0.7, 0.7, count)
    for age, share in (
        (eldest, old * 0.7),
        (rng.integers(6, len(AGES_GYR), count), old * 0.3),
        (youngest, (1 - old) * split),
        (rng.integers(0, 5, count), (1 - old) * (1 - split)),
    ):
        np.add.at(weight, (rows, age * len(METALS) + metal), share * (1 - nucleus))
    slope = len(AGES_GYR) * len(METALS) + rng.integers(0, len(SLOPES), count)
    np.add.at(weight, (rows, slope), nucleus)
    scatter = [feature.scatter for feature in FEATURES.values()]
    spread = np.array([*scatter, 0.05, 0.06, 0.04, 0.03, 0.02])
    random = rng.standard_normal((count, len(spread))) * spread
    # Young stars and nuclei have weaker metal lines, which then vary less.
    random[:, : len(scatter)] *= (0.3 + 0.7 * old)[:, None] * (1 - nucleus)[:, None]
    change = np.column_stack([reddening, random]).astype(np.float32)
    return (weight.astype(np.float32) @ library()) * np.exp(change @ perturbations())


def observe_starlight(
    light: Float32,
    dispersion_km_s: FloatArray,
    z: FloatArray,
    roughness: FloatArray,
    rng: np.random.Generator,
) -> Float32:
    """(N, P) the light (N, R) on the observed grid, broadened by the stars' motions and instrument.

    roughness: (N,) rms of structure that no template holds, after broadening, as a part of the
    light. z: (N,) where the stars are, 0 to 0.4.
    """
    total = np.hypot(dispersion_km_s, INSTRUMENT_KM_S) / PIXEL_KM_S
    amplitude = roughness * np.sqrt(2 * np.sqrt(np.pi) * total)  # smoothing takes this away
    forest = rng.standard_normal(light.shape, dtype=np.float32)
    forest *= amplitude.astype(np.float32)[:, None]
    forest *= ((5000.0 / REST) ** 1.5).astype(np.float32)
    forest += 1
    place = MARGIN + LARGEST_SHIFT - np.log10(1 + z) / STEP
    first = np.floor(place).astype(np.int64)
    part = place - first
    # Interpolation between two pixels broadens by part (1 - part) square pixels; take it off here.
    variance = np.maximum(total**2 - part * (1 - part), 0.0).astype(np.float32)
    frequency = (2 * np.pi * scipy.fft.rfftfreq(REST_PIXELS)).astype(np.float32)
    spectrum = scipy.fft.rfft(light * forest, axis=1)
    spectrum *= np.exp(-0.5 * variance[:, None] * frequency**2)
    smooth = scipy.fft.irfft(spectrum, n=REST_PIXELS, axis=1)
    out = np.empty((len(light), PIXELS), np.float32)
    for row, (start, share) in enumerate(zip(first, part.astype(np.float32), strict=True)):
        piece = smooth[row, start : start + PIXELS + 1]
        out[row] = piece[:-1] + share * (piece[1:] - piece[:-1])
    return out


def balmer_reddening(line: str, ebv: FloatArray) -> FloatArray:
    """Factor on a line's flux over H-beta's by dust of E(B-V) mag in front of the gas."""
    k = calzetti([WAVELENGTH[line], WAVELENGTH["H-beta"]])
    return np.asarray(10 ** (-0.4 * ebv * (k[0] - k[1])))
