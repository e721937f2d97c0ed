"""A map of many spectra without labels, and the oddest of them.

The spectra are brought to one rest-frame grid and to one level, drawn by a few components with
inverse-variance weights, and laid out in a plane so that alike ones lie close. Missing pixels have
weight 0 all the way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from warte.core.errors import InputError, SettingsError
from warte.spectra.explore.place import laid_out, scores
from warte.spectra.explore.prepare import normalised, on_one_grid, softened
from warte.spectra.explore.principal import Principal, weighted_pca
from warte.spectra.spectrum import FloatArray, Spectrum

__all__ = ["ExploreSettings", "Map", "explore"]

Report = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class ExploreSettings:
    """How to lay out spectra and what to call odd."""

    method: Literal["pca", "nmf"] = "pca"  # what draws the spectra; NMF components are positive
    embed: Literal["tsne", "pca"] = "tsne"  # axes of the map: t-SNE, or the two main directions
    components: int = 10  # that draw a spectrum, from 1
    oddest: int = 20  # spectra to show, from 0
    neighbours: int = 10  # spectra that one is compared with, from 1
    join: int = 2  # cells of 69 km/s that are joined into one pixel, from 1
    coverage: float = 0.8  # share of the spectra that must reach a pixel of the grid, 0 to 1
    least_pixels: float = 0.5  # share of the grid that a spectrum must have measured, 0 to 1
    least_snr: float = 2.0  # median flux over its error in a pixel of the grid, to be placed
    floor: float = 0.03  # error of every pixel that no noise explains, as a share of the level
    seed: int = 0  # of the random numbers


@dataclass(frozen=True)
class Map:
    """Where spectra lie, and pictures of the oddest.

    table: one row per spectrum in the order given: file, object_id, x, y (no unit), oddness,
        reconstruction_chi2, neighbour_distance, reason ("" or why it could not be placed; then
        the numbers are NaN).
    wavelength: (m,) common grid, rest vacuum Angstrom.
    components: (k, m) of the normalised flux; k may be less than asked for.
    oddest: rows of the table, the oddest first.
    flux, model: (o, m) normalised flux (NaN missing) and its reconstruction, of the oddest.
    flags: what was changed in the settings, a few words each.
    """

    table: pd.DataFrame
    wavelength: FloatArray
    components: FloatArray
    oddest: npt.NDArray[np.int64]
    flux: FloatArray
    model: FloatArray
    flags: tuple[str, ...] = ()


def explore(
    spectra: Sequence[Spectrum],
    settings: ExploreSettings = ExploreSettings(),
    *,
    device: str = "cpu",
    report: Report | None = None,
) -> Map:
    """Lay out spectra in a plane and find the oddest.

    reconstruction_chi2 is the weighted mean square of what the components leave over, per measured
    pixel. neighbour_distance is the mean distance to the nearest spectra in the space of the
    components, in units of the level, root mean square over the grid. oddness is the larger of
    two: how far log(reconstruction_chi2 / its median among the nearest spectra) and how far
    log(neighbour_distance) lie above their medians, each in robust standard deviations
    (1.4826 median absolute deviations). So 0 is usual and above about 5 is odd, because the
    components cannot draw a spectrum or because nothing lies near it.

    Args:
        spectra: with redshifts; those that cannot be placed get a reason.
        settings: how.
        device: of the components (cpu or cuda).
        report: called with a step's name, how much of it is done, and the total.

    Raises:
        SettingsError: a setting is out of range.
        InputError: fewer than two spectra can be placed.
    """
    _check(settings)
    tell = report or (lambda step, done, total: None)
    tell("grid", 0, None)
    wavelength, flux, ivar = on_one_grid(spectra, settings.join, settings.coverage)
    flux, ivar, reasons = normalised(flux, ivar, settings.least_pixels, settings.least_snr)
    reasons = [
        reason if one.z > -1 else "no redshift"
        for one, reason in zip(spectra, reasons, strict=True)
    ]
    placed = np.array([reason == "" for reason in reasons], dtype=bool)
    _check_count(spectra, reasons)
    flux, weights = flux[placed], softened(ivar[placed], settings.floor)
    tell("components", 0, None)
    drawn, reduced = _drawn(flux, weights, settings, device)
    tell("map", 0, None)
    places, changed = laid_out(drawn, settings.embed, settings.seed)
    table = pd.DataFrame(
        {"file": [one.name for one in spectra], "object_id": [one.object_id for one in spectra]}
    )
    columns = ["x", "y", "oddness", "reconstruction_chi2", "neighbour_distance"]
    values = np.full((len(spectra), len(columns)), np.nan)
    values[placed] = np.column_stack([places, *scores(flux, weights, drawn, settings.neighbours)])
    table[columns] = values
    table["reason"] = reasons
    at = np.argsort(-values[placed, 2], kind="stable")[: settings.oddest]  # among the placed
    shown = np.where(weights[at] > 0, flux[at], np.nan)
    return Map(
        table,
        wavelength,
        drawn.components,
        np.flatnonzero(placed)[at],
        shown,
        drawn.mean + drawn.coefficients[at] @ drawn.components,
        (*reduced, *changed),
    )


def _check_count(spectra: Sequence[Spectrum], reasons: Sequence[str]) -> None:
    """Raise InputError unless two spectra can be placed."""
    count = sum(reason == "" for reason in reasons)
    if count < 2:
        pairs = zip(spectra, reasons, strict=True)
        found = next((f" ({one.name}: {reason})" for one, reason in pairs if reason), "")
        raise InputError(
            f"{count} of {len(spectra)} spectra can be placed on a map{found}; give at least 2 "
            "with redshifts and a continuum above the noise"
        )


def _check(settings: ExploreSettings) -> None:
    """Raise SettingsError for a setting that is out of range."""
    for name, allowed in (("method", ("pca", "nmf")), ("embed", ("tsne", "pca"))):
        if getattr(settings, name) not in allowed:
            raise SettingsError(
                f"{name} is {getattr(settings, name)!r}; allowed are {' and '.join(allowed)}"
            )
    for name, least in (("components", 1), ("neighbours", 1), ("join", 1), ("oddest", 0)):
        if getattr(settings, name) < least:
            raise SettingsError(f"{name} is {getattr(settings, name)}; give {least} or more")
    for name in ("coverage", "least_pixels"):
        if not 0 < getattr(settings, name) <= 1:
            raise SettingsError(
                f"{name} is {getattr(settings, name)}; give a share above 0 up to 1"
            )


def _drawn(
    flux: FloatArray, weights: FloatArray, settings: ExploreSettings, device: str
) -> tuple[Principal, tuple[str, ...]]:
    """Components by the method asked for, as many as the data allow; and what was reduced."""
    k = min(settings.components, flux.shape[0] - 1, flux.shape[1])
    flags: tuple[str, ...] = ()
    if k < settings.components:
        flags = (f"{k} components instead of {settings.components}",)
    generator = np.random.default_rng(settings.seed)
    if settings.method == "pca":
        return weighted_pca(flux, weights, k, generator, device=device), flags
    from warte.nmf import NMF

    model = NMF(k, solver="nearly", random_state=generator, device=device)
    amounts = model.fit_transform(flux, weights=weights)
    return Principal(np.zeros(flux.shape[1]), model.components_, amounts), flags
