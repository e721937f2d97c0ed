"""Emission lines of many spectra, fitted at once, with one and with two components.

result = fit(spectra)
result.fits    # a row per spectrum: components, evidence, flags, reason where it failed
result.lines   # a row per spectrum, line and component: flux, velocity, width, their errors
curves(spectra, result, ["spec-0295-51585-0596.fits"])   # what a picture needs
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from warte.spectra.fit import profile
from warte.spectra.fit.batch import Batch, batches
from warte.spectra.fit.calibrate import shipped
from warte.spectra.fit.choose import Comparison, FitSettings, compare
from warte.spectra.fit.curves import Curve
from warte.spectra.fit.fitted import BoolArray, Fitted, IntArray
from warte.spectra.fit.layout import Layout, layout_for
from warte.spectra.fit.solve import Bounds
from warte.spectra.fit.tables import (
    FIT_COLUMNS,
    LEAST_LINE_COVERED,
    LINE_COLUMNS,
    line_rows,
    write_lines_fits,
)
from warte.spectra.spectrum import FloatArray, Spectrum

__all__ = [
    "FIT_COLUMNS",
    "LINE_COLUMNS",
    "Bounds",
    "Curve",
    "FitResult",
    "FitSettings",
    "Model",
    "curves",
    "fit",
    "write_lines_fits",
]

BLOCK = 4096  # spectra at once: memory does not depend on their number
POOR_FIT = 2.0  # reduced chi-square above which a model is not the whole truth
LEAST_LINE = 3.0  # flux over its error that some line should have
BEYOND = 0.999  # of the largest absorption allowed: more is not believed
NOT_SOLVED = "the fit found no solution: its numbers are not finite or its pixels too few"


@dataclass(frozen=True)
class Model:
    """The fit that was chosen for one spectrum: layout, (K,) and (M,) parameters."""

    layout: Layout
    nonlinear: FloatArray
    linear: FloatArray


@dataclass(frozen=True)
class FitResult:
    """Tables of a fit, in the order of the spectra.

    fits: columns FIT_COLUMNS; lines: columns LINE_COLUMNS; models: None where a fit failed.
    """

    fits: pd.DataFrame
    lines: pd.DataFrame
    models: tuple[Model | None, ...]


def fit(
    spectra: Sequence[Spectrum],
    settings: FitSettings = FitSettings(),  # noqa: B008 - frozen
    *,
    report: Callable[[int, int], None] | None = None,
) -> FitResult:
    """Fit the lines of all spectra and decide how many components each has.

    A spectrum that cannot be fitted has components 0, no rows in `lines`, and the reason in
    `fits`; the others do not depend on it.

    report: called with the number of spectra done and of all, after each block.

    Raises:
        MissingExtraError: the engine is lmfit and lmfit is not installed.
    """
    fits, lines = [], []
    models: list[Model | None] = [None] * len(spectra)
    for low in range(0, len(spectra), BLOCK):
        block = spectra[low : low + BLOCK]
        groups, failed = batches(block, device=settings.device)
        tables = [_unfitted(block, failed)]
        for batch in groups:
            for part, compared in _compared(batch, settings):
                table, rows, found = _fit_batch(block, part, compared, settings)
                tables.append(table)
                lines.append(rows.assign(row=rows["row"] + low))
                for place, model in found.items():
                    models[low + place] = model
        fits.append(_joined(tables).sort_values("row"))
        if report is not None:
            report(low + len(block), len(spectra))
    rows = _joined(lines, ["row", *LINE_COLUMNS]).sort_values("row", kind="stable")
    return FitResult(
        _joined(fits, FIT_COLUMNS)[list(FIT_COLUMNS)].reset_index(drop=True),
        rows[list(LINE_COLUMNS)].reset_index(drop=True),
        tuple(models),
    )


def _joined(tables: list[pd.DataFrame], columns: Sequence[str] = ()) -> pd.DataFrame:
    """One table of those that have rows."""
    filled = [table for table in tables if len(table)]
    return pd.concat(filled) if filled else pd.DataFrame(columns=[*columns])


def _unfitted(spectra: Sequence[Spectrum], reasons: dict[int, str]) -> pd.DataFrame:
    """Rows of fits.csv, with their place `row`, for spectra that cannot be fitted."""
    return pd.DataFrame(
        {
            "row": list(reasons),
            "file": [spectra[row].name for row in reasons],
            "redshift": [spectra[row].z for row in reasons],
            "components": 0,
            "chi2_reduced": np.nan,
            "log_evidence_ratio": np.nan,
            "p_two": np.nan,
            "flags": [";".join(spectra[row].flags) for row in reasons],
            "reason": list(reasons.values()),
        }
    )


def _compared(batch: Batch, settings: FitSettings) -> list[tuple[Batch, Comparison]]:
    """The models of a batch; apart from the others those whose absorption has no sound fit.

    In galaxies without emission, absorption at its limit and emission of the same width that
    fills it again may imitate what is not in the model: such spectra are fitted without.
    """
    compared = compare(batch.lines, batch.windows, settings)
    beyond = compared.absorption >= BEYOND * profile.ABSORPTION_LIMIT
    if not settings.absorption or not beyond.any():
        return [(batch, compared)]
    plain = batch.take(beyond)
    parts = [(plain, compare(plain.lines, plain.windows, replace(settings, absorption=False)))]
    if not beyond.all():
        parts.append((batch.take(~beyond), compared.take(~beyond)))
    return parts


def _fit_batch(
    spectra: Sequence[Spectrum], batch: Batch, compared: Comparison, settings: FitSettings
) -> tuple[pd.DataFrame, pd.DataFrame, dict[int, Model]]:
    """Rows of fits.csv, rows of lines.csv and the models of a batch, by their places."""
    calibration = shipped()
    sound = compared.fault == ""
    least = calibration.threshold(batch.windows, compared.snr, settings.false_positives)
    enough = compared.log_ratio > least
    chance = calibration.probability(batch.windows, compared.snr, compared.log_ratio, sound)
    components = np.where(enough & sound, 2, 1)
    chi2_reduced = np.full(components.size, np.nan)
    notes = _notes(spectra, batch, compared, enough)
    lines, models = [], {}
    for found, rows in compared.chosen(components):
        solved = np.isfinite(found.chi2)
        components[rows[~solved]] = 0
        chi2_reduced[rows] = found.chi2_reduced
        _note_model(found, rows, notes, settings.bounds)
        found, rows = found.take(solved), rows[solved]
        scale = _error_scale(compared, settings)[rows]
        part = batch.take(rows)
        table = line_rows(found, part.lines, part.covered, scale, bounds=settings.bounds)
        lines.append(_named(table, spectra, part))
        for place, row in enumerate(part.rows):
            models[int(row)] = Model(found.layout, found.nonlinear[place], found.linear[place])
    fits = pd.DataFrame(
        {
            "row": batch.rows,
            "file": [spectra[row].name for row in batch.rows],
            "redshift": [spectra[row].z for row in batch.rows],
            "components": components,
            "chi2_reduced": chi2_reduced,
            "log_evidence_ratio": compared.log_ratio,
            # Without a line there is nothing to tell.
            "p_two": np.where((components > 0) & (compared.snr >= LEAST_LINE), chance, np.nan),
            "flags": [";".join(words) for words in notes],
            "reason": np.where(components > 0, "", NOT_SOLVED),
        }
    )
    return fits, _joined(lines, ["row"]).sort_values("row", kind="stable"), models


def _error_scale(compared: Comparison, settings: FitSettings) -> FloatArray:
    """(N,) factor of all errors."""
    if settings.errors == "stated":
        return np.ones(compared.misfit.size)
    redness = compared.redness if settings.errors == "full" else 1.0
    return np.asarray(np.sqrt(compared.misfit * redness))


def _named(table: pd.DataFrame, spectra: Sequence[Spectrum], batch: Batch) -> pd.DataFrame:
    """The rows with `row` as the place in the sequence, and the file."""
    rows = batch.rows[table["row"]]
    return table.assign(row=rows, file=[spectra[row].name for row in rows])


def _notes(
    spectra: Sequence[Spectrum], batch: Batch, compared: Comparison, enough: BoolArray
) -> list[list[str]]:
    """Words for each spectrum that do not depend on the model chosen."""
    notes = [list(spectra[row].flags) for row in batch.rows]
    names = layout_for(batch.windows).lines
    for place, words in enumerate(notes):
        if batch.assumed[place]:
            words.append("resolution assumed")
        if not all(batch.windows):
            words.append("blue window only" if batch.windows[0] else "red window only")
        words += [
            f"{name} missing"
            for name, share in zip(names, batch.covered[place], strict=True)
            if share < LEAST_LINE_COVERED
        ]
        if not compared.snr[place] >= LEAST_LINE:
            words.append("no line above 3 sigma")
        if enough[place] and compared.fault[place]:
            words.append(str(compared.fault[place]))
    return notes


def _note_model(found: Fitted, rows: IntArray, notes: list[list[str]], bounds: Bounds) -> None:
    """Add the words that depend on the model chosen."""
    layout = found.layout
    systems = 2 * layout.components
    at_low = found.fixed[:, 1:systems:2] & (
        found.nonlinear[:, 1:systems:2] <= 1.001 * bounds.sigma[0]
    )
    unresolved = at_low.any(axis=1)
    velocity = found.fixed[:, 0 : layout.nonlinear : 2].any(axis=1)
    width = (found.fixed[:, 1:systems:2] & ~at_low).any(axis=1)
    width |= found.fixed[:, systems + 1 : layout.nonlinear : 2].any(axis=1)
    for mask, word in (
        (np.full(rows.size, bool(layout.broad)), "broad component"),
        (velocity, "velocity at bound"),
        (width, "width at bound"),
        (unresolved, "unresolved"),
        (found.chi2_reduced > POOR_FIT, "poor fit"),
        (~found.converged, "not converged"),
    ):
        for row in rows[mask]:
            notes[row].append(word)


def curves(
    spectra: Sequence[Spectrum], result: FitResult, names: Collection[str] | None = None
) -> list[Curve]:
    """Data, model and its parts of the fitted spectra, in the order of the spectra.

    spectra: those that were fitted, in the same order. names: their names; all where None.
    """
    wanted = [
        row
        for row, (spectrum, model) in enumerate(zip(spectra, result.models, strict=True))
        if model is not None and (names is None or spectrum.name in names)
    ]
    groups, _ = batches([spectra[row] for row in wanted])
    found = {
        wanted[row]: _curve(spectra[wanted[row]].name, batch, place, result.models[wanted[row]])
        for batch in groups
        for place, row in enumerate(batch.rows)
    }
    return [found[row] for row in sorted(found)]


def _curve(name: str, batch: Batch, place: int, model: Model | None) -> Curve:
    assert model is not None
    one = batch.lines.take(slice(place, place + 1))
    level = profile.levels(model.layout, one.wavelength, one.flux, one.weight)
    nonlinear, linear = (torch.from_numpy(a)[None] for a in (model.nonlinear, model.linear))
    systems, continuum = profile.parts(
        model.layout, nonlinear, linear, one.wavelength, one.instrument, level
    )
    # Padding repeats the last wavelength.
    wavelength = one.wavelength[0].numpy()
    kept = np.append(True, np.diff(wavelength) > 0)
    weight = one.weight[0].numpy()[kept]
    good = weight > 0
    err = np.divide(1.0, np.sqrt(weight), out=np.full(weight.size, np.nan), where=good)
    parts = [part[kept] for part in systems[0].numpy()]
    labels = [str(number + 1) for number in range(model.layout.components)]
    labels += ["broad"] if model.layout.broad else []
    base = continuum[0].numpy()[kept]
    return Curve(
        file=name,
        wavelength=wavelength[kept],
        flux=np.where(good, one.flux[0].numpy()[kept], np.nan),
        err=err,
        model=base + np.sum(parts, axis=0),
        components=tuple(zip(labels, parts, strict=True)),
        continuum=base,
        windows=model.layout.windows,
    )
