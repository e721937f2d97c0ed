"""Glowing gas: places in the diagram of line ratios, fluxes of all lines, and motions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from warte.spectra.bpt import bpt_class
from warte.spectra.lines import CASE_B, CLASSES, NII_RATIO, OIII_RATIO, WAVELENGTH
from warte.spectra.simulate.settings import SimulateSettings
from warte.spectra.simulate.stars import balmer_reddening
from warte.spectra.spectrum import FloatArray

LINES = tuple(WAVELENGTH)
PLACE = {name: index for index, name in enumerate(LINES)}
OI_RATIO = 3.1  # [O I] 6300 / 6364, Storey & Zeippen 2000
# Case B at 10^4 K, over H-beta: Osterbrock & Ferland 2006, table 4.4.
CASE_B_GAMMA, CASE_B_DELTA = 0.468, 0.259
PASSIVE_EW = 0.5  # Angstrom of H-alpha that a passive galaxy stays below


@dataclass(frozen=True)
class Kinematics:
    """Narrow components, the stronger first; NaN where a spectrum has none.

    velocity_km_s, sigma_km_s: (N, 2) relative to the stated redshift; intrinsic.
    ratio: (N,) [O III] 5007 flux of the second over the first; 0 with one component.
    """

    velocity_km_s: FloatArray
    sigma_km_s: FloatArray
    ratio: FloatArray

    @property
    def components(self) -> npt.NDArray[np.int64]:
        """(N,) number of components, 0 to 2."""
        return np.isfinite(self.velocity_km_s).sum(axis=1)


def draw_place(
    kind: npt.NDArray[np.str_], rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """log10 [N II]/H-alpha and log10 [O III]/H-beta (N,) that lie where their class does.

    Broad-line galaxies get the narrow lines of a Seyfert, passive ones those of a LINER.
    """
    place = np.where(kind == "broad-line", "Seyfert", np.where(kind == "passive", "LINER", kind))
    x, y = np.full(len(kind), np.nan), np.full(len(kind), np.nan)
    todo = np.arange(len(kind))
    while len(todo):
        x[todo], y[todo] = _propose(place[todo], rng)
        todo = todo[bpt_class(x[todo], y[todo]) != place[todo]]
    return x, y


def _propose(
    place: npt.NDArray[np.str_], rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Places around the middle of each class; some lie outside it."""
    middle = {  # mean and scatter of x, then of y
        "composite": (-0.2, 0.16, 0.0, 0.35),
        "Seyfert": (-0.05, 0.2, 0.75, 0.25),
        "LINER": (0.05, 0.17, 0.25, 0.25),
    }
    random = rng.standard_normal((len(place), 2))
    x = rng.normal(-0.55, 0.3, len(place))
    # The sequence of star-forming galaxies at z = 0: Kewley et al. 2013, ApJ 774, 100.
    y = np.maximum(0.61 / np.minimum(x + 0.08, -0.05) + 1.1, -0.9) + 0.13 * random[:, 1]
    for name, (x0, dx, y0, dy) in middle.items():
        here = place == name
        x[here] = x0 + dx * random[here, 0]
        y[here] = y0 + dy * random[here, 1]
    return np.clip(x, -1.9, 0.6), np.clip(y, -1.2, 1.25)


def draw_kinematics(
    kind: npt.NDArray[np.str_], settings: SimulateSettings, rng: np.random.Generator
) -> Kinematics:
    """Velocities and widths: two cores, or a narrow core with a broad wing.

    Half of the passive galaxies have no gas at all.
    """
    count = len(kind)
    low, high = settings.sigma_km_s
    two = (rng.random(count) < settings.two_fraction) & (kind != "passive")
    wing = two & (rng.random(count) < settings.wing_fraction)
    # Narrow widths fill the lower part of the range, evenly in their logarithm.
    span = np.minimum(np.where(kind == "star-forming", 4.0, 7.0), high / low)
    narrow = low * span[:, None] ** rng.random((count, 2))
    sigma = narrow
    sigma[wing, 1] = np.clip(narrow[wing, 0] * rng.uniform(1.8, 4.0, wing.sum()), low, high)
    apart = rng.uniform(*settings.separation_km_s, count) * rng.choice([-1.0, 1.0], count)
    ratio = rng.uniform(*settings.flux_ratio, count)
    # In between lies the middle of the light: that is where a pipeline puts the redshift.
    offset = rng.normal(0.0, 1.0, count) * settings.redshift_error_km_s
    velocity = np.column_stack([offset - apart * ratio / (1 + ratio), offset + apart / (1 + ratio)])
    velocity[~two, 0] = offset[~two]
    velocity[~two, 1] = sigma[~two, 1] = np.nan
    none = (kind == "passive") & (rng.random(count) < 0.5)
    velocity[none] = sigma[none] = np.nan
    return Kinematics(velocity, sigma, np.where(two, ratio, 0.0))


