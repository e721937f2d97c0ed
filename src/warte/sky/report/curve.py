"""A light curve as inline SVG, which takes on the colours of the page it stands in."""

from __future__ import annotations

from html import escape

import numpy as np

from warte.sky.report.look import FloatArray

WIDTH, HEIGHT = 600, 190
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 10, 40
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
    x_ticks = ticks(float(time[0]), float(time[-1]), 6)
    y_low, y_high = min(low, 0.0, y_ticks[0]), max(high, y_ticks[-1])
    # A single moment still gets an axis of some length.
    span = float(time[-1] - time[0])
    pad = 0.02 * span or 0.5

    def across(seconds: FloatArray | float) -> FloatArray:
        share = (np.asarray(seconds, dtype=np.float64) - time[0] + pad) / (span + 2 * pad)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def up(level: FloatArray | float) -> FloatArray:
        share = (np.asarray(level, dtype=np.float64) - y_low) / max(y_high - y_low, 1e-12)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}" '
        'font-size="12" fill="currentColor" font-family="inherit">'
    ]
    parts += [_level_line(level, float(up(level))) for level in y_ticks]
    parts += [_time_mark(seconds, float(across(seconds))) for seconds in x_ticks]
    parts.append(_axis_names())
    bars = "".join(
        f"M{at:.1f} {a:.1f}V{b:.1f}"
        for at, a, b in zip(across(time), up(value - error), up(value + error), strict=True)
    )
    parts.append(f'<path d="{bars}" stroke="var(--plot)" stroke-opacity=".45" fill="none"/>')
    points = zip(across(time), up(value), time, value, error, strict=True)
    parts += [_point(*point) for point in points]
    return "".join(parts) + "</svg>", group


def ticks(low: float, high: float, number: int) -> list[float]:
    """About `number` round values (1, 2 or 5 times a power of ten apart) from low to high."""
    span = high - low
    if not span > 0:
        return [low]
    rough = span / number
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = np.ceil(low / step - 1e-9)
    count = int(np.floor(high / step + 1e-9) - first) + 1
    return [float((first + index) * step) for index in range(count)]


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


def _level_line(level: float, y: float) -> str:
    strength = ".5" if level == 0 else ".15"
    return (
        f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="currentColor" '
        f'stroke-opacity="{strength}"/>'
        f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" opacity=".7">{level:g}</text>'
    )


def _time_mark(seconds: float, x: float) -> str:
    y = HEIGHT - BOTTOM
    return (
        f'<path d="M{x:.1f} {y}v4" stroke="currentColor" stroke-opacity=".5"/>'
        f'<text x="{x:.1f}" y="{y + 17}" text-anchor="middle" opacity=".7">{seconds:g}</text>'
    )


def _axis_names() -> str:
    middle = (HEIGHT - BOTTOM + TOP) / 2
    return (
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 5}" text-anchor="middle" '
        'opacity=".7">seconds since frame 0</text>'
        f'<text transform="rotate(-90 13 {middle})" x="13" y="{middle}" text-anchor="middle" '
        'opacity=".7">brightness</text>'
    )


def _point(x: float, y: float, seconds: float, value: float, error: float) -> str:
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.4" fill="var(--plot)">'
        f"<title>{seconds:.3f} s: {value:.3g} ± {error:.2g}</title></circle>"
    )
