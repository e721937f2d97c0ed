"""The frame of a small plot as inline SVG, which takes on the colours of the page around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Tick = tuple[float, str]  # where on the axis, and what is written there

LEFT, RIGHT, TOP, BOTTOM = 64, 12, 10, 40  # margins in SVG units


@dataclass(frozen=True)
class Frame:
    """Axes with ticks and names, and the way from values to SVG coordinates.

    x, y: (low, high) values at the ends of the axes, low < high.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    x_name: str
    y_name: str
    width: int = 600
    height: int = 190

    def across(self, values: FloatArray | float) -> FloatArray:
        """SVG x of values on the horizontal axis."""
        share = (np.asarray(values, dtype=np.float64) - self.x[0]) / _span(self.x)
        return LEFT + share * (self.width - LEFT - RIGHT)

    def up(self, values: FloatArray | float) -> FloatArray:
        """SVG y of values on the vertical axis."""
        share = (np.asarray(values, dtype=np.float64) - self.y[0]) / _span(self.y)
        return self.height - BOTTOM - share * (self.height - TOP - BOTTOM)

    def draw(self, title: str, inside: str) -> str:
        """The whole SVG: axes, and `inside`, which is trusted markup in SVG coordinates.

        title: said to those who cannot see the plot.
        """
        parts = [
            f'<svg viewBox="0 0 {self.width} {self.height}" role="img" '
            f'aria-label="{escape(title)}" '
            'font-size="12" fill="currentColor" font-family="inherit">'
        ]
        parts += [self._level(level, text) for level, text in self.y_ticks]
        parts += [self._mark(value, text) for value, text in self.x_ticks]
        return "".join([*parts, self._names(), inside]) + "</svg>"

    def _level(self, level: float, text: str) -> str:
        y, strength = float(self.up(level)), ".5" if level == 0 else ".15"
        return (
            f'<path d="M{LEFT} {y:.1f}H{self.width - RIGHT}" stroke="currentColor" '
            f'stroke-opacity="{strength}"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" opacity=".7">'
            f"{escape(text)}</text>"
        )

    def _mark(self, value: float, text: str) -> str:
        x, y = float(self.across(value)), self.height - BOTTOM
        return (
            f'<path d="M{x:.1f} {y}v4" stroke="currentColor" stroke-opacity=".5"/>'
            f'<text x="{x:.1f}" y="{y + 17}" text-anchor="middle" opacity=".7">'
            f"{escape(text)}</text>"
        )

    def _names(self) -> str:
        middle = (self.height - BOTTOM + TOP) / 2
        return (
            f'<text x="{(LEFT + self.width - RIGHT) / 2}" y="{self.height - 5}" '
            f'text-anchor="middle" opacity=".7">{escape(self.x_name)}</text>'
            f'<text transform="rotate(-90 13 {middle})" x="13" y="{middle}" text-anchor="middle" '
            f'opacity=".7">{escape(self.y_name)}</text>'
        )


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


def labelled(values: Sequence[float]) -> list[Tick]:
    """Ticks at these values, with the values themselves as text."""
    return [(value, f"{value:g}") for value in values]


def _span(ends: tuple[float, float]) -> float:
    return max(ends[1] - ends[0], 1e-12)
