"""Galaxies before they are observed: what is drawn at random, and their lists of lines."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from warte.spectra.lines import CLASSES, WAVELENGTH
from warte.spectra.simulate import nebula
from warte.spectra.simulate.settings import SimulateSettings
from warte.spectra.spectrum import FloatArray

REST = np.array(list(WAVELENGTH.values()))  # (L,) Angstrom
# Permitted lines of the broad-line region over H-beta: case B, H-alpha steeper.
BROAD_LINES = {"H-alpha": 3.1, "H-beta": 1.0, "H-gamma": 0.45, "H-delta": 0.24, "He I 5876": 0.15}
# Fe II multiplets 37, 38, 42, 48 and 49 around H-beta, vacuum Angstrom, with rough strengths.
FE_II = np.array(
    [
        (4490.6, 0.5), (4509.5, 0.5), (4516.6, 0.6), (4523.9, 0.7), (4550.7, 1.0), (4557.2, 0.6),
        (4577.6, 0.5), (4585.1, 1.0), (4630.6, 0.7), (4667.9, 0.4), (4925.3, 1.1), (5019.8, 1.2),
        (5170.5, 1.4), (5199.0, 0.7), (5236.1, 0.8), (5277.5, 1.1), (5318.1, 1.2), (5364.4, 0.5),
        (5426.8, 0.4),
    ]
)  # fmt: skip
# Shape of a beta distribution of the share of light from old stars.
_OLD_STARS = {
    "star-forming": (1.3, 1.8),
    "composite": (2.5, 1.5),
    "Seyfert": (3.0, 1.3),
    "LINER": (6.0, 0.8),
    "broad-line": (3.0, 1.5),
    "passive": (9.0, 0.3),
}


@dataclass(frozen=True)
class Galaxies:
    """N galaxies; every array (N,) unless said otherwise."""

    kind: npt.NDArray[np.str_]  # one of CLASSES
    z: FloatArray  # as stated; lines and stars scatter around it
    snr: FloatArray  # median per pixel
    motion: nebula.Kinematics
    fluxes: FloatArray  # (N, 2, L) of narrow lines; H-alpha of both components is 1 together
    width: FloatArray  # rest equivalent width of the narrow H-alpha, Angstrom
    old: FloatArray  # share of light of old stars
    nucleus: FloatArray  # share of light of a power law
    reddening: FloatArray  # E(B-V) of the stars, mag
    dispersion_km_s: FloatArray  # of the stars
    star_velocity_km_s: FloatArray  # of the stars, relative to z
    roughness: FloatArray  # structure in the starlight that no template holds, rms
    broad_width: FloatArray  # rest equivalent width of the broad H-alpha, Angstrom; 0 without
    broad_velocity_km_s: FloatArray
    broad_sigma_km_s: FloatArray
    iron: FloatArray  # flux of all Fe II over that of the broad H-beta


@dataclass(frozen=True)
class LineList:
    """M lines; flux in units of the galaxy's narrow H-alpha (broad ones: its broad H-alpha)."""

    row: npt.NDArray[np.int64]  # index of the galaxy
    line: npt.NDArray[np.int64]  # index in nebula.LINES; -1 for Fe II
    component: npt.NDArray[np.int64]  # 0, 1; 2 for broad
    rest: FloatArray  # Angstrom
    flux: FloatArray
    velocity_km_s: FloatArray
    sigma_km_s: FloatArray


def draw_galaxies(settings: SimulateSettings, count: int, rng: np.random.Generator) -> Galaxies:
    """Draw classes, then everything that goes with them."""
    weight = np.asarray(settings.class_weights) / np.sum(settings.class_weights)
    index = rng.choice(len(CLASSES), count, p=weight)
    kind = np.array(CLASSES)[index]
    shape = np.array([_OLD_STARS[name] for name in CLASSES])[index]
    dusty = ~np.isin(kind, ("passive", "LINER"))
    reddening = np.abs(rng.normal(0, 1, count)) * np.where(dusty, 0.25, 0.07)
    motion = nebula.draw_kinematics(kind, settings, rng)
    fluxes = nebula.draw_fluxes(kind, motion, reddening, rng)
    strength = nebula.draw_strength(kind, fluxes, rng)
    fluxes[motion.components == 0] = 0.0
    broad = kind == "broad-line"
    faint_nucleus = (kind == "Seyfert") * 0.25 * rng.random(count) ** 3
    return Galaxies(
        kind=kind,
        z=rng.uniform(*settings.z, count),
        snr=np.exp(rng.uniform(np.log(settings.snr[0]), np.log(settings.snr[1]), count)),
        motion=motion,
        fluxes=fluxes,
        width=strength,
        old=rng.beta(*shape.T),
        nucleus=np.where(broad, rng.uniform(0.1, 0.95, count), faint_nucleus),
        reddening=reddening,
        dispersion_km_s=np.exp(rng.uniform(np.log(50), np.log(350), count)),
        star_velocity_km_s=rng.normal(0, 1, count) * settings.redshift_error_km_s,
        roughness=0.002 * np.exp(rng.uniform(0, np.log(6), count)),
        broad_width=np.where(broad, np.exp(rng.normal(np.log(120), 0.6, count)), 0.0),
        broad_velocity_km_s=rng.normal(0, 250, count),
        broad_sigma_km_s=np.exp(rng.uniform(np.log(600), np.log(5000), count)),
        iron=rng.uniform(0.0, 2.5, count),
    )


def line_list(galaxies: Galaxies) -> LineList:
    """All lines that have some flux: narrow ones of both components, broad ones, and Fe II."""
    motion = galaxies.motion
    row, part, line = np.nonzero(galaxies.fluxes)
    narrow = LineList(
        row,
        line,
        part,
        REST[line],
        galaxies.fluxes[row, part, line],
        motion.velocity_km_s[row, part],
        motion.sigma_km_s[row, part],
    )
    names = np.array([nebula.PLACE[name] for name in BROAD_LINES])
    rest = np.concatenate([REST[names], FE_II[:, 0]])
    share = np.array(list(BROAD_LINES.values())) / BROAD_LINES["H-alpha"]
    iron = FE_II[:, 1] / FE_II[:, 1].sum() / BROAD_LINES["H-alpha"]
    owner = np.flatnonzero(galaxies.broad_width > 0)
    flux = np.hstack([np.tile(share, (len(owner), 1)), galaxies.iron[owner, None] * iron])
    row = np.repeat(owner, len(rest))
    broad = LineList(
        row,
        np.tile(np.concatenate([names, np.full(len(iron), -1)]), len(owner)),
        np.full(len(row), 2),
        np.tile(rest, len(owner)),
        flux.ravel(),
        galaxies.broad_velocity_km_s[row],
        galaxies.broad_sigma_km_s[row],
    )
    return LineList(
        *(
            np.concatenate([getattr(narrow, field.name), getattr(broad, field.name)])
            for field in fields(LineList)
        )
    )
