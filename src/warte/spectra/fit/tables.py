"""The tables of a fit: lines.csv, fits.csv and lines.fits.

Column names are an interface promised to users; units stand in the names. Fluxes are as observed,
in the file's unit times Angstrom; equivalent widths are at rest; velocities are relative to the
redshift of the file; widths are sigmas without the instrument's.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.polynomial import legendre

from warte.core.errors import OutputError
from warte.spectra.fit import profile
from warte.spectra.fit.fitted import Fitted, flux_places
from warte.spectra.fit.intervals import pair_errors
from warte.spectra.fit.layout import Layout
from warte.spectra.fit.solve import Bounds, Lines
from warte.spectra.lines import WAVELENGTH
from warte.spectra.spectrum import FloatArray

LINE_COLUMNS = (
    "file",
    "line",
    "component",
    "flux",
    "flux_err",
    "velocity_km_s",
    "velocity_err_km_s",
    "sigma_km_s",
    "sigma_err_km_s",
    "ew_angstrom",
    "ew_err_angstrom",
)
FIT_COLUMNS = (
    "file",
    "redshift",
    "components",
    "chi2_reduced",
    "log_evidence_ratio",
    "p_two",
    "flags",
    "reason",
)
LEAST_LINE_COVERED = 0.3  # share of a line's pixels; below, its flux is not known


def line_rows(
    found: Fitted,
    lines: Lines,
    covered: FloatArray,
    scale: FloatArray,
    *,
    bounds: Bounds = Bounds(),  # noqa: B008 - frozen
) -> pd.DataFrame:
    """The rows of lines.csv for fits of one layout, with `row` (0..N-1) in place of the file.

    Components are "1", "2" and "broad". A line of a doublet has its own row; its flux is tied.
    The errors of two components are those of `intervals.pair_errors`; others are the roots of the
    variances, and that of a flux of 0, on its bound, is what it would be if all else were known. A
    velocity or a width on its bound has no error. The flux is NaN where less than 30 % of the
    line's pixels were measured.

    lines: the N spectra that were fitted.
    covered: (N, L) share of each line's pixels that were measured.
    scale: (N,) factor of all errors.
    bounds: of velocities and widths, those of the fit.
    """
    layout = found.layout
    errors = found.errors * scale[:, None]
    if layout.components == 2:
        errors = pair_errors(found, lines, scale, bounds=bounds)
    errors[:, : layout.nonlinear][found.fixed[:, : layout.nonlinear]] = np.nan
    _fill_flux_errors(found, lines, errors, scale)
    parts = []
    for system in range(layout.systems):
        wide = system >= layout.components
        name = "broad" if wide else str(system + 1)
        place = flux_places(layout, system)
        for at, group in enumerate(layout.broad if wide else layout.groups):
            for line, ratio in group.lines:
                part = _line(found, errors, system, place.start + at, line, ratio)
                hidden = covered[:, layout.lines.index(line)] < LEAST_LINE_COVERED
                part.loc[hidden, ["flux", "flux_err", "ew_angstrom", "ew_err_angstrom"]] = np.nan
                part.insert(1, "line", line)
                part.insert(2, "component", name)
                parts.append(part)
    table = pd.concat(parts, ignore_index=True)
    return table.sort_values("row", kind="stable", ignore_index=True)


def _fill_flux_errors(found: Fitted, lines: Lines, errors: FloatArray, scale: FloatArray) -> None:
    """Give fluxes that have none the error of the flux alone: 1 / sqrt(sum weight profile^2)."""
    layout = found.layout
    start = layout.nonlinear
    for place in range(start, start + layout.fluxes):
        rows = np.flatnonzero(found.fixed[:, place] & ~(errors[:, place] > 0))
        if not rows.size:
            continue
        some = lines.take(torch.from_numpy(rows).to(lines.flux.device))
        nonlinear = torch.from_numpy(found.nonlinear[rows]).to(lines.flux)
        linear = nonlinear.new_zeros(rows.size, layout.linear)
        linear[:, place - start] = 1.0
        level = nonlinear.new_zeros(rows.size, len(layout.windows))
        curve = profile.model(layout, nonlinear, linear, some.wavelength, some.instrument, level)
        total = (some.weight * curve**2).sum(1).cpu().numpy()
        errors[rows, place] = scale[rows] / np.sqrt(np.where(total > 0, total, np.nan))


def _line(
    found: Fitted, errors: FloatArray, system: int, flux_at: int, line: str, ratio: float
) -> pd.DataFrame:
    """Rows of one line of one component, for all spectra; errors: (N, K + M)."""
    values = found.parameters
    velocity, sigma = 2 * system, 2 * system + 1
    width, width_error = _equivalent_width(found, errors, flux_at, line, ratio)
    return pd.DataFrame(
        {
            "row": np.arange(values.shape[0]),
            "flux": ratio * values[:, flux_at],
            "flux_err": ratio * errors[:, flux_at],
            "velocity_km_s": values[:, velocity],
            "velocity_err_km_s": errors[:, velocity],
            "sigma_km_s": values[:, sigma],
            "sigma_err_km_s": errors[:, sigma],
            "ew_angstrom": width,
            "ew_err_angstrom": width_error,
        }
    )


def continuum_terms(layout: Layout, line: str) -> tuple[slice, FloatArray]:
    """Where the continuum's coefficients of a line's window stand in (K + M), and their factors.

    The factors are Legendre polynomials at the line's wavelength over its window.
    """
    wavelength = WAVELENGTH[line]
    at = next(i for i, (low, high) in enumerate(layout.windows) if low <= wavelength <= high)
    low, high = layout.windows[at]
    size = layout.order + 1
    start = layout.parameters - (len(layout.windows) - at) * size
    terms = legendre.legvander(np.array([2 * (wavelength - low) / (high - low) - 1]), layout.order)
    return slice(start, start + size), terms[0]


def _equivalent_width(
    found: Fitted, errors: FloatArray, flux_at: int, line: str, ratio: float
) -> tuple[FloatArray, FloatArray]:
    """(N,) flux over the continuum at the line, Angstrom at rest, and its standard error.

    NaN where the continuum is not positive. The error is the first-order one of the flux and of
    the continuum, with their correlation.
    """
    place, terms = continuum_terms(found.layout, line)
    level = found.parameters[:, place] @ terms
    level = np.where(level > 0, level, np.nan)
    width = ratio * found.parameters[:, flux_at] / level
    slope = np.empty((level.size, 1 + terms.size))
    slope[:, 0], slope[:, 1:] = ratio / level, -(width / level)[:, None] * terms
    at = np.append(flux_at, np.arange(place.start, place.stop))
    error = found.errors[:, at]
    unit = np.where(error > 0, error, 1.0)
    correlation = found.covariance[:, at[:, None], at] / (unit[:, :, None] * unit[:, None, :])
    correlation[:, 0, 0] = 1.0  # also on the bound
    part = slope * errors[:, at]
    variance = np.einsum("ni,nij,nj->n", part, correlation, part)
    return width, np.sqrt(np.maximum(variance, 0.0))


def write_lines_fits(path: Path, lines: pd.DataFrame, unit: str) -> None:
    """Write the table of lines as a FITS table with units.

    unit: that of the flux densities, for example "1e-17 erg/s/cm2/Angstrom"; one that astropy does
        not know only stands in the header, as FLUXUNIT.

    Raises:
        OutputError: the file cannot be written.
    """
    from astropy import units
    from astropy.table import Table

    table = Table(meta={"EXTNAME": "LINES", "FLUXUNIT": unit})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", units.UnitsWarning)  # several slashes are well understood
        density = units.Unit(unit, parse_strict="silent")
    known = not isinstance(density, units.UnrecognizedUnit)
    flux = density * units.Angstrom if known else None
    column_units = {
        "flux": flux,
        "flux_err": flux,
        "velocity_km_s": units.km / units.s,
        "velocity_err_km_s": units.km / units.s,
        "sigma_km_s": units.km / units.s,
        "sigma_err_km_s": units.km / units.s,
        "ew_angstrom": units.Angstrom,
        "ew_err_angstrom": units.Angstrom,
    }
    for name in LINE_COLUMNS:
        if name in column_units:
            table[name] = lines[name].to_numpy(dtype=np.float64)
            table[name].unit = column_units[name]
        else:
            table[name] = lines[name].astype(str).to_numpy(dtype=str)
    try:
        table.write(path, format="fits")
    except OSError as error:
        raise OutputError(f"{path}: the table of lines cannot be written: {error}") from error
