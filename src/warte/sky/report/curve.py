"""A light curve as inline SVG."""

from __future__ import annotations

import numpy as np

from warte.core.curve import Frame, labelled, ticks
from warte.sky.report.look import FloatArray

MOST_POINTS = 200


def light_curve(
    time_s: FloatArray, flux: FloatArray, flux_err: FloatArray, title: str
) -> tuple[str, int]:
    """SVG of brightness against time, and how many observations stand behind each point.

    time_s: (N,) seconds since frame 0; flux, flux_err: (N,) grey levels. More than 200 points
    are averaged in groups of equal number, weighted by 1 / flux_err^2.
    """
    group = -(-len(time_s) // MOST_POINTS)
    time, value, error = _grouped(time_s, flux, flux_err, group)
    low, high = float(np.min(value - error)), float(np.max(value + error))
    y_ticks = ticks(min(low, 0.0), max(high, 0.0), 4)
    # A single moment still gets an axis of some length.
    pad = 0.02 * float(time[-1] - time[0]) or 0.5
    frame = Frame(
        x=(float(time[0]) - pad, float(time[-1]) + pad),
        y=(min(low, 0.0, y_ticks[0]), max(high, y_ticks[-1])),
        x_ticks=labelled(ticks(float(time[0]), float(time[-1]), 6)),
        y_ticks=labelled(y_ticks),
        x_name="seconds since frame 0",
        y_name="brightness",
    )
    places = frame.across(time)
    bars = "".join(
        f"M{at:.1f} {a:.1f}V{b:.1f}"
        for at, a, b in zip(places, frame.up(value - error), frame.up(value + error), strict=True)
    )
    parts = [f'<path d="{bars}" stroke="var(--plot)" stroke-opacity=".45" fill="none"/>']
    points = zip(places, frame.up(value), time, value, error, strict=True)
    parts += [_point(*point) for point in points]
    return frame.draw(title, "".join(parts)), group


def _grouped(
    time: FloatArray, flux: FloatArray, error: FloatArray, group: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    if group == 1:
        return time, flux, error
    starts = np.arange(0, len(time), group)
    weight = error**-2.0
    total = np.add.reduceat(weight, starts)
    return (
        np.add.reduceat(time * weight, starts) / total,
        np.add.reduceat(flux * weight, starts) / total,
        total**-0.5,
    )


def _point(x: float, y: float, seconds: float, value: float, error: float) -> str:
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.4" fill="var(--plot)">'
        f"<title>{seconds:.3f} s: {value:.3g} ± {error:.2g}</title></circle>"
    )
