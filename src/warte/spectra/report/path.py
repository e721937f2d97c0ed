"""Lines, steps and bands as SVG paths."""

from __future__ import annotations

import numpy as np

from warte.spectra.spectrum import FloatArray


def edges_of(wavelength: FloatArray) -> FloatArray:
    """Edges of pixels, one more than pixels, midway between their centres."""
    if len(wavelength) == 1:
        return np.array([wavelength[0] - 0.5, wavelength[0] + 0.5])
    middle = (wavelength[1:] + wavelength[:-1]) / 2
    first, last = 2 * wavelength[0] - middle[0], 2 * wavelength[-1] - middle[-1]
    return np.concatenate([[first], middle, [last]])


def curve_path(x: FloatArray, y: FloatArray, colour: str, style: str, inside: str = "") -> str:
    """Path element through points in SVG coordinates; style and inside are trusted markup."""
    path = "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))
    return f'<path d="M{path}" fill="none" stroke="{colour}"{style}>{inside}</path>'


def _runs(values: FloatArray) -> list[slice]:
    """Stretches of pixels without a gap."""
    seen = np.concatenate([[False], np.isfinite(values), [False]])
    ends = np.flatnonzero(seen[1:] != seen[:-1])
    return [slice(int(a), int(b)) for a, b in zip(ends[::2], ends[1::2], strict=True)]


def step_path(edges: FloatArray, y: FloatArray) -> str:
    """Path of a step line in SVG coordinates; a new start after each gap."""
    parts = []
    for run in _runs(y):
        parts.append(f"M{edges[run.start]:.1f} {y[run.start]:.1f}")
        parts += [f"V{y[at]:.1f}H{edges[at + 1]:.1f}" for at in range(run.start, run.stop)]
    return "".join(parts)


def band_path(edges: FloatArray, low: FloatArray, high: FloatArray) -> str:
    """Closed path between two step lines; one for each stretch without a gap."""
    parts = []
    for run in _runs(low):
        there = [f"V{high[at]:.1f}H{edges[at + 1]:.1f}" for at in range(run.start, run.stop)]
        back = [f"V{low[at]:.1f}H{edges[at]:.1f}" for at in reversed(range(run.start, run.stop))]
        parts.append("".join([f"M{edges[run.start]:.1f} {low[run.start]:.1f}", *there, *back, "Z"]))
    return "".join(parts)
