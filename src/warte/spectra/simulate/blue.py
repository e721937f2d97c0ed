"""Plain spectra of one window, H-beta and [O III], for measuring fits: everything is known exactly.

The model is the one that is fitted: a straight continuum, Gaussian lines sampled at the middle of
each pixel, white noise of 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from warte.core.errors import SettingsError
from warte.spectra.lines import BLUE_WINDOW, OIII_RATIO, WAVELENGTH
from warte.spectra.simulate.instrument import STEP, lose_runs
from warte.spectra.simulate.settings import Range
from warte.spectra.simulate.truth import Truth
from warte.spectra.spectrum import C_KM_S, FloatArray, Spectrum, make_spectrum

PIXELS = int(np.log10(BLUE_WINDOW[1] / BLUE_WINDOW[0]) / STEP)  # 281
LINES = ("H-beta", "[O III] 5007", "[O III] 4959")
LONGEST_RUN = 20  # pixels


@dataclass(frozen=True)
class Pairs:
    """N spectra of P pixels and the truth about them.

    wavelength: (N, P) rest frame, vacuum Angstrom; each spectrum has its own fraction of a pixel.
    flux: (N, P), NaN where missing. ivar: (N, P), 1, and 0 where missing.
    resolution_km_s: (N, P) sigma of the instrument's profile.
    truth: as of `simulate`, with z 0 and class ""; the lines of a spectrum follow each other,
        component by component, in the order of LINES.
    """

    wavelength: FloatArray
    flux: FloatArray
    ivar: FloatArray
    resolution_km_s: FloatArray
    truth: Truth

    def spectra(self) -> list[Spectrum]:
        """The same as single spectra at redshift 0."""
        return [
            make_spectrum(*row, z=0.0, resolution_km_s=width, object_id=row[0])
            for *row, width in zip(
                self.truth.spectra["file"],
                self.wavelength,
                self.flux,
                self.ivar,
                self.resolution_km_s,
                strict=True,
            )
        ]


def simulate_pairs(
    count: int,
    rng: np.random.Generator,
    *,
    components: int = 2,
    separation_km_s: float | Range = (200.0, 600.0),
    sigma_km_s: float | Range = (60.0, 200.0),
    flux_ratio: float | Range = (0.3, 1.0),
    peak_snr: float | Range = (10.0, 50.0),
    missing: float | Range = 0.0,
    velocity_km_s: float | Range = (-100.0, 100.0),
    oiii_hb: float | Range = (2.0, 12.0),
    continuum: float | Range = (5.0, 20.0),
    resolution_km_s: float = 65.0,
) -> Pairs:
    """Draw `count` spectra with one or two components each; ranges are drawn from evenly.

    Args:
        separation_km_s: distance of the second component from the first, on either side.
        sigma_km_s: intrinsic width of each component, drawn for each.
        flux_ratio: [O III] flux of the second component over the first, at most 1.
        peak_snr: [O III] 5007 of the first component, the brighter one, at its peak over the noise.
        missing: share of the pixels lost in runs, 0 to 0.9.
        velocity_km_s: of the first component.
        oiii_hb: [O III] 5007 / H-beta, drawn for each component.
        continuum: level in the middle of the window, noise 1; the slope is up to half of it.

    Raises SettingsError for components other than 1 and 2, and for ranges that do not rise.
    """
    if components not in (1, 2):
        raise SettingsError(f"components is {components}; allowed is 1 or 2")
    shape = (count, components)
    sigma = _draw("sigma_km_s", sigma_km_s, shape, rng)
    velocity = np.repeat(_draw("velocity_km_s", velocity_km_s, (count, 1), rng), components, axis=1)
    ratio = np.ones(shape)
    if components == 2:
        side = rng.choice([-1.0, 1.0], count)
        velocity[:, 1] += side * _draw("separation_km_s", separation_km_s, (count,), rng)
        ratio[:, 1] = _draw("flux_ratio", flux_ratio, (count,), rng)
    width = np.hypot(sigma, resolution_km_s)
    peak = _draw("peak_snr", peak_snr, (count, 1), rng)
    oiii = ratio * peak * _area(width[:, :1], WAVELENGTH["[O III] 5007"])
    beta = oiii / _draw("oiii_hb", oiii_hb, shape, rng)
    fluxes = np.stack([beta, oiii, oiii / OIII_RATIO], axis=2)  # (N, C, 3)
    start = np.log10(BLUE_WINDOW[0]) + STEP * rng.random((count, 1))
    wavelength = 10 ** (start + STEP * np.arange(PIXELS))
    level = _draw("continuum", continuum, (count, 1), rng)
    place = (wavelength - np.mean(BLUE_WINDOW)) / (np.ptp(BLUE_WINDOW) / 2)  # -1 to 1
    flux = level * (1 + rng.uniform(-0.5, 0.5, (count, 1)) * place)
    flux += _lines(wavelength, velocity, width, fluxes) + rng.standard_normal(flux.shape)
    lost = np.zeros(flux.shape, dtype=bool)
    lose_runs(lost, _draw("missing", missing, (count,), rng), LONGEST_RUN, rng)
    flux[lost] = np.nan
    resolution = np.full(flux.shape, resolution_km_s)
    truth = _truth(velocity, sigma, fluxes, peak[:, 0], level[:, 0])
    return Pairs(wavelength, flux, np.where(lost, 0.0, 1.0), resolution, truth)


def _area(width_km_s: FloatArray, rest: float) -> FloatArray:
    """Flux of a Gaussian line of height 1, unit of the flux x Angstrom."""
    return np.sqrt(2 * np.pi) * width_km_s * rest / C_KM_S


def _lines(
    wavelength: FloatArray, velocity: FloatArray, width: FloatArray, fluxes: FloatArray
) -> FloatArray:
    """(N, P) all lines; velocity and width (N, C) in km/s, fluxes (N, C, 3)."""
    out = np.zeros(wavelength.shape)
    for c in range(velocity.shape[1]):
        v, s = velocity[:, [c]], width[:, [c]]
        for line, name in enumerate(LINES):
            u = C_KM_S * (wavelength / WAVELENGTH[name] - 1)
            height = fluxes[:, [c], line] / _area(s, WAVELENGTH[name])
            out += height * np.exp(-0.5 * ((u - v) / s) ** 2)
    return out


def _draw(
    name: str, value: float | Range, shape: tuple[int, ...], rng: np.random.Generator
) -> FloatArray:
    low, high = value if isinstance(value, tuple) else (value, value)
    if not low <= high:
        raise SettingsError(f"{name} is ({low}, {high}); allowed is a number or a rising pair")
    return rng.uniform(low, high, shape)


def _truth(
    velocity: FloatArray, sigma: FloatArray, fluxes: FloatArray, peak: FloatArray, level: FloatArray
) -> Truth:
    count, components, number = fluxes.shape
    names = [f"pair-{index:06d}" for index in range(count)]
    second = components == 2
    nothing = np.full(count, np.nan)
    spectra = pd.DataFrame(
        {
            "file": names,
            "object_id": names,
            "class": "",
            "components": components,
            "z": 0.0,
            "velocity_1_km_s": velocity[:, 0],
            "sigma_1_km_s": sigma[:, 0],
            "velocity_2_km_s": velocity[:, 1] if second else nothing,
            "sigma_2_km_s": sigma[:, 1] if second else nothing,
            "flux_ratio": fluxes[:, 1, 1] / fluxes[:, 0, 1] if second else 0.0,
            "separation_km_s": np.abs(velocity[:, 1] - velocity[:, 0]) if second else nothing,
            "snr": level,
            "peak_snr_oiii": peak,
        }
    )
    lines = pd.DataFrame(
        {
            "file": np.repeat(np.array(names, dtype=object), components * number),
            "line": np.tile(np.array(LINES, dtype=object), count * components),
            "component": np.tile(
                np.repeat(np.array(["1", "2"], dtype=object)[:components], number), count
            ),
            "flux": fluxes.ravel(),
            "velocity_km_s": np.repeat(velocity.ravel(), number),
            "sigma_km_s": np.repeat(sigma.ravel(), number),
            "ew_angstrom": fluxes.ravel() / np.repeat(level, components * number),
        }
    )
    return Truth(spectra, lines)
