"""Galaxy spectra with known classes, components and line fluxes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from warte.spectra.lines import WAVELENGTH
from warte.spectra.simulate import instrument, stars
from warte.spectra.simulate.blue import Pairs, simulate_pairs
from warte.spectra.simulate.galaxy import Galaxies, LineList, draw_galaxies, line_list
from warte.spectra.simulate.paint import paint_lines
from warte.spectra.simulate.settings import SimulateSettings
from warte.spectra.simulate.truth import Truth, joined, make_truth, read_truth, write_truth
from warte.spectra.spectrum import C_KM_S, FloatArray, Spectrum, make_spectrum

__all__ = [
    "Batch",
    "Pairs",
    "SimulateSettings",
    "Truth",
    "joined",
    "read_truth",
    "simulate",
    "simulate_batch",
    "simulate_pairs",
    "write_truth",
]

CHUNK = 128  # spectra made at once: their arrays stay small


@dataclass(frozen=True)
class Batch:
    """Spectra on one grid.

    loglam: (P,) log10 of the observed vacuum wavelength, Angstrom.
    flux: (N, P) float32, 1e-17 erg/s/cm2/Angstrom, NaN where missing.
    ivar: (N, P) float32, 0 where missing.
    resolution_km_s: (P,) sigma of the recorded profile, pixels included, the same for all.
    z: (N,) stated redshift.
    """

    loglam: FloatArray
    flux: npt.NDArray[np.float32]
    ivar: npt.NDArray[np.float32]
    resolution_km_s: FloatArray
    z: FloatArray


def simulate(
    settings: SimulateSettings, rng: np.random.Generator, *, first: int = 0
) -> tuple[list[Spectrum], Truth]:
    """`settings.count` simulated spectra and the truth about them; names count from `first`."""
    batch, truth = simulate_batch(settings, settings.count, rng, first=first)
    wavelength = 10**batch.loglam
    table = truth.spectra
    spectra = [
        make_spectrum(
            name,
            wavelength,
            flux,
            ivar,
            z=z,
            resolution_km_s=batch.resolution_km_s,
            object_id=object_id,
        )
        for name, object_id, flux, ivar, z in zip(
            table["file"], table["object_id"], batch.flux, batch.ivar, batch.z, strict=True
        )
    ]
    return spectra, truth


def simulate_batch(
    settings: SimulateSettings, count: int, rng: np.random.Generator, *, first: int = 0
) -> tuple[Batch, Truth]:
    """`count` spectra as arrays, and the truth; `settings.count` is not used.

    first: number in the name of the first spectrum. Several calls of a multiple of CHUNK spectra
    draw the same as one call of all.

    Emission is Gaussian in wavelength, c (wavelength in the frame of z / rest - 1), integrated over
    pixels; the class of galaxies with lines is the place of their summed narrow fluxes in the
    diagram (`bpt.bpt_class`), unless they have broad lines.
    """
    flux = np.empty((count, instrument.PIXELS), np.float32)
    ivar = np.empty_like(flux)
    z = np.empty(count)
    truths = []
    # At least one chunk, so that no spectra still have tables with columns.
    for start in range(0, max(count, 1), CHUNK):
        here = slice(start, min(start + CHUNK, count))
        galaxies = draw_galaxies(settings, here.stop - start, rng)
        scene = _scene(galaxies, rng)
        flux[here], ivar[here] = instrument.observe(scene.clean, settings, rng)
        z[here] = galaxies.z
        names = [f"sim-{number:07d}.fits" for number in range(first + start, first + here.stop)]
        truths.append(make_truth(names, galaxies, scene.lines, scene.clean, scene.continuum))
    batch = Batch(instrument.LOGLAM, flux, ivar, instrument.RECORDED_KM_S, z)
    return batch, joined(truths)


@dataclass(frozen=True)
class _Scene:
    """Spectra without noise."""

    clean: npt.NDArray[np.float32]  # (N, P) everything
    continuum: npt.NDArray[np.float32]  # (N, P) stars and power law
    lines: LineList  # fluxes now in 1e-17 erg/s/cm2


def _scene(galaxies: Galaxies, rng: np.random.Generator) -> _Scene:
    light = stars.draw_starlight(galaxies.old, galaxies.nucleus, galaxies.reddening, rng)
    continuum = stars.observe_starlight(
        light,
        galaxies.dispersion_km_s,
        (1 + galaxies.z) * (1 + galaxies.star_velocity_km_s / C_KM_S) - 1,
        galaxies.roughness,
        rng,
    )
    rows = np.arange(len(light))
    place = WAVELENGTH["H-alpha"] * (1 + galaxies.z)
    at_alpha = instrument.level_near(continuum, rows, place)
    lines = line_list(galaxies)
    width = np.where(
        lines.component == 2, galaxies.broad_width[lines.row], galaxies.width[lines.row]
    )
    lines = replace(lines, flux=lines.flux * width * ((1 + galaxies.z) * at_alpha)[lines.row])
    shape = continuum + paint_lines(
        len(rows),
        lines.row,
        lines.rest,
        lines.flux,
        lines.velocity_km_s,
        lines.sigma_km_s,
        galaxies.z[lines.row],
    )
    level = instrument.flux_level(shape, galaxies.snr)
    factor = level.astype(np.float32)[:, None]
    return _Scene(
        shape * factor, continuum * factor, replace(lines, flux=lines.flux * level[lines.row])
    )
