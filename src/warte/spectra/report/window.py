"""A fitted window as inline SVG: data, model and components above, what is left below."""

from __future__ import annotations

from html import escape

import numpy as np
import numpy.typing as npt

from warte.core.curve import LEFT, TOP, Frame, labelled, ticks
from warte.spectra.fit.curves import Curve
from warte.spectra.fit.layout import Window
from warte.spectra.lines import WAVELENGTH
from warte.spectra.report.path import band_path, curve_path, edges_of, step_path
from warte.spectra.spectrum import FloatArray

Bools = npt.NDArray[np.bool_]

MOST_PIXELS = 700  # of a window in the picture; more are joined in groups
MODEL_COLOUR = "#d9601a"
COMPONENT_COLOURS = {"1": "#2f8fdc", "2": "#d9a013", "broad": "#c56fa5"}
LETTERS = {"H-alpha": "Hα", "H-beta": "Hβ", "H-gamma": "Hγ", "H-delta": "Hδ"}
DATA_STROKE = 'stroke="currentColor" stroke-opacity=".75"'
LEAST_RESIDUAL, MOST_RESIDUAL = 4.0, 10.0  # half height of the lower strip, standard errors


def window_pictures(curve: Curve) -> str:
    """SVGs of all windows of a fit, side by side where there is room; "" without any pixels."""
    pictures = [window_picture(curve, window) for window in curve.windows]
    cells = "".join(f"<div>{picture}</div>" for picture in pictures if picture)
    columns = "repeat(auto-fit,minmax(min(26rem,100%),1fr))"
    style = f"display:grid;grid-template-columns:{columns};gap:0 1rem"
    return f'<div style="{style}">{cells}</div>' if cells else ""


def window_picture(curve: Curve, window: Window) -> str:
    """Two SVGs of one window (rest Angstrom): the fit, and the residuals below it.

    Missing pixels are gaps in the data. "" where no pixel of the window was measured.
    """
    inside = (curve.wavelength >= window[0]) & (curve.wavelength <= window[1])
    if not np.isfinite(curve.flux[inside]).any():
        return ""
    part = _cut(curve, window, inside)
    edges = edges_of(part.wavelength)
    x = (float(edges[0]), float(edges[-1]))
    margin = 0.03 * (x[1] - x[0])  # so that no number runs over the end
    marks = labelled([at for at in ticks(*x, 6) if x[0] + margin < at < x[1] - margin])
    low, high = _heights(part)
    upper = Frame(
        x, (low, high), marks, labelled(ticks(low, high, 4)), "", "flux density", height=290,
    )  # fmt: skip
    away = (part.flux - part.model) / part.err
    half = float(np.clip(np.nanmax(np.abs(away)) * 1.05, LEAST_RESIDUAL, MOST_RESIDUAL))
    name = "rest wavelength in vacuum (Å)"
    lower = Frame(x, (-half, half), [], labelled([-3, 0, 3]), name, "residual / σ", height=115)
    what = f"{curve.file}, {window[0]:.0f} to {window[1]:.0f} Angstrom"
    return upper.draw(f"Fit of {what}", _fit(upper, part, edges)) + lower.draw(
        f"Residuals of {what}", _residuals(lower, away, edges)
    )


def _cut(curve: Curve, window: Window, inside: Bools) -> Curve:
    """The pixels of one window, joined in groups where there are very many."""
    group = max(1, -(-int(inside.sum()) // MOST_PIXELS))
    flux, err = curve.flux[inside], curve.err[inside]
    seen = np.isfinite(flux) & (err > 0)
    weight = np.where(seen, 1.0, 0.0) / np.where(seen, err, 1.0) ** 2
    total, number = _summed(weight, group), _summed(np.ones_like(weight), group)

    def mean(values: FloatArray) -> FloatArray:
        return _summed(values[inside], group) / number

    light = _summed(np.where(seen, flux, 0.0) * weight, group)
    total[total == 0] = np.nan
    parts = tuple((name, mean(line)) for name, line in curve.components)
    return Curve(
        curve.file, mean(curve.wavelength), light / total, total**-0.5, mean(curve.model), parts,
        mean(curve.continuum), (window,),
    )  # fmt: skip


def _summed(values: FloatArray, group: int) -> FloatArray:
    """Sums of so many neighbours; the last may be of fewer."""
    return np.asarray(np.add.reduceat(values, np.arange(0, len(values), group)))


def _heights(part: Curve) -> tuple[float, float]:
    """Range of fluxes to show: the model, nearly all of the data, and room for names above."""
    data = part.flux[np.isfinite(part.flux)]
    low = min(float(np.percentile(data, 0.5)), float(part.continuum.min()))
    high = max(float(np.percentile(data, 99.5)), float(part.model.max()))
    span = max(high - low, 1e-6 * abs(high), 1e-12)
    return low - 0.06 * span, high + 0.3 * span


def _fit(frame: Frame, part: Curve, edges: FloatArray) -> str:
    up = frame.up(np.clip(part.flux, *frame.y))
    low = frame.up(np.clip(part.flux - part.err, *frame.y))
    high = frame.up(np.clip(part.flux + part.err, *frame.y))
    across = frame.across(edges)
    smooth = frame.across(part.wavelength)
    lines = [
        _line_names(frame),
        f'<path d="{band_path(across, low, high)}" fill="currentColor" fill-opacity=".16"/>',
        f'<path d="{step_path(across, up)}" fill="none" {DATA_STROKE}/>',
        curve_path(smooth, frame.up(part.continuum), "currentColor", ' stroke-dasharray="5 4"'),
    ]
    for name, values in part.components:
        colour = COMPONENT_COLOURS.get(name, "currentColor")
        lifted = frame.up(part.continuum + values)
        title = f"<title>component {escape(name)}</title>"
        lines.append(curve_path(smooth, lifted, colour, ' stroke-width="1.4"', title))
    style, title = ' stroke-width="1.6"', "<title>model</title>"
    lines.append(curve_path(smooth, frame.up(part.model), MODEL_COLOUR, style, title))
    return "".join(lines)


def _residuals(frame: Frame, away: FloatArray, edges: FloatArray) -> str:
    top, bottom = float(frame.up(1.0)), float(frame.up(-1.0))
    right = float(frame.across(frame.x[1]))
    band = (
        f'<rect x="{LEFT}" y="{top:.1f}" width="{right - LEFT:.1f}" height="{bottom - top:.1f}" '
        'fill="currentColor" fill-opacity=".12"/>'
    )
    up = frame.up(np.clip(away, *frame.y))
    steps = step_path(frame.across(edges), up)
    return f'{band}<path d="{steps}" fill="none" {DATA_STROKE}/>'


def _line_names(frame: Frame) -> str:
    """A faint mark at each line's rest wavelength, names in rows so that none covers another."""
    parts, ends = [], [-1e9, -1e9, -1e9]
    bottom = float(frame.up(frame.y[0]))
    for name, rest in sorted(WAVELENGTH.items(), key=lambda item: item[1]):
        if not frame.x[0] < rest < frame.x[1]:
            continue
        x, short = float(frame.across(rest)), LETTERS.get(name, name)
        half = 3.1 * len(short)
        row = next((at for at, end in enumerate(ends) if x - half > end), 0)
        ends[row] = x + half + 4
        y = TOP + 12 + 13 * row
        parts.append(
            f'<path d="M{x:.1f} {y + 3}V{bottom:.0f}" stroke="currentColor" stroke-opacity=".22"/>'
            f'<text x="{x:.1f}" y="{y}" text-anchor="middle" font-size="10.5" opacity=".75">'
            f"{short}</text>"
        )
    return "".join(parts)