def draw_fluxes(
    kind: npt.NDArray[np.str_], motion: Kinematics, reddening: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """(N, 2, L) fluxes of LINES, H-alpha of both components together 1.

    Each component has its own place in the diagram; the sum lies in the class. Where it would not,
    the second component takes the place of the first.
    """
    x, y = draw_place(kind, rng)
    x2, y2 = x + rng.normal(0, 0.15, len(x)), y + rng.normal(0, 0.15, len(y))
    active = np.isin(kind, ("Seyfert", "LINER", "broad-line"))
    ebv = reddening * rng.uniform(1.0, 2.3, len(x))  # gas lies behind more dust than stars
    recipe = _recipe(kind, x, active, ebv, rng)
    first = _component(x, y, recipe)
    both = np.stack([first, motion.ratio[:, None] * _component(x2, y2, recipe)], axis=1)
    plain = np.stack([first, motion.ratio[:, None] * first], axis=1)
    strayed = class_of(both) != class_of(plain)
    both[strayed] = plain[strayed]
    return np.asarray(both / both[:, :, PLACE["H-alpha"]].sum(axis=1)[:, None, None])


def class_of(fluxes: FloatArray) -> npt.NDArray[np.str_]:
    """(N,) place in the diagram of the summed fluxes (N, C, L)."""
    total = fluxes.sum(axis=1)
    x = np.log10(total[:, PLACE["[N II] 6583"]] / total[:, PLACE["H-alpha"]])
    y = np.log10(total[:, PLACE["[O III] 5007"]] / total[:, PLACE["H-beta"]])
    return bpt_class(x, y)


@dataclass(frozen=True)
class _Recipe:
    """Ratios that both components of a galaxy share, each (N,)."""

    decrement: FloatArray
    over_alpha: dict[str, FloatArray]
    over_beta: dict[str, FloatArray]
    over_oiii: dict[str, FloatArray]


def _recipe(
    kind: npt.NDArray[np.str_],
    x: FloatArray,
    active: npt.NDArray[np.bool_],
    ebv: FloatArray,
    rng: np.random.Generator,
) -> _Recipe:
    def spread(middle: float | FloatArray, dex: float) -> FloatArray:
        return np.asarray(middle * 10 ** rng.normal(0, dex, len(x)))

    liner = np.isin(kind, ("LINER", "passive"))
    sulphur = spread(
        np.where(active | liner, 0.7, 0.4) * 10 ** (0.2 * np.clip(x + 0.4, -1, 1)), 0.1
    )
    sii = rng.uniform(0.9, 1.42, len(x))  # 6716 / 6731: 20 to 600 electrons per cm3
    oxygen = spread(np.where(liner, 0.2, np.where(active, 0.12, 0.03)), 0.15)
    blue = spread(np.where(liner, 5.0, 2.5), 0.15)
    oii = rng.uniform(0.8, 1.45, len(x))  # 3729 / 3727
    return _Recipe(
        np.where(active | liner, 3.1, CASE_B) * balmer_reddening("H-alpha", ebv),
        {
            "[S II] 6716": sulphur * sii / (1 + sii),
            "[S II] 6731": sulphur / (1 + sii),
            "[O I] 6300": oxygen,
            "[O I] 6364": oxygen / OI_RATIO,
        },
        {
            "H-gamma": CASE_B_GAMMA * balmer_reddening("H-gamma", ebv),
            "H-delta": CASE_B_DELTA * balmer_reddening("H-delta", ebv),
            "[O II] 3727": blue / (1 + oii) * balmer_reddening("[O II] 3727", ebv),
            "[O II] 3729": blue * oii / (1 + oii) * balmer_reddening("[O II] 3729", ebv),
            "He I 5876": spread(0.12, 0.08) * balmer_reddening("He I 5876", ebv),
            "He II 4686": np.where(active, spread(0.2, 0.15), np.where(liner, 0.0, 0.004)),
        },
        {
            "[Ne III] 3869": spread(0.09, 0.1) * balmer_reddening("[Ne III] 3869", ebv),
            "[O III] 4363": spread(0.012, 0.15) * balmer_reddening("[O III] 4363", ebv),
        },
    )


def _component(x: FloatArray, y: FloatArray, recipe: _Recipe) -> FloatArray:
    """(N, L) fluxes of one component, [O III] 5007 taken as 1."""
    out = np.zeros((len(x), len(LINES)))
    out[:, PLACE["[O III] 5007"]] = 1.0
    out[:, PLACE["[O III] 4959"]] = 1.0 / OIII_RATIO
    beta = 10**-y
    alpha = beta * recipe.decrement
    out[:, PLACE["H-beta"]], out[:, PLACE["H-alpha"]] = beta, alpha
    out[:, PLACE["[N II] 6583"]] = alpha * 10**x
    out[:, PLACE["[N II] 6548"]] = alpha * 10**x / NII_RATIO
    for ratios, base in (
        (recipe.over_alpha, alpha),
        (recipe.over_beta, beta),
        (recipe.over_oiii, np.ones(len(x))),
    ):
        for name, ratio in ratios.items():
            out[:, PLACE[name]] = ratio * base
    return out


def draw_strength(
    kind: npt.NDArray[np.str_], fluxes: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """(N,) rest equivalent width of H-alpha, all narrow components (N, 2, L) together, Angstrom."""
    middle = {  # median, and scatter in dex
        "star-forming": (25.0, 0.42),
        "composite": (11.0, 0.3),
        "Seyfert": (18.0, 0.4),
        "LINER": (4.0, 0.3),
        "broad-line": (20.0, 0.3),
    }
    out = np.zeros(len(kind))
    for name in CLASSES:
        here = kind == name
        number = int(here.sum())
        if name == "passive":
            out[here] = PASSIVE_EW * 0.98 * rng.random(number) ** 2
        else:
            median, scatter = middle[name]
            out[here] = median * 10 ** rng.normal(0, scatter, number)
    # Few metals go with many young stars.
    total = fluxes.sum(axis=1)
    poor = -0.5 - np.log10(total[:, PLACE["[N II] 6583"]] / total[:, PLACE["H-alpha"]])
    out[kind == "star-forming"] *= 10 ** np.clip(poor, 0, None)[kind == "star-forming"]
    return np.where(kind == "passive", out, np.clip(out, 1.2, 1200.0))
